"""The tables of a benchmark, from its rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEAD = """| {title} | seconds | first call | ratio | memory, MB | found |
|---|---|---|---|---|---|"""


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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows as a benchmark keeps them, one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]
