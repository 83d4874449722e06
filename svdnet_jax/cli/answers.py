"""What `svdnet search` finds, as people and programs read it: text, CSV and JSON."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from svdnet_jax.reporting.terminal import as_cell
from svdnet_jax.retrieval.doubts import NEAR
from svdnet_jax.retrieval.duplicates import Pairs
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import Index, search
from svdnet_jax.retrieval.people import People, called
from svdnet_jax.safe_writing import is_csv, write_whole

COLUMNS = ("name", "pid", "camera", "distance", "row")
HEAD = ("query", "rank", *COLUMNS)
"""First line of a CSV of answers; `PERSON` comes after it where identities are texts."""
PERSON = "person"
"""What an identity is called."""
PAIR_HEAD = ("name", "other", "distance", "row", "other_row")
"""First line of a CSV of pairs."""
UNKNOWN = "unknown"
"""In place of the pid -1, which is that of junk and of images that nobody has named."""
Answer = dict[str, Any]
"""A query's name, and under `nearest` its images by `COLUMNS`; the pid of an unknown person is None."""


def nearest(
    index: Index, query: Embeddings, k: int, *, exclude_self: bool = False, max_distance: float = np.inf
) -> list[Answer]:
    """Returns the k nearest images of each query, with what the gallery says of them; fewer where there are.

    Args:
        index: What to search in.
        query: What to search for.
        k: From 1 to the images of the index.
        exclude_self: Whether to pass over images that have the query's name.
        max_distance: Farthest image that is an answer.

    Raises:
        ValueError: What `search` refuses.
    """
    gallery = index.gallery
    n = len(gallery.pids)
    _, number, counts = np.unique(gallery.names, return_inverse=True, return_counts=True)
    own = counts[number][np.isin(gallery.names, query.names)].max(initial=0) if exclude_self else 0
    found = search(index, query, k + min(int(own), max(n - k, 0)))
    answers = []
    for name, rows, distances in zip(query.names.tolist(), found.rows, found.distances, strict=True):
        some = (rows >= 0) & (distances <= max_distance)
        if exclude_self:
            some &= gallery.names[rows] != name
        rows, distances = rows[some][:k], distances[some][:k]
        columns = (gallery.names[rows], gallery.pids[rows], gallery.cameras[rows], distances, rows)
        lines = zip(*(column.tolist() for column in columns), strict=True)
        images = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        answers.append({"query": name, "nearest": [_known(image, gallery.people) for image in images]})
    return answers


def _known(image: dict[str, Any], people: People) -> dict[str, Any]:
    pid = image["pid"] if image["pid"] >= 0 else None
    named = {PERSON: None if pid is None else called(people, pid)} if people else {}
    return image | {"pid": pid} | named


def copies_note(answers: Sequence[Answer]) -> str:
    """Returns what to know where queries have found themselves; empty if none has."""
    copies = sum(_is_copy([image["distance"] for image in answer["nearest"]]) for answer in answers)
    return (
        f"note: the nearest image of {copies} of {len(answers)} queries has the feature of the query: where it is the "
        "same image, the query has found itself (--exclude-self passes over images of its name)."
        if copies
        else ""
    )


def _is_copy(distances: Sequence[float]) -> bool:
    return len(distances) > 0 and (distances[0] == 0 or distances[0] < NEAR * distances[-1])


def table(answer: Answer) -> str:
    """Returns a query's name and its images, a line each."""
    people = [person(image) for image in answer["nearest"]]
    wide = max([len(UNKNOWN), *map(len, people)])
    lines = [f"{answer['query']}", f"  {'rank':>4}  {'distance':>10}  {'pid':>{wide}}  {'camera':>6}  name"]
    for rank, (image, who) in enumerate(zip(answer["nearest"], people, strict=True), start=1):
        numbers = f"{rank:>4}  {image['distance']:>10.4f}  {who:>{wide}}  {image['camera']:>6}"
        lines.append(f"  {numbers}  {image['name']}")
    return "\n".join(lines if answer["nearest"] else [*lines[:1], "  nothing so near"]) + "\n"


def person(image: dict[str, Any]) -> str:
    """Returns what the identity of an answer is called."""
    return UNKNOWN if image["pid"] is None else str(image.get(PERSON, image["pid"]))


def _pid(image: dict[str, Any]) -> str:
    return UNKNOWN if image["pid"] is None else str(image["pid"])


def is_answers(path: Path) -> bool:
    """Returns whether a file is a CSV of answers."""
    return is_csv(HEAD)(path) or is_csv((*HEAD, PERSON))(path)


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Writes answers as CSV."""
    images = [(answer["query"], *each) for answer in answers for each in enumerate(answer["nearest"], start=1)]
    named = any(PERSON in image for _, _, image in images)
    rows = (
        (
            *(as_cell(query), rank, as_cell(image["name"]), _pid(image), *(image[name] for name in COLUMNS[2:])),
            *([as_cell(person(image))] if named else []),
        )
        for query, rank, image in images
    )
    _write(path, (*HEAD, PERSON) if named else HEAD, rows)


def pair_rows(pairs: Pairs, names: np.ndarray) -> list[dict[str, Any]]:
    """Returns pairs of images by `PAIR_HEAD`."""
    columns = (names[pairs.first], names[pairs.second], pairs.distances, pairs.first, pairs.second)
    lines = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(PAIR_HEAD, line, strict=True)) for line in lines]


def pair_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns pairs, a line each."""
    head = f"{'distance':>10}  names"
    return "\n".join([head, *(f"{row['distance']:>10.4g}  {row['name']}  {row['other']}" for row in rows)])


def write_pairs(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes pairs as CSV."""
    _write(path, PAIR_HEAD, ((as_cell(row["name"]), as_cell(row["other"]), *[*row.values()][2:]) for row in rows))


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    # A name that is no text, for a file system takes any bytes, is in a CSV as it is printed.
    text = StringIO(newline="")
    csv.writer(text).writerows([head, *rows])
    write_whole(path, text.getvalue().encode())
