"""Decoded data sets on disk: written whole, mapped, checked, and read where nothing can decode an image."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_data import SIZE, cache_folder, shelved_market, write, write_manifest, write_truncated

from svdnet_jax.data import cache as cache_module
from svdnet_jax.data.cache import FORMAT, read_prepared, write_prepared
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.reading import load_dataset, prepare
from svdnet_jax.data.types import Dataset, Split, fingerprint
from svdnet_jax.errors import DataError

REPOSITORY = Path(__file__).parents[2]

market = pytest.fixture(shelved_market)
cache = pytest.fixture(cache_folder)


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)

    def split(first, n):
        numbers = rng.integers(first, first + 3, (2, n))
        images = rng.integers(0, 256, (n, 6, 4, 3), np.uint8)
        return Split(images, *numbers, np.array([f"{first}_{i}.jpg" for i in range(n)]))

    return Dataset("small", split(1, 9), split(11, 4), split(11, 6))


@pytest.fixture
def folder(dataset, tmp_path):
    write_prepared(dataset, tmp_path / "prepared")
    return tmp_path / "prepared"


def assert_same(a, b):
    for split in ("train", "query", "gallery"):
        for array in ("images", "pids", "cameras", "names"):
            np.testing.assert_array_equal(getattr(getattr(a, split), array), getattr(getattr(b, split), array))


def test_what_is_read_is_what_was_written(dataset, folder):
    read = read_prepared(folder)
    assert read.name == dataset.name
    assert_same(read, dataset)
    assert {path.suffix for path in folder.iterdir()} == {".npy", ".json"}


def test_names_of_people_are_kept_and_older_folders_have_none(dataset, folder, tmp_path):
    assert read_prepared(folder).people == {}
    write_prepared(replace(dataset, people={12: "anna", 11: "Ōe"}), tmp_path / "named")
    read = read_prepared(tmp_path / "named")
    assert read.people == {12: "anna", 11: "Ōe"}
    assert fingerprint(read) == fingerprint(dataset)


@pytest.mark.parametrize("people", [["anna"], {"anna": "anna"}, {"1": 7}, "anna"])
def test_names_of_people_that_are_none_are_refused(people, folder):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"people": people}))
    with pytest.raises(DataError, match="prepare it again"):
        read_prepared(folder)


def test_a_name_that_was_mended_is_that_of_the_manifest_and_nothing_is_decoded_again(tmp_path, cache):
    text = (
        "path,identity,camera,split\na.jpg,anna,1,train\nb.jpg,ben,1,train\nc.jpg,carl,1,query\nd.jpg,carl,2,gallery\n"
    )
    root, said = write_manifest(tmp_path / "mine", text), []
    assert load_dataset(root, cache, SIZE).people == {1: "anna", 2: "ben", 3: "carl"}
    (root / "manifest.csv").write_text(text.replace("anna", "annika"))
    assert load_dataset(root, cache, SIZE, say=said.append).people[1] == "annika"
    assert said == []


def test_images_are_mapped_and_cannot_be_written_to(folder):
    images = read_prepared(folder).train.images
    assert isinstance(images.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_fingerprint_needs_no_pixels_and_is_the_same(dataset, folder, monkeypatch):
    read = read_prepared(folder)
    assert fingerprint(read) == fingerprint(dataset)
    hashed = []
    monkeypatch.setattr("svdnet_jax.data.types.array_hash", lambda array: hashed.append(array.dtype) or "x")
    fingerprint(read)
    assert len(hashed) == 9
    assert np.uint8 not in hashed


def test_a_folder_in_use_is_not_written_to(dataset, folder):
    with pytest.raises(DataError, match="is there already and not empty"):
        write_prepared(dataset, folder)


def test_a_failed_write_leaves_nothing_behind(market, cache, tmp_path):
    write_truncated(market / "query" / "0001_c1s1_000001_00.jpg")  # noticed after other images were written
    with pytest.raises(DataError, match="cannot be decoded"):
        prepare(find_layout(market, cache), cache, SIZE, tmp_path / "new" / "prepared")
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_prepared_from_another_layout_is_refused(dataset, market, cache, tmp_path):
    prepare(find_layout(market, cache), cache, SIZE, tmp_path / "prepared")
    with pytest.raises(
        DataError,
        match=r"`data.root` \S*prepared: was prepared from market1501, and `data.layout` cuhk03-detected is wanted; "
        "give the folder prepared from cuhk03-detected, or `data.layout` market1501$",
    ):
        load_dataset(tmp_path / "prepared", cache, SIZE, "cuhk03-detected")
    write_prepared(dataset, tmp_path / "silent")  # does not say what it was made from
    for name, layouts in (("prepared", ("auto", "market1501")), ("silent", ("auto", "cuhk03-detected"))):
        for layout in layouts:
            assert len(load_dataset(tmp_path / name, cache, SIZE, layout).query)


def damage_truncate(folder):
    file = folder / "train_images.npy"
    os.truncate(file, file.stat().st_size - 100)
    return "train_images.npy: is missing or damaged"


def damage_missing(folder):
    (folder / "query_names.npy").unlink()
    return "query_names.npy: is missing or damaged"


def damage_changed(folder):
    pids = np.load(folder / "gallery_pids.npy")
    np.save(folder / "gallery_pids.npy", pids + 1)
    return "gallery_pids.npy: was changed since it was written"


def damage_one_bit(folder):
    with (folder / "train_images.npy").open("r+b") as file:
        file.seek(-7, os.SEEK_END)
        byte = file.read(1)
        file.seek(-7, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    return "train_images.npy: was changed since it was written, its hash is another; prepare it again"


def damage_other_shape(folder):
    np.save(folder / "query_images.npy", np.zeros((1, 2, 2, 3), np.uint8))
    return r"query_images.npy: found .*\[1, 2, 2, 3\].* expected"


def damage_pickle(folder):
    np.save(folder / "train_names.npy", np.array([object()]), allow_pickle=True)
    return "train_names.npy: is missing or damaged"


def damage_version(folder):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"format": FORMAT + 1}))
    return f"dataset.json: found format {FORMAT + 1}, expected {FORMAT}"


def damage_json(folder):
    (folder / "dataset.json").write_text("{")
    return "dataset.json: cannot be read as prepared data"


def damage_description(folder):
    content = json.loads((folder / "dataset.json").read_text())
    content["arrays"]["query"]["pids"] = 3
    (folder / "dataset.json").write_text(json.dumps(content))
    return "dataset.json: found format 2, expected 2 with all its arrays"


def damage_header(folder):
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': ["))
    return "train_images.npy: is missing or damaged"


def damage_pipe(folder):
    (folder / "train_pids.npy").unlink()
    os.mkfifo(folder / "train_pids.npy")
    return "train_pids.npy: is missing or damaged .*a pipe"


DAMAGES = [
    damage_description,
    damage_header,
    damage_pipe,
    damage_truncate,
    damage_missing,
    damage_changed,
    damage_one_bit,
    damage_other_shape,
    damage_pickle,
    damage_version,
    damage_json,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_with_its_remedy(folder, damage):
    said = damage(folder)
    with pytest.raises(DataError, match=said) as caught:
        read_prepared(folder)
    assert "check-data" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_our_own_cache_is_made_again(market, cache, damage):
    before = load_dataset(market, cache, SIZE)
    before = type(before)(before.name, *(copy_of(part) for part in (before.train, before.query, before.gallery)))
    [folder] = cache.glob("prepared-*")
    damage(folder)
    said = []
    assert_same(load_dataset(market, cache, SIZE, say=said.append), before)
    assert str(folder) in said[0]
    assert said[0].endswith("it is taken away and made again from the files")
    read_prepared(folder)


def test_a_cache_without_its_description_is_made_again_and_other_folders_stay(market, cache):
    before = load_dataset(market, cache, SIZE)
    [folder] = cache.glob("prepared-*")
    (folder / "dataset.json").unlink()
    said = []
    assert load_dataset(market, cache, SIZE, say=said.append).train.names.tolist() == before.train.names.tolist()
    assert said[0] == f"{folder}: dataset.json is gone; it is taken away and made again from the files"
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"was prepared, and its dataset.json is gone; prepare it again"):
        load_dataset(folder, cache, SIZE)
    (folder / "mine.txt").write_text("a")
    with pytest.raises(DataError, match="is there already and not empty"):
        load_dataset(market, cache, SIZE)
    assert (folder / "mine.txt").exists()


def copy_of(split):
    return type(split)(split.images.copy(), split.pids, split.cameras, split.names)


def test_changed_folders_are_read_anew_and_unchanged_ones_are_not(market, cache):
    said = []
    load_dataset(market, cache, SIZE, say=said.append)
    kept = sorted(path.name for path in cache.iterdir())
    load_dataset(market, cache, (99, 99), say=said.append)  # images of one size serve every network
    assert sorted(path.name for path in cache.iterdir()) == kept
    assert [line.split(":")[0] for line in said] == [market.name]
    assert "8 images" in said[0]
    write(market / "bounding_box_train" / "0009_c1s1_000001_01.jpg")
    assert load_dataset(market, cache, SIZE).train.pids.tolist() == [2, 2, 7, 7, 9]


def test_images_of_several_sizes_are_kept_for_each_size_asked_for(market, cache):
    write(market / "query" / "0001_c3s1_000001_00.jpg", size=(40, 90))
    shapes = [load_dataset(market, cache, size).query.images.shape[1:3] for size in ((16, 8), (32, 16), (16, 8))]
    assert shapes == [(16, 8), (32, 16), (16, 8)]
    assert len(list(cache.glob("prepared-*"))) == 2
    assert len(list(cache.glob("records-*"))) == 1


def test_a_moved_data_set_keeps_its_cache_and_takes_its_new_name(market, cache):
    load_dataset(market, cache, SIZE)
    kept = sorted(cache.iterdir())
    moved = market.rename(market.parent / "elsewhere")
    assert load_dataset(moved, cache, SIZE).name == "elsewhere"
    assert sorted(cache.iterdir()) == kept


def test_prepared_data_need_no_image_library(market, cache, tmp_path):
    prepare(find_layout(market, cache), cache, SIZE, tmp_path / "prepared")
    load_dataset(market, cache, SIZE)
    # None in sys.modules makes an import fail.
    blocked = ["tensorflow", "tensorflow_datasets", "array_record", "grain", "PIL", "h5py", "scipy"]
    program = f"""
import sys
sys.modules.update(dict.fromkeys({blocked}))
from pathlib import Path
from svdnet_jax.data.reading import load_dataset
for root in ({str(tmp_path / "prepared")!r}, {str(market)!r}):
    print(load_dataset(Path(root), Path({str(cache)!r}), (16, 8)).train.images.sum())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    total = int(load_dataset(market, cache, SIZE).train.images.sum())
    assert done.stdout.split() == [str(total)] * 2


def test_headers_are_read_in_one_thread(market, cache, tmp_path, monkeypatch):
    """NumPy reads them by `ast`, which in several threads of Python 3.11 now and then ends in a SystemError."""
    prepare(find_layout(market, cache), cache, SIZE, tmp_path / "prepared")
    readers, read = [], cache_module.read_array
    noted = lambda *a, **k: (readers.append(threading.get_ident()), read(*a, **k))[1]  # noqa: E731
    monkeypatch.setattr(cache_module, "read_array", noted)
    read_prepared(tmp_path / "prepared")
    assert len(readers) == 12
    assert set(readers) == {threading.get_ident()}
