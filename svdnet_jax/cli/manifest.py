"""Writes a data set of any layout as a CSV manifest, which somebody may edit in a spreadsheet and read again."""

import csv
import os
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

from svdnet_jax.data.formats.csv_manifest import BOTH, QUOTED
from svdnet_jax.data.formats.one_set import is_one_set
from svdnet_jax.data.index import SPLITS, DatasetIndex, ImageRecord, refuse_strange
from svdnet_jax.errors import DataError
from svdnet_jax.reporting.terminal import as_cell, printable
from svdnet_jax.safe_writing import write_whole

HEAD = ("path", "identity", "camera", "split")


HEAD_WITHOUT = ("path", "identity", "split")
"""Of a data set whose query set is its gallery, without cameras."""


def write_manifest(listing: DatasetIndex, file: Path) -> Iterator[str]:
    """Writes the manifest, and yields what to say about it.

    No cell can be run as a formula: paths begin with a letter, a digit, ``./`` or ``../``, and identities that look
    like one get an apostrophe, which `csv_manifest.read` takes off.

    Args:
        listing: What `find_layout` found.
        file: The manifest; paths in it are relative to its folder.

    Raises:
        DataError: An image's name says no identity, or cannot stand in a CSV file.
    """
    refuse_strange(listing)
    base = Path(os.path.abspath(file)).parent
    # Cameras that are the images themselves come back when the manifest is read.
    images = _images(listing)
    own = is_one_set(listing.splits) and len({crop.camera for crop in images}) == len(images)
    rows = {crop.path: (crop, split) for split, crop in _once(listing)}
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(HEAD_WITHOUT if own else HEAD)
    outside = 0
    for crop, split in rows.values():
        path = Path(os.path.relpath(os.path.abspath(crop.path), base)).as_posix()
        if path != path.strip() or path != printable(path):
            raise DataError(f"{crop.path}: has spaces around it or characters that are not seen; rename it first")
        outside += path.startswith("../")
        shown = f"./{path}" if path[0] in "=+-@'" else path
        identity = _cell(listing.people.get(crop.pid, str(crop.pid)))
        table.writerow((shown, identity, *([] if own else [crop.camera]), split))
    write_whole(file, text.getvalue().encode())
    yield f"{file}: {len(rows)} images"
    if outside:
        yield f"{outside} of them lie outside of its folder: reading it takes `data.outside`"


def _cell(text: str) -> str:
    """Returns text that no spreadsheet runs, and from which reading takes one apostrophe off."""
    return f"'{text}" if QUOTED.match(text) else as_cell(text)


def _images(listing: DatasetIndex) -> list[ImageRecord]:
    """Returns each file once."""
    return list({crop.path: crop for crops in listing.splits.values() for crop in crops}.values())


def _once(listing: DatasetIndex) -> Iterator[tuple[str, ImageRecord]]:
    """Returns each file with its split, those of query and gallery with both."""
    gallery: Mapping[Path, ImageRecord] = {crop.path: crop for crop in listing.splits["gallery"]}
    queries = {crop.path for crop in listing.splits["query"]}
    for split in SPLITS:
        for crop in listing.splits[split]:
            yield (BOTH if crop.path in gallery and crop.path in queries else split), crop
