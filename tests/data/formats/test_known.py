"""Layouts beside Market-1501's, MSMT17's and CUHK03's: each as a drawn miniature, and its published counts."""

import pytest
from small_data import SIZE, write, write_cuhk03_cropped, write_duke, write_market

from svdnet_jax.data.formats.detect import LAYOUTS, find_layout
from svdnet_jax.data.index import counts
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.data.types import check_identities
from svdnet_jax.errors import DataError


def find(root, layout="auto"):
    return find_layout(root, root / "no cache is needed", layout)


def rows(listing, split):
    return [(crop.name, crop.pid, crop.camera) for crop in listing.splits[split]]


def draw(root, *paths):
    for n, path in enumerate(paths):
        write(root / path, (n * 30, 99, 9))
    return root


def write_veri(root):
    return draw(
        root,
        "image_train/0001_c001_00016450_0.jpg",
        "image_train/0003_c020_00016455_1.jpg",
        "image_query/0002_c002_00030600_0.jpg",
        "image_test/0002_c002_00030600_0.jpg",
        "image_test/0002_c003_00084280_0.jpg",
    )


def write_msmt17_folders(root):
    return draw(
        root,
        "bounding_box_train/0000_c1_0000.jpg",
        "bounding_box_train/0001_c15_0015.jpg",
        "query/0000_c1_0000.jpg",
        "bounding_box_test/0000_c11_0001.jpg",
        "bounding_box_test/0001_c2_0000.jpg",
    )


def write_last(root):
    return draw(
        root,
        "train/000000/000000_000007_s_000.jpg",
        "train/000004/000004_000009_a_001.jpg",
        "val/query/000009_000001_s_000.jpg",
        "test/query/000000_000011_s_000.jpg",
        "test/gallery/000000/000000_000013_s_000.jpg",
        "test/gallery/000001/000001_000013_s_000.jpg",
    )


def test_veri776(tmp_path):
    listing = find(write_veri(tmp_path / "VeRi"))
    assert listing.layout == "veri776"
    assert rows(listing, "train") == [("0001_c001_00016450_0.jpg", 1, 1), ("0003_c020_00016455_1.jpg", 3, 20)]
    assert rows(listing, "query") == [("0002_c002_00030600_0.jpg", 2, 2)]
    assert [row[1:] for row in rows(listing, "gallery")] == [(2, 2), (2, 3)]


def test_msmt17_in_markets_folders_numbers_people_from_zero_twice(tmp_path):
    root = write_msmt17_folders(tmp_path / "MSMT17_V1")
    listing = find(root)
    assert listing.layout == "msmt17-folders"
    assert [row[1:] for row in rows(listing, "train")] == [(1, 1), (2, 15)]
    assert [row[1:] for row in rows(listing, "query")] == [(3, 1)]  # not the training's first, and no distractor
    assert [row[1:] for row in rows(listing, "gallery")] == [(3, 11), (4, 2)]
    check_identities(load_dataset(root, tmp_path / "cache", SIZE))


def test_last_has_a_folder_for_each_identity_and_no_cameras(tmp_path):
    root = write_last(tmp_path / "last")
    listing = find(root)
    assert listing.layout == "last"
    assert rows(listing, "train") == [
        ("000000/000000_000007_s_000.jpg", 1, 1),
        ("000004/000004_000009_a_001.jpg", 5, 1),
    ]
    assert rows(listing, "query") == [("000000_000011_s_000.jpg", 6, 1)]
    assert [row[1] for row in rows(listing, "gallery")] == [6, 7]
    assert not listing.unread
    write(root / "train/stray.jpg")
    write(root / "train/000000/sketch.webp")
    assert {kind: len(paths) for kind, paths in find(root).unread.items()} == {
        ".webp": 1,
        "images beside the folders of identities": 1,
    }
    assert len(load_dataset(root, tmp_path / "cache", SIZE).train) == 2


def test_distractors_of_market_are_nobody_and_asked_for_by_name(tmp_path):
    root = write_market(tmp_path / "Market")
    draw(root, "images/0000_c1s1_00000077_00.jpg", "images/0001_c2s1_000009_01.jpg", "images/-1_c1s1_000001_00.jpg")
    with pytest.raises(DataError, match="`data.layout` market1501 or market1501-500k"):
        find(root)
    assert len(find(root, "market1501").splits["gallery"]) == 3
    listing = find(root, "market1501-500k")
    assert rows(listing, "gallery")[-3:] == [
        ("images/-1_c1s1_000001_00.jpg", -1, 1),
        ("images/0000_c1s1_00000077_00.jpg", 0, 1),
        ("images/0001_c2s1_000009_01.jpg", 0, 2),  # whatever number is in its name
    ]
    with pytest.raises(DataError, match="images not there"):
        find(write_market(tmp_path / "plain"), "market1501-500k")
    draw(tmp_path / "other", "images/holiday.jpg")
    write_market(tmp_path / "other")
    assert find(tmp_path / "other").layout == "market1501"
    with pytest.raises(DataError, match="no image in images is named like 0002_c1s1_000451_03.jpg, but like holiday"):
        find(tmp_path / "other", "market1501-500k")


def test_occluded_duke_is_told_from_duke_by_its_folder(tmp_path):
    assert find(write_duke(tmp_path / "a" / "DukeMTMC-reID")).layout == "dukemtmc"
    root = write_duke(tmp_path / "b" / "Occluded_Duke")
    assert find(root).layout == find(root.parent).layout == "occluded-duke"
    assert find(root, "dukemtmc").layout == "dukemtmc"
    assert find(write_duke(tmp_path / "c" / "mine"), "occluded-duke").layout == "occluded-duke"


@pytest.mark.parametrize("name", ["cuhk03_np_detected", "CUHK03-NP-detected"])
def test_cuhk03_by_the_names_of_its_folders(tmp_path, name):
    write_cuhk03_cropped(tmp_path / "drawn", "detected")
    (tmp_path / "shelf").mkdir()
    root = (tmp_path / "drawn" / "detected").rename(tmp_path / "shelf" / name)
    assert find(root).layout == find(root.parent).layout == "cuhk03-detected"


def write_vehicleid(root, lists=(800, 2400)):
    draw(root, *(f"image/000000{n}.jpg" for n in range(1, 8)))
    (root / "train_test_split").mkdir()
    (root / "train_test_split" / "train_list.txt").write_text("0000001 11\n0000002 11\n0000003 12\n")
    for vehicles in lists:
        (root / "train_test_split" / f"test_list_{vehicles}.txt").write_text("0000004 3\n0000005 3\n0000006 4\n")
    return root


def test_vehicleid_has_one_set_of_test_images_for_each_list(tmp_path):
    root = write_vehicleid(tmp_path / "VehicleID_V1.0")
    with pytest.raises(DataError, match="`data.layout` vehicleid-800 or vehicleid-2400"):
        find(root)
    listing = find(root, "vehicleid-800")
    assert [row[:2] for row in rows(listing, "train")] == [
        ("0000001.jpg", 11),
        ("0000002.jpg", 11),
        ("0000003.jpg", 12),
    ]
    assert rows(listing, "query") == rows(listing, "gallery")
    assert rows(listing, "query") == [("0000004.jpg", 3, 4), ("0000005.jpg", 3, 5), ("0000006.jpg", 4, 6)]
    assert "2 of 3 queries have another image of their identity" in listing.notes[0]
    with pytest.raises(DataError, match=r"train_test_split/test_list_1600.txt not there"):
        find(root, "vehicleid-1600")


# The data sets' papers and read-me files; fast-reid and torchreid say the same.
@pytest.mark.parametrize(
    ("layout", "images", "identities", "cameras"),
    [
        ("veri776", (37778, 1678, 11579), (576, 200, 200), 20),
        ("msmt17-folders", (32621, 11659, 82161), (1041, 3060, 3060), 15),
        ("occluded-duke", (15618, 2210, 17661), (702, 519, 1110), 8),
        ("last", (71248, 10176, 125353), (5000, None, None), None),
        ("vehicleid-800", (113346, 7332, 7332), (13164, 800, 800), None),
        ("vehicleid-1600", (113346, 12995, 12995), (13164, 1600, 1600), None),
        ("vehicleid-2400", (113346, 20038, 20038), (13164, 2400, 2400), None),
        ("market1501-500k", (12936, 3368, None), (751, 750, 750), 6),
    ],
)
def test_published_counts(tmp_path, layout, images, identities, cameras):
    published = LAYOUTS[layout].published
    assert tuple(published.get(f"{split} images") for split in ("train", "query", "gallery")) == images
    assert tuple(published.get(f"{split} identities") for split in ("train", "query", "gallery")) == identities
    assert published.get("cameras") == cameras
    assert published.keys() <= counts(find(write_veri(tmp_path))).keys()
