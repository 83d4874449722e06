"""The table of a benchmark, from its rows."""

from collections.abc import Mapping, Sequence
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
