"""The tables of a benchmark, from its rows.

python -m benchmarks.table      draws those of docs/benchmarks*.md anew
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEAD = """| {title} | seconds | first call | ratio | memory, MB | found |
|---|---|---|---|---|---|"""

TRAINING_HEAD = """| {title} | images/s | step, ms | ours is | MFU | compile, s | memory, MB |
|---|---|---|---|---|---|---|"""
KINDS = ("base", "restraint", "relaxation")
MARKED = re.compile(r"(<!-- tables (\S+)(?: (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)
"""Where tables stand: the file of their rows, and the platform where rows are of several."""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, one table for each task and size; ratios are to the first row of each, which is ours.

    Args:
        rows: As benchmarks.retrieval writes them.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        queries = f"{row['queries']:_} x ".replace("_", " ") if "queries" in row else ""
        title = f"{row['task']}, {queries}{row['gallery']:_}".replace("_", " ")
        groups.setdefault(title, []).append(row)
    parts = []
    for title, group in groups.items():
        lines = [HEAD.format(title=title)]
        for row in group:
            ratio = row["seconds"] / group[0]["seconds"]
            found = ", ".join(f"{name} {value:.6g}" for name, value in row["numbers"].items())
            times = f"{row['seconds']:.2f} | {row['first']:.2f} | {ratio:.2f}x"
            lines.append(f"| {row['name']} | {times} | {row['memory']:.0f} | {found} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def training_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, one table for each device, type, size and batch; each kind of phase with its ratios.

    Args:
        rows: As benchmarks.training writes them.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: KINDS.index(row["kind"])):
        note = f" ({row['note']})" if "note" in row else ""
        size = row["dtype"], row["height"], row["width"], row["batch"]
        groups.setdefault((row["device"], *size, note), []).append(row)
    parts = []
    for (device, dtype, height, width, batch, note), group in sorted(groups.items()):
        title = f"{device}, {height} x {width}, {dtype}, batch {batch}{note}"
        ours = {row["kind"]: row["images_per_second"] for row in group if row["contender"] == "svdnet_jax"}
        lines = [TRAINING_HEAD.format(title=title)]
        for row in group:
            speed = row["images_per_second"]
            ratio = f"{ours[row['kind']] / speed:.2f}x" if row["kind"] in ours else ""
            share = f"{100 * row['mfu']:.0f} %" if row["mfu"] else ""
            times = f"{speed:.{_digits(speed)}f} | {row['step_ms']:.{_digits(row['step_ms'])}f}"
            rest = f"{ratio} | {share} | {row['compile']:.1f} | {row['memory']:.0f}"
            lines.append(f"| {row['kind']}: {row['contender']} | {times} | {rest} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _digits(number: float) -> int:
    """After the point, so that three or more are shown."""
    return 2 if number < 10 else 1 if number < 100 else 0


def drawn(text: str, root: Path) -> str:
    """A document with its tables drawn from the files of rows that its marks name.

    Args:
        text: Markdown.
        root: Where those files are named from.
    """

    def draw(mark: re.Match[str]) -> str:
        start, path, platform, end = mark.groups()
        rows = read_rows(root / path)
        if platform:
            rows = [row for row in rows if row["platform"] == platform]
        made = training_table(rows) if "contender" in (rows or [{}])[0] else table(rows)
        return f"{start}{made}\n{end}"

    return MARKED.sub(draw, text)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows as a benchmark keeps them, one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def keep_rows(rows: Sequence[Mapping[str, Any]], path: Path, keys: Sequence[str]) -> None:
    """Writes rows of one run in place of those that agree with them in all keys.

    Args:
        rows: They agree in the keys among themselves.
        path: Made if it is not there.
        keys: What tells runs apart.
    """
    old = read_rows(path) if path.exists() else []
    kept = [row for row in old if any(row.get(key) != rows[0].get(key) for key in keys)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *rows]))


def main() -> int:
    """Draws the tables of all documents in the working folder's docs."""
    for path in sorted(Path("docs").glob("benchmarks*.md")):
        path.write_text(drawn(path.read_text(), Path()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
