"""Files that point elsewhere, and files that are not what they are called: a stranger's data show nothing of yours."""

import json
import os

import h5py
import numpy as np
import pytest
from PIL import Image
from small_data import write, write_market

from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.images import decode
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import DataError, WeightsError
from svdnet_jax.models.pretrained.readers import read_h5, read_tfjs
from svdnet_jax.reporting.terminal import as_cell


@pytest.fixture
def secret(tmp_path):
    write(tmp_path / "private" / "secret.jpg")
    return tmp_path / "private" / "secret.jpg"


@pytest.mark.parametrize("form", ["../private/secret.jpg", "{}", "images/../../private/secret.jpg", "images/link.jpg"])
def test_a_manifest_names_no_image_outside_its_folder(form, secret, tmp_path):
    root = tmp_path / "theirs"
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg")
    (root / "images" / "link.jpg").symlink_to(secret)
    rows = ["path,identity,camera,split", f"{form.format(secret)},1,1,train"]
    (root / "manifest.csv").write_text("\n".join([*rows, "images/a.jpg,2,1,query", "images/b.jpg,2,2,gallery"]))
    with pytest.raises(DataError, match=r"secret.jpg, outside of .*`data.outside`"):
        load_dataset(root, tmp_path / "cache", (16, 8))
    assert len(find_layout(root, tmp_path / "cache", outside=True).splits["train"]) == 1


def test_links_within_a_data_set_and_to_all_of_it_are_fine(tmp_path):
    write_market(tmp_path / "Market")
    first = next((tmp_path / "Market" / "bounding_box_train").glob("*.jpg"))
    first.rename(tmp_path / "Market" / "kept.jpg")
    first.symlink_to("../kept.jpg")
    (tmp_path / "shortcut").symlink_to("Market")
    assert len(find_layout(tmp_path / "shortcut", tmp_path / "cache").splits["train"]) == 4


def test_links_out_of_a_data_set_are_named(secret, tmp_path):
    write_market(tmp_path / "Market")
    os.rename(tmp_path / "Market" / "query", tmp_path / "query-elsewhere")
    (tmp_path / "Market" / "query").symlink_to(tmp_path / "query-elsewhere")
    with pytest.raises(DataError, match="query image 0001_c1s1_000001_00.jpg is"):
        find_layout(tmp_path / "Market", tmp_path / "cache")


@pytest.mark.parametrize("name", ["../private/secret.jpg", "{}", "fifo"])
def test_shards_of_a_model_lie_beside_it(name, secret, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    group = {"paths": [name.format(secret)], "weights": [{"name": "a/kernel", "dtype": "float32", "shape": [1]}]}
    (folder / "model.json").write_text(json.dumps({"weightsManifest": [group]}))
    with pytest.raises(WeightsError, match="names the shard"):
        read_tfjs(folder / "model.json")


def test_links_of_an_h5_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["kernel"] = np.ones(3)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["layer_names"] = ["a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = ["a/kernel:0"]
        group.create_group("a")["kernel:0"] = h5py.ExternalLink("other.h5", "kernel")
    with pytest.raises(WeightsError, match="a link to other.h5, another file"):
        read_h5(tmp_path / "model.h5")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.attrs["layer_names"] = ["a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = ["a/kernel:0"]
        group.create_dataset("a/kernel:0", (4,), "u1", external=[("/etc/hostname", 0, 4)])
    with pytest.raises(WeightsError, match="a link to /etc/hostname"):
        read_h5(tmp_path / "raw.h5")


@pytest.mark.parametrize("form", ["EPS", "PPM", "ICO", "PCX", "TGA"])
def test_only_kinds_that_are_named_are_opened(form, tmp_path):
    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "a.jpg", format=form)
    with pytest.raises(DataError, match="a.jpg"):
        decode(tmp_path / "a.jpg", "a.jpg")


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd", "@SUM(A1)", "-2+3+cmd|' /C calc'!A0", "=HYPERLINK(1)"])
def test_what_a_spreadsheet_would_run_is_text(text):
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-1_c3s2_000010_02.jpg", "0001_c1s1_000001_00.jpg", "a=b.jpg", "übung.png", ""])
def test_plain_names_stay(text):
    assert as_cell(text) == text
