"""The list beside a bare array of features: whom each row shows, by which camera, and the name of its file."""

import csv
import re
from pathlib import Path
from typing import Any

COLUMNS = {
    "pids": ("pid", "identity", "label"),
    "cameras": ("camera", "camid", "cam"),
    "names": ("name", "path", "image"),
}
"""Columns of a table; `names` may be absent."""
_MARKET = re.compile(r"(?:.*[/\\])?(?P<pid>-1|\d{1,9})_c(?P<camera>\d{1,9})(?!\d)[^/\\]*")


def read_list(features: Path) -> dict[str, list[Any]]:
    """Returns pids, cameras and names of the rows of a file of features, from the list of the same name beside it.

    Args:
        features: The file, x.npy; its list is x.csv, or x.txt with names in Market-1501's form.

    Raises:
        ValueError: There is none, or both, or it cannot be used; the message names it.
    """
    table, names = (features.with_suffix(suffix) for suffix in (".csv", ".txt"))
    if table.is_file() == names.is_file():
        raise ValueError(
            f"features alone do not say whom they show; expected, beside them, {table.name} with the columns pid, "
            f"camera and, if you like, name, or {names.name} with names as 0002_c1s1_000451_03.jpg, one line a row; "
            f"{'both are' if names.is_file() else 'neither is'} there"
        )
    return _table(table) if table.is_file() else _names(names)


def _table(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            head = {str(name).strip().lower(): name for name in reader.fieldnames or ()}
            chosen = {kind: head[name] for kind, names in COLUMNS.items() for name in reversed(names) if name in head}
            if absent := {"pids", "cameras"} - chosen.keys():
                raise ValueError(
                    f"{path.name}: found the columns {', '.join(head) or 'of an empty file'}; expected "
                    f"{' and '.join('/'.join(COLUMNS[kind]) for kind in sorted(absent))} (one camera for all where "
                    "they are unknown)"
                )
            rows = [[str(row[name] or "").strip() for name in chosen.values()] for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name}: is no CSV file in UTF-8 ({error})") from error
    columns = dict(zip(chosen, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(chosen, ())
    numbers = {kind: [_number(text, path, kind) for text in columns[kind]] for kind in ("pids", "cameras")}
    return {**numbers, "names": [*columns.get("names", ())]}


def _number(text: str, path: Path, kind: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}(\.0+)?", text):
        raise ValueError(
            f"{path.name}: found {text!r} among the {kind}; expected whole numbers with one meaning in query and "
            "gallery, -1 for junk and 0 for distractors"
        )
    return int(text.partition(".")[0])


def _names(path: Path) -> dict[str, list[Any]]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: is no text in UTF-8 ({error})") from error
    found = [_MARKET.fullmatch(line) for line in lines]
    if None in found:
        number = found.index(None)
        raise ValueError(
            f"{path.name}, line {number + 1}: found {lines[number][:80]!r}; expected names as 0002_c1s1_000451_03.jpg, "
            f"or {path.with_suffix('.csv').name} with the columns pid, camera and name"
        )
    matches = [match for match in found if match]
    return {"pids": [int(m["pid"]) for m in matches], "cameras": [int(m["camera"]) for m in matches], "names": lines}
