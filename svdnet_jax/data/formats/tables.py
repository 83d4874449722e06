"""Tables of images as toolkits and spreadsheets write them: which columns mean what, by stated rules.

A file's first line must name the columns; whichever of comma, semicolon and tab makes it do so separates them. A
``.parquet`` file is read where pyarrow or pandas is installed. Columns go by our own names or by those of `ALIASES`;
OML's ``is_query`` and ``is_gallery`` say what an image of its ``validation`` split is. What was taken for what is said.
"""

import csv
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from svdnet_jax.errors import DataError

ENDINGS = (".csv", ".tsv", ".parquet")
ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "path": ("img_path", "image_path"),
        "identity": ("pid", "label"),
        "camera": ("camid",),
        "split": (),
    }
)
"""Columns of torchreid's lists and of OML's tables, by our names; ours are taken first."""
QUERY, GALLERY = "is_query", "is_gallery"
_BOXES = ("x_1", "y_1", "x_2", "y_2")
_SEPARATORS = MappingProxyType({",": "commas", ";": "semicolons", "\t": "tabs"})
_BYTE_ORDER = (b"\xff\xfe", b"\xfe\xff")
_FLAGS = MappingProxyType({"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False})
_MISSING = ("nan", "<na>", "none", "null")
_KNOWN = {*ALIASES, *(name for others in ALIASES.values() for name in others), QUERY, GALLERY, *_BOXES}
MOST_ROWS = 10**7
"""Of a parquet file, which may hold more than memory does."""
_TESTED = ("validation", "val", "test")

Cells = Mapping[Any, Any]


class Table(NamedTuple):
    """The cells of a file, by our names of their columns."""

    rows: list[tuple[int, Cells]]
    """With the line in the file; what stands beyond the last column is a list under None."""
    notes: tuple[str, ...] = ()
    """What was taken for what."""
    splits: bool = True
    """Whether a column says the split."""


def read_table(file: Path, split: str = "") -> Table:
    """Reads a table.

    Args:
        file: The table.
        split: Of all its images, where it has no column that says it.

    Raises:
        DataError: No such columns, or two that mean one thing; no text in UTF-8; a package is missing.
    """
    if file.suffix.lower() == ".parquet":
        header, numbered = _parquet(file)
        separated = ""
    else:
        header, numbered, separated = _text(file, split)
    names = _meanings(file, header, split)
    renamed = [names.get(column, column) for column in header]
    rows = [(line, _flagged(file, line, _named(renamed, cells))) for line, cells in numbered]
    notes = [f"its columns are separated by {separated}"] if separated not in ("", "commas") else []
    notes += [f"its column {column} is read as {name}" for column, name in names.items() if column != name]
    if QUERY in header:
        notes.append(f"{QUERY} and {GALLERY} say which images of its test are queries and gallery")
    said = "split" in renamed
    if not said:
        rows = [(line, {**cells, "split": split}) for line, cells in rows]
    return Table(rows, tuple(notes), said)


def _named(header: list[str], cells: list[str]) -> Cells:
    """Returns cells by their columns, those beyond the last one under None."""
    named: dict[str | None, Any] = dict(zip(header, cells, strict=False))
    return named if len(cells) <= len(header) else named | {None: cells[len(header) :]}


def _text(file: Path, split: str) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Returns the columns, the rows with their lines, and what separates them."""
    with file.open("rb") as start:
        # Spreadsheets put a byte order mark before the first column's name, and their "Unicode text" is UTF-16.
        encoding = "utf-16" if start.read(2) in _BYTE_ORDER else "utf-8-sig"
    try:
        with file.open(newline="", encoding=encoding) as lines:
            first = lines.readline()
            separator = _separator(file, first, split)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
            header = _columns(next(reader, []))
            return header, [(reader.line_num, cells) for cells in reader if cells], _SEPARATORS[separator]
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{file}: is no CSV file in UTF-8 ({error})") from error


def _columns(cells: list[str]) -> list[str]:
    return [name.strip().lower() for name in cells]


def _separator(file: Path, first: str, split: str) -> str:
    """Returns what separates the columns: that by which the first line names them."""
    for separator in _SEPARATORS:
        header = _columns(next(csv.reader([first], delimiter=separator, skipinitialspace=True), []))
        if not _absent(header, split):
            return separator
    likely = max(_SEPARATORS, key=first.count)
    header = _columns(next(csv.reader([first], delimiter=likely, skipinitialspace=True), []))
    raise DataError(f"{file}, line 1: {_expected(header, split)}")


def _absent(header: list[str], split: str) -> list[str]:
    needed = ("path", "identity") if split else ("path", "identity", "split")
    return [name for name in needed if not {name, *ALIASES[name]} & set(header)]


def _expected(header: list[str], split: str) -> str:
    also = "; ".join(f"{name} may be called {' or '.join(others)}" for name, others in ALIASES.items() if others)
    absent = _absent(header, split)
    alone = absent == ["split"]
    remedy = (
        "; where all images are of one split, call the file train.csv and so on, or give `data.split`" if alone else ""
    )
    return (
        f"found the columns {','.join(header) or 'of an empty file'}; expected path,identity,camera,split, separated "
        f"by commas, semicolons or tabs ({', '.join(absent)} missing; camera is optional; {also}){remedy}"
    )


def _meanings(file: Path, header: list[str], split: str) -> dict[str, str]:
    """Returns our name of each column that we read."""
    if _absent(header, split):
        raise DataError(f"{file}, line 1: {_expected(header, split)}")
    names: dict[str, str] = {}
    for name, others in ALIASES.items():
        found = [column for column in header if column == name] or [column for column in header if column in others]
        if len(found) > 1:
            raise DataError(
                f"{file}, line 1: found the column {name} more than once ({', '.join(found)}); keep one, or call the "
                f"one that is meant {name}"
            )
        names |= dict.fromkeys(found, name)
    if (QUERY in header) != (GALLERY in header):
        raise DataError(
            f"{file}, line 1: found {QUERY if QUERY in header else GALLERY} alone; give {QUERY} and {GALLERY}"
        )
    return names


def _flagged(file: Path, line: int, cells: Cells) -> Cells:
    """Returns a row whose split says what OML's flags say."""
    if any(_filled(cells.get(name)) for name in _BOXES):
        raise DataError(f"{file}: line {line}: found a box (x_1 ...); boxes are not cut out here: save the crops first")
    if QUERY not in cells and GALLERY not in cells:
        return cells
    split = str(cells.get("split") or "").strip().lower()
    query, gallery = (_flag(file, line, name, cells.get(name)) for name in (QUERY, GALLERY))
    if split in _TESTED and (query or gallery):
        split = "+".join(name for name, set_ in (("query", query), ("gallery", gallery)) if set_)
    elif split in _TESTED or query or gallery:
        raise DataError(
            f"{file}: line {line}: found the split {split}, {QUERY} {query} and {GALLERY} {gallery}; expected one of "
            "these for validation, and none for train"
        )
    return {**cells, "split": split}


def _filled(cell: Any) -> bool:
    return str(cell or "").strip().lower() not in ("", *_MISSING)


def _flag(file: Path, line: int, name: str, cell: Any) -> bool:
    text = str(cell or "").strip().lower()
    text = "" if text in _MISSING else text
    if text not in _FLAGS:
        raise DataError(f"{file}: line {line}: found {name} {cell!r}; expected True or False")
    return _FLAGS[text]


def _parquet(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the columns and rows of a parquet file; lines count from 2, as those of its table as CSV would."""
    try:
        columns = dict(_parquet_columns(file))
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{file}: is no parquet file that can be read ({error})") from error
    rows = zip(*columns.values(), strict=True)
    texts = (["" if cell is None else str(cell) for cell in row] for row in rows)
    return _columns(list(columns)), list(enumerate(texts, start=2))


def _parquet_columns(file: Path) -> Iterator[tuple[str, list[Any]]]:
    if importlib.util.find_spec("pyarrow"):
        parquet: Any = importlib.import_module("pyarrow.parquet")
        with parquet.ParquetFile(file) as opened:
            if opened.metadata.num_rows > MOST_ROWS:
                raise DataError(f"{file}: found {opened.metadata.num_rows} rows; expected {MOST_ROWS} at most")
            wanted = [name for name in opened.schema_arrow.names if name.strip().lower() in _KNOWN]
            table = opened.read(columns=wanted)
        yield from ((name, table[name].to_pylist()) for name in table.column_names)
    elif importlib.util.find_spec("pandas"):
        pandas: Any = importlib.import_module("pandas")
        frame = pandas.read_parquet(file)
        yield from ((str(name), frame[name].astype(object).tolist()) for name in frame.columns)
    else:
        raise DataError(f"{file}: reading it takes pyarrow or pandas; install one, or save the table as CSV")
