"""What `svdnet embed` and `svdnet search` take for images: a folder, a file, a list, a manifest."""

import pytest
from small_data import write

from svdnet_jax.data.found import find_images
from svdnet_jax.errors import DataError


@pytest.fixture
def photos(tmp_path):
    for name in ("b.png", "a.jpg", "in/c.bmp", "more/d.webp"):
        write(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.md").write_text("no image")
    return tmp_path / "photos"


def rows(found):
    return [(crop.name, crop.pid, crop.camera) for crop in found.crops]


def test_an_image_and_a_folder(photos):
    assert rows(find_images(photos / "in" / "c.bmp")) == [("c.bmp", -1, 0)]
    found = find_images(photos)
    assert rows(found) == [(name, -1, 0) for name in ("a.jpg", "b.png", "in/c.bmp", "more/d.webp")]
    assert list(found.unread) == [".md"]


def test_a_list_keeps_its_order(photos):
    (photos / "list.txt").write_text("\ufeffmore/d.webp\n\n  a.jpg \r\n./b.png", encoding="utf-8")
    found = find_images(photos / "list.txt")
    assert rows(found) == [(name, -1, 0) for name in ("more/d.webp", "a.jpg", "./b.png")]
    assert all(crop.path.is_file() for crop in found.crops)


MANIFEST = """path,identity,camera,split
b.png,ben,hall,query
a.jpg,anna,door,query
in/c.bmp,ben,door,gallery
more/d.webp,-1,hall,gallery
"""


def test_a_manifest_says_whom_they_show_and_numbers_people_over_all_splits(photos):
    (photos / "mine.csv").write_text(MANIFEST)
    everyone = [("a.jpg", 1, 1), ("b.png", 2, 2), ("in/c.bmp", 2, 1), ("more/d.webp", -1, 2)]
    assert rows(find_images(photos / "mine.csv")) == everyone
    assert rows(find_images(photos / "mine.csv", "query")) == everyone[:2]
    assert rows(find_images(photos / "mine.csv", "gallery")) == everyone[2:]
    (photos / "both.csv").write_text(MANIFEST.replace("query", "query+gallery"))
    assert rows(find_images(photos / "both.csv")) == everyone
    assert rows(find_images(photos / "both.csv", "gallery")) == everyone
    with pytest.raises(DataError, match=r"mine\.csv: has no image of the split train"):
        find_images(photos / "mine.csv", "train")
    assert find_images(photos / "mine.csv").notes == ()
    (photos / "theirs.csv").write_text(MANIFEST.replace("path,", "img_path,").replace(",camera", ",camid"))
    assert find_images(photos / "theirs.csv").notes


@pytest.mark.parametrize("name", ["list.txt", "mine.csv"])
def test_what_lies_outside_of_the_folder_is_not_read_unless_that_is_meant(photos, name):
    write(photos.parent / "secret.png")
    (photos / "leak.png").symlink_to(photos.parent / "secret.png")
    for other in ("../secret.png", "leak.png"):
        (photos / "list.txt").write_text(f"a.jpg\n{other}\n")
        (photos / "mine.csv").write_text(MANIFEST.replace("b.png", other))
        with pytest.raises(DataError, match=rf"{name}: .*secret\.png, outside of .*give `outside`"):
            find_images(photos / name)
        assert len(find_images(photos / name, outside=True).crops) >= 2


@pytest.mark.parametrize(
    ("name", "content", "split", "message"),
    [
        ("list.txt", b"a.jpg\ngone.png\n/etc\na\0b\n", None, r"line 2: found no file 'gone.png' .*line 3: .*line 4: "),
        ("list.txt", b"a.jpg\nb.png\n./a.jpg\n", None, r"line 3: found ./a.jpg again, it is on line 1 already"),
        ("list.txt", b" \n", None, "names no image; expected a path a line"),
        ("list.txt", b"\xff", None, "is no list in UTF-8"),
        ("list.txt", b"a.jpg", "query", "has no splits; `split` is for a manifest"),
        ("mine.csv", MANIFEST.replace("a.jpg", "gone.jpg").encode(), None, "found no file gone.jpg"),
        ("mine.csv", MANIFEST.encode(), "validation", "`split` validation: expected train, query, gallery"),
        ("notes.md", b"", None, r"its name ends in \.md; expected a folder, an image \(\.bmp, .*a list \(\.txt"),
        ("", None, "gallery", "has no splits"),
        ("nope", None, None, "is no folder and no file; give a folder of images, an image, a list or a manifest"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(photos, name, content, split, message):
    if content is not None:
        (photos / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        find_images(photos / name, split)
