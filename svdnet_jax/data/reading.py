"""Reads a data set into arrays: prepared ones are memory-mapped, others are packed and decoded once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from svdnet_jax.data.cache import about_people, is_prepared, read_prepared, reuse_prepared, write_rows
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.index import DatasetIndex, refuse_strange, stamp
from svdnet_jax.data.types import Dataset
from svdnet_jax.data.unread import unread_line


def _silent(line: str) -> None:
    pass


def load_dataset(
    root: Path,
    cache: Path,
    size: tuple[int, int],
    layout: str = "auto",
    say: Callable[[str], None] = _silent,
    *,
    outside: bool = False,
    camera: str | None = None,
    split: str | None = None,
) -> Dataset:
    """Reads a data set; its images lie on disk and are mapped into memory.

    The first call packs the files into records and decodes them, both below ``cache`` and named by a hash of the
    listing (names, identities, sizes, times), so that a changed folder is read anew; later calls map what is there, and
    need neither tensorflow-datasets nor an image library.

    Args:
        root: A prepared folder, a data set in any of `svdnet_jax.data.formats.detect`, its parent, or a CSV manifest.
        cache: Where records and decoded images go.
        size: Height and width that images get if they differ in size, each by itself and rounded to whole numbers;
            equal ones stay as they are, and the compiled network resizes them without rounding.
        layout: How the data set lies on disk; ``auto`` looks. A prepared folder must have been made from it.
        say: Gets a line of what lies there and is not read, and of what is being done where that takes long.
        outside: Whether its list or its links may name images outside of its folder.
        camera: As for `find_layout`.
        split: Likewise.

    Raises:
        DataError: No data set there, or one that cannot be used; the message names file or folder and the remedy.
    """
    if is_prepared(root):
        return read_prepared(root, layout)
    listing = find_layout(root, cache, layout, outside=outside, camera=camera, split=split)
    refuse_strange(listing)
    for note in listing.notes:
        say(f"{listing.name}: {note}")
    if listing.unread:
        say(f"{listing.name}: {unread_line(listing.unread, listing.root)}")
    name = f"prepared-{stamp(listing)}"
    for folder in (cache / name, cache / f"{name}-{size[0]}x{size[1]}"):
        if kept := reuse_prepared(folder, say):
            # Texts are the manifest's of today: the pixels are the same under another name.
            return replace(kept, name=listing.name, people=listing.people)
    # Images of one size serve every network; others are there once for each size asked for.
    wanted = _resize(listing, size)
    folder = cache / (f"{name}-{size[0]}x{size[1]}" if wanted else name)
    _prepare(listing, cache, wanted, folder, say)
    return read_prepared(folder)


def prepare(
    listing: DatasetIndex, cache: Path, size: tuple[int, int], folder: Path, say: Callable[[str], None] = _silent
) -> None:
    """Decodes a data set into a prepared folder.

    Args:
        listing: What `find_layout` found.
        cache: Where records go.
        size: As for `load_dataset`.
        folder: The new folder.
        say: As for `load_dataset`.

    Raises:
        DataError: A name says no identity, an image cannot be decoded, or the folder exists.
    """
    refuse_strange(listing)
    _prepare(listing, cache, _resize(listing, size), folder, say)


def _resize(listing: DatasetIndex, size: tuple[int, int]) -> tuple[int, int] | None:
    """Returns the size that images are brought to; None if they have one size already."""
    from svdnet_jax.data.images import of_one_size  # imports Pillow

    return None if of_one_size(listing) else size


def _prepare(
    listing: DatasetIndex, cache: Path, size: tuple[int, int] | None, folder: Path, say: Callable[[str], None]
) -> None:
    from svdnet_jax.data.tfds_records import pack, unpack  # imports tensorflow-datasets

    say(f"{listing.name}: packing and decoding {sum(map(len, listing.splits.values()))} images into {folder}, once")
    key = stamp(listing)
    about = {"layout": listing.layout, "listing": key, **about_people(listing.people)}
    packed = pack(listing, cache / f"records-{key}")
    write_rows(listing.name, unpack(packed, size), folder, about)
