"""A CSV manifest of your own images: identity, camera and split of each.

    path,identity,camera,split
    images/0001.jpg,anna,entrance,train
    images/0002.jpg,anna,hall,train

Columns may come in any order, others are passed over; `tables` says which names and separators they may have. Without
``camera`` all images are camera 1's, and the evaluation must allow answers from the query's own camera. A table without
``split`` is of one split, which its name says (``train.csv``, ``query.csv`` and ``gallery.csv``, which may lie side by
side in place of a ``manifest.csv``) or whoever reads it. Paths are relative to the CSV file. Identities and cameras may
be any text, by the rules of `texts`; spaces around it do not count, and whole numbers may be written as pandas does
(3.0). What could be meant in two ways is refused with its line, see `_problems`.
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
from svdnet_jax.data.types import DISTRACTOR, JUNK
from svdnet_jax.data.unread import beside, by_kind
from svdnet_jax.errors import ConfigError, DataError

FILE = "manifest.csv"
QUOTED = re.compile(r"'+[=+@-]")
"""What no spreadsheet runs, for the apostrophe at its beginning; one of them is no part of the text."""
BOTH = "query+gallery"
"""The split of an image that is searched for among the others, as in sets whose test images are both."""
_TESTED = ("query.csv", "gallery.csv")
_COLUMNS = ("path", "identity", "camera", "split")


class _Row(NamedTuple):
    place: str
    """Its line, and of several files the file."""
    path: str
    identity: str
    camera: str
    split: str
    extra: str
    """What stands beyond the last column."""


def lacking(folder: Path) -> str:
    """Returns what keeps ``folder`` (or file) from being a manifest; empty if nothing does."""
    if folder.is_file() or (folder / FILE).is_file() or all((folder / name).is_file() for name in _TESTED):
        return ""
    return f"no {FILE} there, nor {' and '.join(_TESTED)}"


def read(root: Path, split: str | None = None, *, unsaid: str = "") -> SplitFiles:
    """Reads a manifest.

    Args:
        root: The CSV file, or the folder of a manifest.csv or of a table for each split.
        split: Of all images of a table without a column that says it, whatever its name says.
        unsaid: Of those of which nobody says it; not given: they are refused.

    Raises:
        ConfigError: A split is given, and the tables say it themselves.
        DataError: It cannot be used; names file and lines, what was found and what was expected.
    """
    files = _files(root)
    tables = {file: read_table(file, split or said or unsaid) for file, said in files.items()}
    if split and (len(files) > 1 or any(table.splits for table in tables.values())):
        raise ConfigError(f"`data.split` {split}: {root} says the splits itself; leave it out")
    one = next(iter(files)) if len(files) == 1 else None
    rows = [
        _row(f"line {line}" if one else f"{file.name}, line {line}", cells)
        for file, table in tables.items()
        for line, cells in table.rows
    ]
    folder = next(iter(files)).parent
    _refuse(one or folder, list(_problems(folder, rows)))
    pids = texts.numbers({row.identity for row in rows})
    cameras = texts.numbers({row.camera for row in rows}, ())
    splits: dict[str, list[ImageRecord]] = {name: [] for name in SPLITS}
    for row in rows:
        crop = ImageRecord(folder / row.path, pids[row.identity], cameras[row.camera], row.path)
        for name in row.split.split("+"):
            splits[name].append(crop)
    notes = list(dict.fromkeys(note for table in tables.values() for note in table.notes))
    people = texts.names_of(pids)
    if bare := [file.name for file, table in tables.items() if not table.splits]:
        if said := split or ("the name of the file" if any(files.values()) else ""):
            notes.append(f"no column split in {', '.join(bare)}: {said} says it")
        notes += [] if people else _apart(splits)
    sorted_splits = {name: tuple(sorted(crops, key=lambda crop: crop.name)) for name, crops in splits.items()}
    if not any("camera" in cells for table in tables.values() for _, cells in table.rows) and is_one_set(sorted_splits):
        sorted_splits, note = with_own_cameras(sorted_splits)
        notes.append(note)
    paths = [crop.path for crops in splits.values() for crop in crops]
    return SplitFiles(sorted_splits, unread=by_kind(beside(paths)), people=people, notes=tuple(notes))


def _files(root: Path) -> dict[Path, str]:
    """Returns the tables, each with the split that its name says; empty where it says none."""
    if root.is_file():
        name = root.stem.lower()
        return {root: name if name in SPLITS else ""}
    if (root / FILE).is_file():
        return {root / FILE: ""}
    return {root / f"{name}.csv": name for name in SPLITS if (root / f"{name}.csv").is_file()}


def _apart(splits: dict[str, list[ImageRecord]]) -> list[str]:
    """Numbers training identities anew that begin at 0, in place, and returns what to say of it.

    Toolkits number them anew when they train, from 0 on and whoever the others are; 0 would be a distractor here.
    """
    if not any(crop.pid == DISTRACTOR for crop in splits["train"]):
        return []
    first = 1 + max([0, *(crop.pid for name in ("query", "gallery") for crop in splits[name])])
    splits["train"] = [crop if crop.pid == JUNK else crop._replace(pid=crop.pid + first) for crop in splits["train"]]
    return [
        "training identities are numbered from 0 and taken for others than those of the test, as toolkits number them "
        f"anew: 0 is {first} here, and so on"
    ]


def _row(place: str, cells: Mapping[Any, Any]) -> _Row:
    extra = "".join(cells.get(None) or ()).strip()
    text = {name: _unquoted((cells[name] or "").strip()) for name in _COLUMNS if name in cells}
    people, cameras = texts.spelled(text.get("identity", "")), texts.spelled(text.get("camera", "1"))
    return _Row(place, text.get("path", ""), people, cameras, text.get("split", "").lower(), extra)


def _unquoted(text: str) -> str:
    """Returns text without the apostrophe that keeps spreadsheets from running it, as our own tables have it."""
    return text[1:] if QUOTED.match(text) else text


def _problems(folder: Path, rows: list[_Row]) -> Iterator[str]:
    """Returns what is wrong, each with its line."""
    seen: dict[str, _Row] = {}
    spellings: dict[tuple[str, str], _Spelling] = {}
    for row in rows:
        if row.extra:
            yield (
                f"{row.place}: found {row.extra!r} beyond the last column; put text with a comma in it into "
                'quotation marks: "Smith, Anna"'
            )
        for column in ("path", "identity", "camera"):
            if not getattr(row, column):
                yield f"{row.place}: found no {column}"
        if row.split not in (*SPLITS, BOTH):
            yield f"{row.place}: found the split {row.split!r}, expected train, query, gallery or {BOTH}"
        if texts.INTEGER.fullmatch(row.identity) and int(row.identity) < JUNK:
            yield f"{row.place}: found the identity {row.identity}, expected -1 (junk), 0 (distractor) or more"
        for column, text in (("identity", row.identity), ("camera", row.camera)):
            if doubt := texts.doubt(text):
                yield f"{row.place}: found the {column} {text!r}, {doubt}"
            other = spellings.setdefault((column, texts.meant(text)), _Spelling(text, row.place))
            if other.text != text:
                yield (
                    f"{row.place}: found the {column} {text!r}, and {other.text!r} on {other.place}; if they "
                    "are one, write them in one way, else let more than zeros, capitals or spaces tell them apart"
                )
        place = os.path.normpath(folder / row.path)
        other_row = seen.setdefault(place, row)
        if other_row is not row and not _both(other_row, row):
            yield f"{row.place}: found {row.path} again, it is on {other_row.place} already"
        elif row.path and not (folder / row.path).is_file():
            yield f"{row.place}: found no file {row.path} in {folder}"


def _both(first: _Row, second: _Row) -> bool:
    """Returns whether two rows are one image that a table of queries and one of the gallery name."""
    tables = first.place.partition(",")[0], second.place.partition(",")[0]
    return tables == ("query.csv", "gallery.csv") and first[1:4] == second[1:4]


class _Spelling(NamedTuple):
    text: str
    place: str


def _refuse(file: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{file}: {'; '.join(problems[:SHOWN])}{more}")
