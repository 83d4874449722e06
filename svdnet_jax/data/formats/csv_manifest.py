"""A CSV manifest of your own images: identity, camera and split of each.

    path,identity,camera,split
    images/0001.jpg,anna,entrance,train
    images/0002.jpg,anna,hall,train

Columns may come in any order, others are passed over; `tables` says which names and separators they may have. Without
``camera`` all images are camera 1's, and the evaluation must allow answers from the query's own camera. Paths are
relative to the CSV file. Identities and cameras may be any text, by the rules of `texts`; spaces around it do not
count, and whole numbers may be written as pandas does (3.0). What could be meant in two ways is refused with its line,
see `_problems`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from svdnet_jax.data.formats import texts
from svdnet_jax.data.formats.market_style import SplitFiles
from svdnet_jax.data.formats.one_set import is_one_set, with_own_cameras
from svdnet_jax.data.formats.tables import read_table
from svdnet_jax.data.index import SHOWN, SPLITS, ImageRecord
from svdnet_jax.data.types import JUNK
from svdnet_jax.data.unread import beside, by_kind
from svdnet_jax.errors import DataError

FILE = "manifest.csv"
QUOTED = re.compile(r"'+[=+@-]")
"""What no spreadsheet runs, for the apostrophe at its beginning; one of them is no part of the text."""
BOTH = "query+gallery"
"""The split of an image that is searched for among the others, as in sets whose test images are both."""
_COLUMNS = ("path", "identity", "camera", "split")


class _Row(NamedTuple):
    line: int
    path: str
    identity: str
    camera: str
    split: str
    extra: str
    """What stands beyond the last column."""


def lacking(folder: Path) -> str:
    """Returns what keeps ``folder`` (or file) from being a manifest; empty if nothing does."""
    return "" if folder.is_file() or (folder / FILE).is_file() else f"no {FILE} there"


def read(root: Path) -> SplitFiles:
    """Reads a manifest.

    Args:
        root: The CSV file, or the folder of a manifest.csv.

    Raises:
        DataError: It cannot be used; names file and lines, what was found and what was expected.
    """
    file = root if root.is_file() else root / FILE
    table = read_table(file)
    rows = [_row(line, cells) for line, cells in table.rows]
    _refuse(file, list(_problems(file, rows)))
    pids = texts.numbers({row.identity for row in rows})
    cameras = texts.numbers({row.camera for row in rows}, ())
    splits: dict[str, list[ImageRecord]] = {split: [] for split in SPLITS}
    for row in rows:
        crop = ImageRecord(file.parent / row.path, pids[row.identity], cameras[row.camera], row.path)
        for split in row.split.split("+"):
            splits[split].append(crop)
    sorted_splits = {split: tuple(sorted(crops, key=lambda crop: crop.name)) for split, crops in splits.items()}
    notes = list(table.notes)
    if not any("camera" in cells for _, cells in table.rows) and is_one_set(sorted_splits):
        sorted_splits, note = with_own_cameras(sorted_splits)
        notes.append(note)
    paths = [crop.path for crops in splits.values() for crop in crops]
    return SplitFiles(sorted_splits, unread=by_kind(beside(paths)), people=texts.names_of(pids), notes=tuple(notes))


def _row(line: int, cells: Mapping[Any, Any]) -> _Row:
    extra = "".join(cells.get(None) or ()).strip()
    text = {name: _unquoted((cells[name] or "").strip()) for name in _COLUMNS if name in cells}
    people, cameras = texts.spelled(text.get("identity", "")), texts.spelled(text.get("camera", "1"))
    return _Row(line, text.get("path", ""), people, cameras, text.get("split", "").lower(), extra)


def _unquoted(text: str) -> str:
    """Returns text without the apostrophe that keeps spreadsheets from running it, as our own tables have it."""
    return text[1:] if QUOTED.match(text) else text


def _problems(file: Path, rows: list[_Row]) -> Iterator[str]:
    """Returns what is wrong, each with its line."""
    seen: dict[str, int] = {}
    spellings: dict[tuple[str, str], _Spelling] = {}
    for row in rows:
        if row.extra:
            yield (
                f"line {row.line}: found {row.extra!r} beyond the last column; put text with a comma in it into "
                'quotation marks: "Smith, Anna"'
            )
        for column in ("path", "identity", "camera"):
            if not getattr(row, column):
                yield f"line {row.line}: found no {column}"
        if row.split not in (*SPLITS, BOTH):
            yield f"line {row.line}: found the split {row.split!r}, expected train, query, gallery or {BOTH}"
        if texts.INTEGER.fullmatch(row.identity) and int(row.identity) < JUNK:
            yield f"line {row.line}: found the identity {row.identity}, expected -1 (junk), 0 (distractor) or more"
        for column, text in (("identity", row.identity), ("camera", row.camera)):
            if doubt := texts.doubt(text):
                yield f"line {row.line}: found the {column} {text!r}, {doubt}"
            other = spellings.setdefault((column, texts.meant(text)), _Spelling(text, row.line))
            if other.text != text:
                yield (
                    f"line {row.line}: found the {column} {text!r}, and {other.text!r} on line {other.line}; if they "
                    "are one, write them in one way, else let more than zeros, capitals or spaces tell them apart"
                )
        place = os.path.normpath(file.parent / row.path)
        if place in seen:
            yield f"line {row.line}: found {row.path} again, it is on line {seen[place]} already"
        elif row.path and not (file.parent / row.path).is_file():
            yield f"line {row.line}: found no file {row.path} in {file.parent}"
        seen.setdefault(place, row.line)


class _Spelling(NamedTuple):
    text: str
    line: int


def _refuse(file: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{file}: {'; '.join(problems[:SHOWN])}{more}")
