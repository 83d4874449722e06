"""Your own data: a CSV file that says for each image whom it shows, by which camera, and in which split.

    path,identity,camera,split
    images/0001.jpg,anna,entrance,train
    images/0002.jpg,anna,hall,train

Columns may come in any order, others are passed over, and ``camera`` may be left out: all images are then camera 1's,
and the evaluation must allow answers from the query's own camera. Paths are relative to the CSV file. Identities and
cameras may be any text. If all identities are integers they stay what they are, else they are numbered from 1 in
sorted order; in both cases -1 is a gallery's junk and 0 its distractors, as in Market-1501. The same holds for cameras.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from svdnet_jax.data.folders import Contents
from svdnet_jax.data.listing import SHOWN, SPLITS, Crop
from svdnet_jax.data.splits import DISTRACTOR, JUNK, DataError

FILE = "manifest.csv"
_REQUIRED = ("path", "identity", "split")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


class _Row(NamedTuple):
    line: int
    path: str
    identity: str
    camera: str
    split: str


def lacking(folder: Path) -> str:
    """What keeps ``folder`` (or file) from being a manifest; empty if nothing does."""
    return "" if folder.is_file() or (folder / FILE).is_file() else f"no {FILE} there"


def read(root: Path) -> Contents:
    """Reads a manifest.

    Args:
        root: The CSV file, or the folder of a manifest.csv.

    Raises:
        DataError: It cannot be used; names file and lines, what was found and what was expected.
    """
    file = root if root.is_file() else root / FILE
    rows = _rows(file)
    _refuse(file, list(_problems(file, rows)))
    pids = _numbers({row.identity for row in rows}, {str(JUNK): JUNK, str(DISTRACTOR): DISTRACTOR})
    cameras = _numbers({row.camera for row in rows}, {})
    splits: dict[str, list[Crop]] = {split: [] for split in SPLITS}
    for row in rows:
        crop = Crop(file.parent / row.path, pids[row.identity], cameras[row.camera], row.path)
        splits[row.split].append(crop)
    return Contents({split: tuple(sorted(crops, key=lambda crop: crop.name)) for split, crops in splits.items()})


def _rows(file: Path) -> list[_Row]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            header = [name.strip().lower() for name in reader.fieldnames or ()]
            absent = [name for name in _REQUIRED if name not in header]
            if absent:
                raise DataError(
                    f"{file}, line 1: found the columns {','.join(header) or 'of an empty file'}; expected "
                    f"path,identity,camera,split, separated by commas ({', '.join(absent)} missing; camera is optional)"
                )
            reader.fieldnames = header
            return [
                _row(reader.line_num, {k: (v or "").strip() for k, v in cells.items() if k}) for cells in _cells(reader)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: is no CSV file in UTF-8 ({error})") from error


def _cells(reader: csv.DictReader) -> Iterator[Mapping[str, str]]:
    # What is beyond the last column comes under the key None, as a list.
    for cells in reader:
        yield {key: value for key, value in cells.items() if isinstance(key, str)}


def _row(line: int, cells: Mapping[str, str]) -> _Row:
    return _Row(line, cells["path"], cells["identity"], cells.get("camera", "1"), cells["split"].lower())


def _problems(file: Path, rows: list[_Row]) -> Iterator[str]:
    """What is wrong, each with its line."""
    seen: dict[str, int] = {}
    for row in rows:
        for column in ("path", "identity", "camera"):
            if not getattr(row, column):
                yield f"line {row.line}: found no {column}"
        if row.split not in SPLITS:
            yield f"line {row.line}: found the split {row.split!r}, expected train, query or gallery"
        if _INTEGER.fullmatch(row.identity) and int(row.identity) < JUNK:
            yield f"line {row.line}: found the identity {row.identity}, expected -1 (junk), 0 (distractor) or more"
        if row.path in seen:
            yield f"line {row.line}: found {row.path} again, it is on line {seen[row.path]} already"
        elif row.path and not (file.parent / row.path).is_file():
            yield f"line {row.line}: found no file {row.path} in {file.parent}"
        seen.setdefault(row.path, row.line)


def _refuse(file: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{file}: {'; '.join(problems[:SHOWN])}{more}")


def _numbers(names: set[str], reserved: Mapping[str, int]) -> Mapping[str, int]:
    """Each name's number: its own if all are integers, else from 1 in sorted order."""
    if all(map(_INTEGER.fullmatch, names)):
        return {name: int(name) for name in names}
    return {name: n for n, name in enumerate(sorted(names - reserved.keys()), start=1)} | dict(reserved)
