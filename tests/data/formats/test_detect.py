"""Which data set lies in a folder, and which images it has: Market-1501, DukeMTMC-reID and MSMT17."""

import dataclasses
import os
import shutil
import typing

import pytest
from small_data import SIZE, copy, shelved_market, write, write_duke, write_manifest, write_msmt17

from svdnet_jax.config import layouts
from svdnet_jax.data.formats.detect import LAYOUTS, find_layout
from svdnet_jax.data.formats.known import DUKE, MARKET
from svdnet_jax.data.index import counts, refuse_strange, stamp
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import DataError

market = pytest.fixture(shelved_market)


def find(root, layout="auto"):
    return find_layout(root, root / "no cache is needed", layout)


def rows(listing, split):
    return [(crop.name, crop.pid, crop.camera) for crop in listing.splits[split]]


def test_every_layout_can_be_asked_for():
    assert set(typing.get_args(layouts.Layout)) == {"auto", *LAYOUTS}


def test_market_is_listed_by_its_file_names(market):
    listing = find(market)
    assert (listing.name, listing.layout, listing.root) == (market.name, "market1501", market)
    assert rows(listing, "train") == [
        ("0002_c1s1_000001_01.jpg", 2, 1),
        ("0002_c2s1_000001_01.jpg", 2, 2),
        ("0007_c1s1_000001_01.jpg", 7, 1),
        ("0007_c2s1_000001_01.jpg", 7, 2),
    ]
    assert rows(listing, "gallery") == [
        ("-1_c3s2_000010_02.jpg.jpg", -1, 3),
        ("0000_c3s2_000009_01.jpg", 0, 3),
        ("0001_c2s1_000009_01.jpg", 1, 2),
    ]
    assert all(crop.path.is_file() for crops in listing.splits.values() for crop in crops)
    assert not listing.strange


def test_parent_folder_will_do(market):
    assert find(market.parent) == find(market)


def test_duke_is_told_from_market_by_its_file_names(tmp_path):
    listing = find(write_duke(tmp_path / "DukeMTMC-reID"))
    assert listing.layout == "dukemtmc"
    assert rows(listing, "train") == [("0001_c2_f0046182.jpg", 1, 2), ("0005_c8_f0046302.jpg", 5, 8)]
    assert rows(listing, "gallery") == [("0007_c5_f0056182.jpg", 7, 5)]


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_is_listed_by_its_list_files(tmp_path, folders):
    listing = find(write_msmt17(tmp_path / "MSMT17", folders))
    assert listing.layout == "msmt17"
    # Validation is part of training, the camera is the third field, no identity is 0, and test's are not train's.
    assert rows(listing, "train") == [
        ("0000/0000_000_01_0303morning_0015_0.jpg", 1, 1),
        ("0001/0001_000_05_0303noon_0020_0.jpg", 2, 5),
        ("0001/0001_001_14_0303noon_0020_1_ex.jpg", 2, 14),
    ]
    assert [row[1:] for row in rows(listing, "query")] == [(3, 2), (4, 2)]
    assert [row[1:] for row in rows(listing, "gallery")] == [(3, 15), (4, 3)]
    assert all(crop.path.is_file() for crops in listing.splits.values() for crop in crops)


def test_msmt17_lines_of_another_form_are_named(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    with (root / "list_query.txt").open("a") as lines:
        lines.write("\nholiday.jpg 3\n0000/0000_000_02_x.jpg\n")
    with pytest.raises(
        DataError, match=r"list_query.txt: line 4: found 'holiday.jpg 3'; line 5: found '0000/.*expected"
    ):
        find(root)


def test_a_list_in_another_encoding_is_named(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    with (root / "list_val.txt").open("ab") as lines:
        lines.write("0001/0001_002_14_caf\u00e9_0020_1.jpg 1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"MSMT17/list_val.txt: is no list in UTF-8 .*0xe9.*; expected lines such as"):
        find(root)


def test_a_missing_image_of_a_list_is_named(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    (root / "test/0000/0000_001_15_0113morning_0015_1.jpg").unlink()
    with pytest.raises(DataError, match=r"0000_001_15_0113morning_0015_1.jpg: is listed in the gallery split but"):
        load_dataset(root, tmp_path / "cache", SIZE)


def test_an_image_listed_twice_is_named(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    shutil.copy(root / "list_train.txt", root / "list_val.txt")
    with pytest.raises(DataError, match="2 images are listed twice in the train split, the first is 0000/0000_000_01"):
        find(root)


def test_what_was_looked_for_and_what_is_there_is_said(market, tmp_path):
    shutil.rmtree(market / "query")
    with pytest.raises(DataError) as caught:
        find(market)
    said = str(caught.value)
    assert all(f"{name}: {layout.sign}" in said for name, layout in LAYOUTS.items())
    assert "(query not there)" in said
    assert "The folder holds: bounding_box_test, bounding_box_train" in said
    with pytest.raises(DataError, match="no such folder"):
        find(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(DataError, match="is a file; expected a CSV manifest"):
        find(tmp_path / "notes.txt")


def test_a_manifest_may_have_any_name_where_the_layout_is_said(tmp_path):
    text = "path,identity,split\na.jpg,1,train\n"
    file = write_manifest(tmp_path / "mine", text, name="people.txt") / "people.txt"
    listing = find(file, "manifest")
    assert (listing.name, rows(listing, "train")) == ("people", [("a.jpg", 1, 1)])
    for layout in ("auto", "market1501"):
        with pytest.raises(DataError, match="is a file; expected a CSV manifest"):
            find(file, layout)
    file = file.rename(file.with_suffix(".csv"))
    assert find(file) == find(file, "manifest")


def test_a_layout_asked_for_is_the_only_one_looked_for(market):
    assert find(market, "market1501").layout == "market1501"
    with pytest.raises(DataError) as caught:
        find(market, "dukemtmc")
    assert "no image there is named like 0001_c2_f0046182.jpg, but like" in str(caught.value)
    assert "msmt17" not in str(caught.value)


def test_several_data_sets_in_one_folder_are_named(market):
    copy(market, "copy")
    with pytest.raises(
        DataError,
        match=r"several data sets: market1501 in \S*Market\S*, market1501 in \S*/copy; give the folder of one of them$",
    ):
        find(market.parent)
    write_manifest(market, "path,identity,split\na.jpg,1,train\n")
    with pytest.raises(DataError, match="`data.layout` market1501 or manifest"):
        find(market)
    assert find(market, "manifest").layout == "manifest"


def test_foreign_names_are_kept_apart_and_refused(market, tmp_path):
    write(market / "query" / "holiday.jpg")
    listing = find(market)
    assert [path.name for path in listing.strange] == ["holiday.jpg"]
    with pytest.raises(
        DataError, match=r"1 of 9 image names .* 0002_c1s1_000451_03.jpg, the first is query/holiday.jpg"
    ):
        refuse_strange(listing)
    with pytest.raises(DataError, match="query/holiday.jpg"):
        load_dataset(market, tmp_path / "cache", SIZE)


@pytest.mark.parametrize(
    ("naming", "name", "fits"),
    [
        (MARKET, "0002_c1s1_000451_03.jpg", True),
        (MARKET, "-1_c6s3_094992_04.jpg.jpg", True),
        (MARKET, "0002_c1s1_000451_03.JPG", True),
        (MARKET, "0002_c1s1_000451.jpg", False),
        (MARKET, "-2_c1s1_000451_03.jpg", False),
        (DUKE, "0001_c2_f0046182.jpg", True),
        (DUKE, "0002_c1s1_000451_03.jpg", False),
    ],
)
def test_names(naming, name, fits):
    assert bool(naming.pattern.match(name)) is fits


def test_counts_leave_out_junk_and_distractors(market):
    assert counts(find(market)) == {
        "train images": 4,
        "train identities": 2,
        "query images": 1,
        "query identities": 1,
        "gallery images": 3,
        "gallery identities": 1,
        "gallery images without junk": 2,
        "cameras": 3,
    }
    assert counts(find(market)).keys() == LAYOUTS["market1501"].published.keys()


# method.md, Protocols; Wei et al. 2018 for MSMT17.
@pytest.mark.parametrize(
    ("layout", "images", "identities"),
    [
        ("market1501", (12936, 3368, 19732), (751, 750)),
        ("dukemtmc", (16522, 2228, 17661), (702, 702)),
        ("msmt17", (32621, 11659, 82161), (1041, 3060)),
        ("cuhk03-labelled", (7368, 1400, 5328), (767, 700)),
        ("cuhk03-detected", (7365, 1400, 5332), (767, 700)),
    ],
)
def test_published_counts(layout, images, identities):
    published = LAYOUTS[layout].published
    assert tuple(published[f"{split} images"] for split in ("train", "query", "gallery")) == images
    assert tuple(published[f"{split} identities"] for split in ("train", "query")) == identities


def test_the_stamp_sees_every_change_but_not_the_place(market):
    listing = find(market)
    moved = market.rename(market.parent / "elsewhere")
    assert stamp(find(moved)) == stamp(listing_at(listing, moved))
    before = stamp(find(moved))
    crop = find(moved).splits["query"][0]
    os.utime(crop.path, ns=(1, 1))
    touched = stamp(find(moved))
    crop.path.rename(crop.path.with_name("0001_c2s1_000001_00.jpg"))
    renamed = stamp(find(moved))
    assert len({before, touched, renamed}) == 3


def listing_at(listing, root):
    splits = {
        split: tuple(crop._replace(path=root / crop.path.relative_to(listing.root)) for crop in crops)
        for split, crops in listing.splits.items()
    }
    return dataclasses.replace(listing, root=root, splits=splits)
