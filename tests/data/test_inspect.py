"""What `check` finds wrong with a data set, and that it finds nothing wrong with a good one."""

import shutil

import numpy as np
import pytest
from PIL import Image
from small_data import write, write_manifest, write_market, write_truncated

from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.index import counts
from svdnet_jax.data.inspect import NO_CAMERAS, inspect, sheet

MINE = "path,identity,camera,split\na.jpg,1,1,train\nb.jpg,2,1,train\nc.jpg,3,1,query\nd.jpg,3,2,gallery\n"


@pytest.fixture
def market(tmp_path):
    return write_market(tmp_path / "Market-1501-v15.09.15")


def look(root):
    return inspect(find_layout(root, root / "no cache is needed"))


def found(root, but="not the published"):
    """Level, text and files of the findings, without that few images are not the whole of Market-1501."""
    return [finding for finding in look(root).findings if not finding.text.startswith(but)]


def test_a_good_data_set_has_no_findings(tmp_path, market):
    assert look(write_manifest(tmp_path / "mine", MINE)).findings == ()
    assert found(market) == []


def test_counts_are_compared_with_those_published(market):
    report = look(market)
    assert (report.name, report.layout) == ("Market-1501-v15.09.15", "market1501")
    rows = {row.what: (row.found, row.expected) for row in report.table}
    assert rows["train images"] == (4, 12936)
    assert rows["gallery images without junk"] == (2, 15913)
    [finding] = report.findings
    assert finding.level == "error"
    assert "4 train images for 12936, 2 train identities for 751" in finding.text


def test_right_counts_are_no_finding(market, monkeypatch):
    listing = find_layout(market, market)
    import dataclasses

    assert inspect(dataclasses.replace(listing, published=counts(listing))).findings == ()


def test_every_image_is_looked_at(market):
    seen = []
    inspect(find_layout(market, market), seen.append)
    assert seen == [1] * 8


def test_names_that_do_not_fit(market):
    write(market / "query" / "holiday.jpg", (9, 99, 9))
    [finding] = found(market)
    assert finding[::2] == ("error", ("query/holiday.jpg",))
    assert "1 image names are not of the form 0002_c1s1_000451_03.jpg" in finding.text


def test_images_that_cannot_be_decoded(market):
    header = market / "query" / "0001_c1s1_000001_00.jpg"
    header.write_bytes(b"no image")
    half = market / "bounding_box_train" / "0002_c1s1_000001_01.jpg"
    write_truncated(half)
    (market / "bounding_box_test" / "0001_c2s1_000009_01.jpg").write_bytes(b"")
    [finding] = found(market)
    assert finding.level == "error"
    assert finding.files == (f"train/{half.name}", f"query/{header.name}", "gallery/0001_c2s1_000009_01.jpg")
    assert finding.text.startswith(f"3 images cannot be used, first {half.name}: cannot be decoded (image file is")


def test_errors_come_before_warnings(market):
    write(market / "query" / "0003_c1s1_000001_00.jpg", (3, 3, 200))
    write_truncated(market / "bounding_box_train" / "0002_c1s1_000001_01.jpg")
    assert [finding.level for finding in found(market)] == ["error", "warning"]


def test_a_file_that_is_gone(market):
    listing = find_layout(market, market)
    listing.splits["query"][0].path.unlink()
    findings = inspect(listing).findings
    assert "0001_c1s1_000001_00.jpg: cannot be read (No such file or directory)" in findings[1].text


def test_sizes(market):
    for n in range(12):
        write(market / "bounding_box_train" / f"0009_c1s1_0001{n:02d}_01.jpg", (n * 20, 200, 7))
    assert look(market).sizes == {"16x8": 20}
    assert found(market) == []
    write(market / "bounding_box_train" / "0009_c1s1_000001_01.jpg", (9, 9, 9), size=(10, 16))
    write(market / "bounding_box_train" / "0009_c1s1_000002_01.jpg", (8, 9, 9), size=(7, 30))
    assert list(look(market).sizes.items())[0] == ("16x8", 20)
    unusual, tiny = found(market)
    assert unusual.level == tiny.level == "warning"
    assert unusual.text == "2 images are not 16x8 (height x width) as all others are"
    assert unusual.files == ("train/0009_c1s1_000001_01.jpg", "train/0009_c1s1_000002_01.jpg")
    assert tiny.files == ("train/0009_c1s1_000002_01.jpg",)


def test_many_sizes_are_usual_where_no_one_size_is(tmp_path):
    root = write_manifest(tmp_path / "mine", MINE)
    write(root / "a.jpg", size=(30, 70))
    assert found(root) == []


def test_people_in_training_and_test(market):
    shutil.copy(market / "query" / "0001_c1s1_000001_00.jpg", market / "query" / "0007_c1s1_000001_00.jpg")
    write(market / "query" / "0007_c1s1_000001_00.jpg", (3, 3, 200))
    both, unanswered = found(market)
    assert both[::2] == ("error", ("query/0007_c1s1_000001_00.jpg",))
    assert "1 test images show identities that are in training too" in both.text
    assert unanswered[::2] == ("warning", ("query/0007_c1s1_000001_00.jpg",))


def test_training_images_of_nobody(market):
    write(market / "bounding_box_train" / "0000_c1s1_000001_01.jpg", (3, 3, 200))
    [finding] = found(market)
    assert finding == ("error", "1 training images have identity -1 or 0", ("train/0000_c1s1_000001_01.jpg",))


def test_queries_without_a_right_answer(market):
    write(market / "query" / "0003_c1s1_000001_00.jpg", (3, 3, 200))
    [absent] = found(market)
    assert absent == ("warning", "1 of 2 queries show nobody who is in the gallery", ("query/0003_c1s1_000001_00.jpg",))
    write(market / "bounding_box_test" / "0003_c1s1_000002_00.jpg", (3, 3, 100))
    [own] = found(market)
    assert own.text.startswith("1 of 2 queries have right answers from their own camera only")
    (market / "query" / "0001_c1s1_000001_00.jpg").unlink()
    [own] = found(market)
    assert own.level == "error"  # not one query counts
    assert "`eval.cross_camera` False" in own.text


BARE = "path,identity,split\na.jpg,1,train\nb.jpg,2,train\nc.jpg,3,{}\nd.jpg,3,{}\n"


def test_data_without_cameras_are_no_mistake(tmp_path):
    report = look(write_manifest(tmp_path / "mine", BARE.format("query", "gallery")))
    assert (report.findings, report.notes) == ((), (NO_CAMERAS,))
    assert ("cameras", 0) in [row[:2] for row in report.table]


def test_queries_of_nobody_in_the_gallery_are_found_without_cameras_too(tmp_path):
    [finding] = found(write_manifest(tmp_path / "mine", BARE.format("query", "gallery").replace("d.jpg,3", "d.jpg,4")))
    assert (finding.level, finding.text) == ("error", "1 of 1 queries show nobody who is in the gallery")


def test_an_image_is_no_camera_where_query_set_and_gallery_are_one(tmp_path):
    report = look(write_manifest(tmp_path / "good", BARE.format(*["query+gallery"] * 2)))
    assert (report.findings, len(report.notes)) == ((), 1)
    assert "leave-self-out" in report.notes[0]
    assert ("cameras", 0) in [row[:2] for row in report.table]
    alone = BARE.format(*["query+gallery"] * 2) + "e.jpg,5,query+gallery\n"
    [finding] = found(write_manifest(tmp_path / "alone", alone, [f"{letter}.jpg" for letter in "abcde"]))
    assert finding == ("warning", "1 of 3 queries have no other image of their identity", ("query/e.jpg",))


def test_as_many_cameras_as_images_are_cameras(tmp_path):
    text = "path,identity,camera,split\na.jpg,1,1,train\nb.jpg,2,2,train\nc.jpg,3,3,query\nd.jpg,3,4,gallery\n"
    assert ("cameras", 4) in [row[:2] for row in look(write_manifest(tmp_path, text)).table]


def test_empty_splits(tmp_path):
    root = write_manifest(tmp_path / "mine", "path,identity,split\na.jpg,1,train\nb.jpg,2,train\n")
    assert [finding.text for finding in found(root)] == [
        "the query split has no images",
        "the gallery split has no images",
    ]


def test_copies(tmp_path):
    text = "path,identity,camera,split\na.jpg,1,1,train\nb.jpg,1,1,train\nc.jpg,3,1,query\nd.jpg,3,2,gallery\n"
    root = write_manifest(tmp_path / "mine", text)
    shutil.copy(root / "a.jpg", root / "b.jpg")
    [copies] = found(root)
    assert copies == (
        "warning",
        "1 images are copies of another of the same identity, byte for byte",
        ("train/a.jpg = train/b.jpg",),
    )
    shutil.copy(root / "a.jpg", root / "d.jpg")
    [copies] = found(root)
    assert copies[1:] == ("2 images show two identities, byte for byte", ("train/a.jpg = train/b.jpg = gallery/d.jpg",))


def test_the_sheet_shows_a_row_for_each_identity(market):
    picture = sheet(find_layout(market, market), people=6, columns=3)
    assert picture.shape == (2 * 130 - 2, 3 * 66 - 2, 3)
    for (row, column), color in {(0, 0): (40, 60, 0), (0, 1): (40, 120, 0), (1, 1): (140, 120, 0)}.items():
        np.testing.assert_allclose(picture[row * 130 + 60, column * 66 + 30], color, atol=4)  # JPEG
    assert (picture[60, 2 * 66 + 30] == 255).all()


def test_the_sheet_leaves_out_what_cannot_be_decoded(market):
    for path in (market / "bounding_box_train").glob("0002*"):
        path.write_bytes(b"no image")
    assert sheet(find_layout(market, market)).shape[0] == 128
    for path in (market / "bounding_box_train").glob("0007*"):
        write_truncated(path)
    assert sheet(find_layout(market, market)) is None


def test_what_is_not_read_is_a_finding(market, tmp_path):
    folder = market / "query"
    write(folder / "0003_c1s1_000001_00.webp", (9, 99, 9))
    (folder / "0004_c1s1_000001_00.jpg").symlink_to(tmp_path / "nowhere.jpg")
    links, webp = found(market)
    assert links == ("error", "not read: 1 links that lead nowhere", ("query/0004_c1s1_000001_00.jpg",))
    assert webp == ("warning", "not read: 1 .webp", ("query/0003_c1s1_000001_00.webp",))


def test_what_a_list_leaves_out_is_said_and_no_finding(tmp_path):
    root = write_manifest(tmp_path / "mine", MINE)
    write(root / "e.png", (9, 9, 9))
    report = look(root)
    assert report.findings == ()
    assert report.notes == ("not read: 1 images that the list does not name (first: e.png)",)


def test_how_images_were_changed_is_counted(tmp_path):
    root = write_manifest(tmp_path / "mine", MINE)
    exif = Image.Exif()
    exif[274] = 8
    for name, shade in (("a.jpg", 9), ("c.jpg", 99)):
        Image.new("RGB", (16, 8), (shade, 200, 9)).save(root / name, exif=exif)
    Image.fromarray(np.full((16, 8), 30000, np.uint16)).save(root / "d.jpg", "PNG")
    report = look(root)
    assert report.sizes == {"16x8": 4}
    assert report.findings == ()
    assert report.notes == (
        "2 images were turned upright as their EXIF orientation says",
        "1 images were brought from gray of 16 bits to 8",
    )


def test_images_that_show_nothing(market):
    write(market / "query" / "0001_c4s1_000001_00.png", (0, 0, 0))
    [black] = found(market)
    assert black == ("warning", "1 images are black all over", ("query/0001_c4s1_000001_00.png",))
