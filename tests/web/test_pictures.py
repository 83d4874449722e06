"""Where pictures come from and where not, and thumbnails that are made once and kept within a bound."""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from small_data import write

from svdnet_jax.data.found import find_images
from svdnet_jax.errors import DataError
from svdnet_jax.web import pictures
from svdnet_jax.web.pictures import Thumbnails, from_arrays, from_folder


def test_prepared_images_are_found_by_name():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 4, 2, 3), np.uint8)
    read = from_arrays(images, ["a", "b", "c"], ["c", "x", "a"])
    assert [np.asarray(read(row)).max() for row in (0, 2)] == [2, 0]
    with pytest.raises(DataError, match="x: is not among"):
        read(1)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "in/b.png", "in/twice.png", "also/twice.png"):
        write(tmp_path / "images" / name)
    write(tmp_path / "secret.png")
    (tmp_path / "images" / "leak.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "images" / "leaks").symlink_to(tmp_path)
    return tmp_path / "images"


def read_from(folder, *names):
    files = {record.name: record.path for record in find_images(folder).crops}
    return from_folder(folder, files, names)


def test_files_are_found_by_path_or_by_a_name_that_only_one_has(folder):
    read, missing = read_from(folder, "a.png", "b.png", "in/b.png", "twice.png", "in/twice.png", "gone.png")
    assert missing == 2
    for row in (0, 1, 2, 4):
        assert read(row).size == (8, 16)
    for row in (3, 5):
        with pytest.raises(DataError, match="is not in the folder"):
            read(row)


@pytest.mark.parametrize(
    "name", ["../secret.png", "leaks/secret.png", "/etc/passwd", "in/../../secret.png", "..\\secret.png", "", ".", "in"]
)
def test_names_of_embeddings_lead_nowhere_outside(folder, name):
    read, missing = read_from(folder, name, str(folder.parent / "secret.png"))
    assert missing == 2
    for row in range(2):
        with pytest.raises(DataError, match="is not in the folder"):
            read(row)


def test_a_link_out_of_the_folder_is_not_followed_also_if_it_comes_later(folder):
    read, missing = read_from(folder, "leak.png", "a.png")
    assert missing == 0
    with pytest.raises(DataError, match=r"leak.png: is a link that leads out"):
        read(0)
    read(1)
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"a.png: is gone"):
        read(1)
    (folder / "a.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(DataError, match=r"a.png: is a link that leads out"):
        read(1)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("a.png")
    with pytest.raises(DataError, match=r"a.png: is gone"):
        read(1)


def test_large_pictures_are_refused_before_they_are_decoded(folder, monkeypatch):
    read, _ = read_from(folder, "a.png")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 127)
    monkeypatch.setattr(pictures, "decode", None)
    with pytest.raises(DataError, match="a.png: has 8 x 16 pixels, and at most"):
        read(0)


def counted(fail=()):
    """Pictures of noise, and how often each was read."""
    reads, lock = [], threading.Lock()

    def read(row):
        with lock:
            reads.append(row)
        if row in fail:
            raise DataError(f"{row}: no picture")
        return Image.fromarray(np.random.default_rng(row).integers(0, 255, (400, 100, 3), np.uint8))

    return read, reads


def test_each_is_made_once_whoever_asks_at_the_same_time():
    read, reads = counted()
    thumbnails, barrier = Thumbnails({"gallery": read}), threading.Barrier(10)

    def client(_):
        barrier.wait()
        return [thumbnails.get("gallery", row) for row in range(5)]

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(client, range(10)))
    assert sorted(reads) == [0, 1, 2, 3, 4]
    assert all(each == found[0] for each in found)
    made = Image.open(io.BytesIO(found[0][0]))
    assert (made.format, made.size) == ("JPEG", (80, 320))


def test_the_least_used_go_when_there_is_no_room():
    read, reads = counted()
    size = len(Thumbnails({"g": read}).get("g", 0))
    thumbnails = Thumbnails({"g": read}, room=int(2.5 * size))
    reads.clear()
    for row in (0, 1, 0, 2, 0, 1):
        thumbnails.get("g", row)
    assert reads == [0, 1, 2, 1]
    assert sum(len(future.result()) for future in thumbnails._made.values()) <= 2.5 * size
    assert thumbnails._size == sum(len(future.result()) for future in thumbnails._made.values())


def test_a_failure_is_told_to_all_and_looked_for_again():
    read, reads = counted(fail={3})
    thumbnails = Thumbnails({"g": read})
    for _ in range(2):
        with pytest.raises(DataError, match="3: no picture"):
            thumbnails.get("g", 3)
    assert reads == [3, 3]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.png")
    read, missing = read_from(folder, "pipe.png")
    assert missing == 1
    with pytest.raises(DataError, match="is not in the folder"):
        read(0)
    read, _ = read_from(folder, "a.png")
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")
    with pytest.raises(DataError, match=r"a.png: is no file any more"):
        read(0)
