"""CUHK03's new protocol, from the original Matlab file, from PNG files made of it, and in Market-1501's folders."""

import numpy as np
import pytest
from PIL import Image
from small_data import (
    SIZE,
    cache_folder,
    cuhk03_color,
    write_cuhk03_config,
    write_cuhk03_cropped,
    write_cuhk03_images,
    write_cuhk03_mat,
)

from svdnet_jax.data.formats import cuhk03
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import DataError

cache = pytest.fixture(cache_folder)


@pytest.fixture
def root(tmp_path):
    write_cuhk03_config(tmp_path / "cuhk03")
    return tmp_path / "cuhk03"


def rows(listing, split):
    return [(crop.name, crop.pid, crop.camera) for crop in listing.splits[split]]


def assert_is_the_protocol(listing):
    assert listing.layout == "cuhk03-labelled"
    assert rows(listing, "train") == [("1_002_1_01.png", 2, 1), ("1_002_2_06.png", 2, 2), ("2_001_1_02.png", 844, 1)]
    assert rows(listing, "query") == [("1_001_1_01.png", 1, 1), ("1_001_2_06.png", 1, 2)]
    assert rows(listing, "gallery") == [("1_001_1_03.png", 1, 1)]


def test_images_in_a_folder(root, cache):
    write_cuhk03_images(root)
    assert_is_the_protocol(find_layout(root, cache))
    assert not cache.exists()


@pytest.mark.parametrize("place", ["cuhk-03.mat", "cuhk03_release/cuhk-03.mat"])
def test_images_in_the_matlab_file_are_taken_out_once(root, cache, place, monkeypatch):
    write_cuhk03_mat(root / place)
    listing = find_layout(root, cache)
    assert_is_the_protocol(listing)
    for crops in listing.splits.values():
        for crop in crops:
            pixels = np.asarray(Image.open(crop.path))
            assert pixels.shape == (16, 8, 3)
            assert (pixels[:2] == 255).all()
            np.testing.assert_array_equal(pixels[2:], np.broadcast_to(np.uint8(cuhk03_color(crop.name)), (14, 8, 3)))
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(cuhk03, "_pictures", None)
    assert find_layout(root, cache) == listing
    assert len(load_dataset(root, cache, SIZE).train) == 3


def test_in_markets_folders(tmp_path, cache):
    write_cuhk03_cropped(tmp_path / "cuhk03-np")
    for root in (tmp_path / "cuhk03-np", tmp_path / "cuhk03-np" / "labeled"):
        listing = find_layout(root, cache)
        assert listing.layout == "cuhk03-labelled"
        assert rows(listing, "train") == [("0001_c1_1.png", 1, 1), ("0003_c2_21.png", 3, 2)]


def test_which_kind_is_asked_where_both_are_there(tmp_path, cache):
    for kind in ("labeled", "detected"):
        write_cuhk03_cropped(tmp_path, kind)
    with pytest.raises(DataError, match="`data.layout` cuhk03-labelled or cuhk03-detected"):
        find_layout(tmp_path, cache)
    assert find_layout(tmp_path, cache, "cuhk03-detected").layout == "cuhk03-detected"


def test_what_is_missing_is_named(root, cache):
    with pytest.raises(DataError, match=r"labeled.mat is there, but neither images_labeled nor cuhk-03.mat"):
        find_layout(root, cache)
    write_cuhk03_images(root)
    (root / "images_labeled" / "1_002_1_01.png").unlink()
    with pytest.raises(DataError, match="1 of the images in cuhk03_new_protocol_config_labeled.mat .* 1_002_1_01.png"):
        find_layout(root, cache)


def test_damaged_files_are_named(root, cache):
    (root / "cuhk-03.mat").write_bytes(b"MATLAB 5.0, not 7.3")
    with pytest.raises(DataError, match=r"cuhk-03.mat: is not CUHK03's cuhk-03.mat \(Matlab 7.3\) or is damaged"):
        find_layout(root, cache)
    assert not list(cache.iterdir())
    config = root / "cuhk03_new_protocol_config_labeled.mat"
    config.write_bytes(config.read_bytes()[:300])
    write_cuhk03_images(root)
    with pytest.raises(DataError, match="config_labeled.mat: is not the protocol's file with filelist"):
        find_layout(root, cache)
