"""Market-1501's layout as real folders have it, read through TFDS without TensorFlow."""

import dataclasses
import io
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from svdnet_jax.config import Eval, Run
from svdnet_jax.data.market1501 import FOLDERS, find_root, load, parse_folder
from svdnet_jax.data.splits import DataError, Dataset, Split, check_identities, fingerprint
from svdnet_jax.run import count_valid

SIZE = (16, 8)


def write(path, colour=(200, 30, 40), size=(8, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG", quality=95)


@pytest.fixture
def market(tmp_path):
    root = tmp_path / "Market-1501-v15.09.15"
    for pid in (2, 7):
        for camera in (1, 2):
            write(
                root / "bounding_box_train" / f"{pid:04d}_c{camera}s1_000001_01.jpg",
                (pid * 20, camera * 60, 0),
            )
    write(root / "query" / "0001_c1s1_000001_00.jpg")
    write(root / "bounding_box_test" / "0001_c2s1_000009_01.jpg")
    write(root / "bounding_box_test" / "0000_c3s2_000009_01.jpg")
    write(root / "bounding_box_test" / "-1_c3s2_000010_02.jpg.jpg")
    for folder in FOLDERS.values():
        (root / folder / "Thumbs.db").write_bytes(b"Windows was here")
        (root / folder / "._0001_c1s1_000001_00.jpg").write_bytes(b"macOS was here")
        (root / folder / "0001_c1s1_000001_77.jpg").mkdir()
    return root


def test_real_folders_are_read(market, tmp_path):
    dataset = load(market, tmp_path / "cache", SIZE)
    assert dataset.name == "Market-1501-v15.09.15"
    assert dataset.train.pids.tolist() == [2, 2, 7, 7]
    assert dataset.train.cameras.tolist() == [1, 2, 1, 2]
    assert dataset.gallery.pids.tolist() == [-1, 0, 1]
    assert dataset.gallery.names[0] == "-1_c3s2_000010_02.jpg.jpg"
    assert dataset.train.images.shape == (4, 16, 8, 3)
    assert dataset.train.images.dtype == np.uint8
    # Each row is the image of its own name: colours were made from pid and camera; JPEG shifts them a little.
    for image, pid, camera in zip(dataset.train.images, dataset.train.pids, dataset.train.cameras, strict=True):
        np.testing.assert_allclose(image[8, 4], (pid * 20, camera * 60, 0), atol=4)


def test_images_are_taken_as_they_are(market, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (16, 8, 3), np.uint8)
    path = market / "query" / "0001_c1s1_000001_00.jpg"
    Image.fromarray(noise).save(path, "JPEG", quality=70)
    loaded = load(market, tmp_path / "cache", SIZE).query.images[0]
    np.testing.assert_array_equal(loaded, np.asarray(Image.open(io.BytesIO(path.read_bytes()))))


def test_parent_folder_will_do(market):
    assert find_root(market) == market
    assert find_root(market.parent) == market


def test_changed_folders_are_read_anew_and_unchanged_ones_are_not(market, tmp_path):
    cache = tmp_path / "cache"
    load(market, cache, SIZE)
    load(market, cache, SIZE)
    assert len(list(cache.iterdir())) == 1
    write(market / "bounding_box_train" / "0009_c1s1_000001_01.jpg")
    assert load(market, cache, SIZE).train.pids.tolist() == [2, 2, 7, 7, 9]


def test_tensorflow_is_never_imported(market, tmp_path):
    load(market, tmp_path / "cache", SIZE)
    assert "tensorflow" not in sys.modules


def test_images_of_several_sizes_are_brought_to_one(market, tmp_path):
    write(market / "query" / "0001_c3s1_000001_00.jpg", size=(40, 90))
    assert load(market, tmp_path / "cache", SIZE).query.images.shape == (2, 16, 8, 3)


def test_missing_folders_are_named(market, tmp_path):
    shutil.rmtree(market / "query")
    with pytest.raises(DataError, match=r"expected the folders .*query.*found none; .*Market-1501"):
        load(market.parent, tmp_path / "cache", SIZE)
    with pytest.raises(DataError, match="no such folder"):
        load(tmp_path / "nowhere", tmp_path / "cache", SIZE)


def test_several_data_sets_in_one_folder_are_named(market):
    shutil.copytree(market, market.parent / "copy")
    with pytest.raises(DataError, match="several data sets: Market-1501-v15.09.15, copy"):
        find_root(market.parent)


def test_foreign_names_and_empty_folders_are_refused(market):
    write(market / "query" / "holiday.jpg")
    with pytest.raises(DataError, match=r"1 of 2 image names .* the first is holiday.jpg"):
        parse_folder(market / "query")
    (market / "empty").mkdir()
    with pytest.raises(DataError, match="no .jpg files"):
        parse_folder(market / "empty")


def test_undecodable_images_are_named(market, tmp_path):
    (market / "query" / "0001_c1s1_000001_00.jpg").write_bytes(b"\xff\xd8 this is no JPEG")
    with pytest.raises(DataError, match="0001_c1s1_000001_00.jpg: cannot be decoded"):
        load(market, tmp_path / "cache", SIZE)


def split(*rows):
    pids, cameras = np.array(rows, np.int64).reshape(-1, 2).T
    return Split(np.zeros((len(rows), 4, 2, 3), np.uint8), pids, cameras, np.array([str(i) for i in pids]))


def test_identities_and_protocol_are_checked_before_training():
    fine = Dataset("d", split((1, 1), (2, 1)), split((3, 1)), split((3, 2), (0, 1), (-1, 1)))
    check_identities(fine)
    assert count_valid(fine, Run()) == 1
    same_camera = Dataset("d", fine.train, split((3, 2), (-1, 2)), fine.gallery)
    assert count_valid(same_camera, Run(eval=Eval(cross_camera=False))) == 1
    with pytest.raises(DataError, match="1 have some but all from their own camera"):
        count_valid(same_camera, Run())
    with pytest.raises(DataError, match="1 identities are in both training and test, the first is 2"):
        check_identities(Dataset("d", fine.train, split((2, 1)), split((2, 2))))
    with pytest.raises(DataError, match="1 training images have pid -1 or 0"):
        check_identities(Dataset("d", split((0, 1), (2, 1)), fine.query, fine.gallery))
    with pytest.raises(DataError, match="two identities at least"):
        check_identities(Dataset("d", split((2, 1)), fine.query, fine.gallery))
    with pytest.raises(DataError, match="query split has no images"):
        check_identities(Dataset("d", fine.train, split(), fine.gallery))


def test_the_fingerprint_sees_every_part_of_a_data_set():
    one = Dataset("d", split((1, 1), (2, 1)), split((3, 1)), split((3, 2)))
    assert fingerprint(one) == fingerprint(dataclasses.replace(one, name="another name"))
    brighter = dataclasses.replace(one.query, images=one.query.images + 1)
    others = [
        dataclasses.replace(one, query=brighter),
        dataclasses.replace(one, gallery=split((3, 1))),
        dataclasses.replace(one, gallery=split((4, 2))),
        dataclasses.replace(one, train=one.query, query=one.train),
    ]
    assert len({fingerprint(each) for each in (one, *others)}) == 5
