"""What lies in the folders of a data set and is not read is counted by kind, wherever data are loaded."""

import os

import pytest
from rich.console import Console
from small_data import SIZE, cache_folder, shelved_market, write, write_cuhk03_config, write_cuhk03_images, write_msmt17

from svdnet_jax.config.schema import Config, Data
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.data.unread import unread_line
from svdnet_jax.runs.dataset import load_configured_dataset

market = pytest.fixture(shelved_market)
cache = pytest.fixture(cache_folder)


def litter(folder, nowhere):
    for n in range(3):
        write(folder / f"000{n}_c1s1_000451_0{n}.webp")
    write(folder / "x.bmp")
    write(folder / ".hidden.jpg")
    for n in range(2):
        (folder / f"0002_c1s1_00045{n}_03.jpg").symlink_to(nowhere)
    (folder / "0001_c1s1_000001_77.jpg").mkdir()
    (folder / "README").write_text("read me")
    os.mkfifo(folder / "0001_c1s1_000001_78.jpg")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0001_c1s1_000001_00.jpg"):
        (folder / name).write_bytes(b"a system was here")


SAID = (
    "not read: 3 .webp (first: query/0000_c1s1_000451_00.webp), "
    "2 links that lead nowhere (first: query/0002_c1s1_000450_03.jpg), 1 .bmp (first: query/x.bmp), "
    "1 folders (first: query/0001_c1s1_000001_77.jpg), 1 hidden files (first: query/.hidden.jpg), "
    "1 neither files nor folders (first: query/0001_c1s1_000001_78.jpg), 1 without an ending (first: query/README)"
)


def test_the_published_folders_have_nothing_to_say(market):
    assert find_layout(market, market).unread == {}


def test_every_kind_is_counted_at_every_load(market, cache, tmp_path, capsys):
    litter(market / "query", tmp_path / "nowhere.jpg")
    listing = find_layout(market, cache)
    assert unread_line(listing.unread, listing.root) == SAID
    first, again = [], []
    load_dataset(market, cache, SIZE, say=first.append)
    load_dataset(market, cache, SIZE, say=again.append)  # from the cache
    assert f"{market.name}: {SAID}" == first[0] == again[0]
    # Where training, evaluation and the studies get their data from.
    config = Config(data=Data(root=market, cache=cache, height=16, width=8))
    load_configured_dataset(config, Console(width=300))
    assert SAID in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["msmt17", "cuhk03"])
def test_beside_lists_are_the_images_that_they_do_not_name(tmp_path, layout):
    if layout == "msmt17":
        folder = write_msmt17(tmp_path / "MSMT17") / "train" / "0000"
    else:
        write_cuhk03_config(tmp_path / "cuhk03")
        write_cuhk03_images(tmp_path / "cuhk03")
        folder = tmp_path / "cuhk03" / "images_labeled"
    assert find_layout(folder.parents[0 if layout == "cuhk03" else 1], tmp_path / "cache").unread == {}
    write(folder / "more.png")
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "notes.txt").write_text("a list says what belongs to it")
    listing = find_layout(tmp_path, tmp_path / "cache")
    within = folder.relative_to(listing.root).as_posix()
    assert unread_line(listing.unread, listing.root) == (
        f"not read: 1 images that the list does not name (first: {within}/more.png), "
        f"1 links that lead nowhere (first: {within}/gone.jpg)"
    )
