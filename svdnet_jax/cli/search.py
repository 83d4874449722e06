"""The nearest images of a gallery: builds an index, saves it, and asks it.

    svdnet search --gallery g.npz --index people.npz --kind hnsw    builds an index and saves it
    svdnet search --index people.npz --query q.npz --k 10           asks it for the nearest
    svdnet search --gallery g.npz --query q.npz --k 10              the same without a file of an index
    svdnet search --index people.npz --query q.npz --out nearest.csv --json

Query and gallery are files of embeddings, as a run writes them (embeddings/) and svdnet embed makes them of a
folder of images; both must be of one model. Nothing is left out of an answer, whatever identities and cameras say;
svdnet evaluate is for measuring. Prints the nearest images of the first 20 queries with rank, distance, pid,
camera and name; --out gives all as CSV (query, rank, name, pid, camera, distance, row), and --json as one object
{"results": [{"query": name, "nearest": [{"name", "pid", "camera", "distance", "row"}, ...]}, ...]}, row being that of
the gallery's file.

Kind exact needs nothing more than this package. The others need FAISS (pip install 'svdnet-jax[faiss]'), but for
approx, which is exact where there is no TPU. For Market-1501's gallery (19 732 images, D = 1024, drawn features) on two
CPU cores, the time to build, the time for 3 368 queries, and the share of the ten nearest that is found: exact 0.1 s,
1 s, all; ivf 2 s, 1 s, 0.99; hnsw 9 s, 1 s, 1.00; pq 7 s, 2 s, 0.90 in a file of 6 MB instead of 83. A single query
takes about 1.3 s with any of them, nearly all of it for starting up; in a process that stays, exact takes 3 ms and
these three 1 ms or less.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import tyro

from svdnet_jax.cli.exits import fail, fail_on
from svdnet_jax.errors import ConfigError
from svdnet_jax.outputs import is_csv, is_npz, refuse_overwrite, write_whole
from svdnet_jax.reporting.terminal import as_cell, say, terminal
from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.doubts import NEAR
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.foreign import load_embeddings
from svdnet_jax.retrieval.index import Index, Kind, build_index, load_index, save_index, search

CHOICE = "give --gallery with --index, --query or both, or --index with --query"
SHOWN = 20
"""Queries whose answers are printed."""
COLUMNS = ("name", "pid", "camera", "distance", "row")
HEAD = ("query", "rank", *COLUMNS)
"""First line of a CSV."""
IS_INDEX = is_npz("kind", "metric", "pids", "cameras", "names")
"""Whether a file is an index."""
Answer = dict[str, Any]
"""A query's name, and under `nearest` its images by `COLUMNS`."""


@dataclass(frozen=True)
class Options:
    """What to search in, and for what."""

    gallery: Path | None = None
    """Embeddings to build an index of: .npz, .npy, .mat or .pt."""
    index: Path | None = None
    """File of an index: written if there is a gallery, read if not."""
    query: Path | None = None
    """Embeddings of the images to search for, likewise."""
    k: int | None = None
    """Images to find for each query, at most all there are. Not given: 10, or all of a smaller gallery."""
    kind: Kind | None = None
    """How a new index searches: exact, approx (on a TPU), or by FAISS: flat (exact), ivf (clusters), hnsw (a graph) or
    pq (a byte for every few dimensions). Not given: exact."""
    metric: Metric | None = None
    """Distance of a new index; cosine is 1 - cosine similarity. Not given: euclidean."""
    options: dict[str, int] = field(default_factory=dict)
    """What FAISS is to do other than by the gallery's size: nlist and nprobe of ivf; m, ef_construction and ef_search
    of hnsw; subquantisers of pq. Names and numbers in turn: --options nlist 64 nprobe 8."""
    out: Path | None = None
    """File for all results as CSV. An older one of ours is replaced; any other file stays, and the command stops."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all results as one JSON object, and nothing else."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet search") -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    try:
        _check(options)
        index = _index(options)
        if options.query:
            _answer(index, options)
    except (OSError, ValueError, MemoryError) as error:
        return fail_on(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    return 0


def _check(options: Options) -> None:
    """Refuses before any work what does not go together."""
    if sum(given is not None for given in (options.gallery, options.index, options.query)) < 2:
        raise ConfigError(CHOICE)
    read = [path for path in (options.gallery, options.query) if path]
    if options.index and options.gallery:
        refuse_overwrite("--index", options.index, IS_INDEX, read)
    if options.out:
        refuse_overwrite("--out", options.out, is_csv(HEAD), [*read, options.index])
    if options.query is None and (options.json or options.out):
        raise ConfigError("--json and --out are for results; give --query")
    if options.gallery is None and (options.kind or options.metric or options.options):
        raise ConfigError(
            "--kind, --metric and --options are for a new index, and an index that is read has its own; give --gallery "
            "to build one"
        )


def _index(options: Options) -> Index:
    """Returns the index that was asked for: read, or built and, if it has a name, saved."""
    if options.gallery is None:
        return load_index(options.index or "")
    gallery = load_embeddings(options.gallery, "gallery")
    index = build_index(gallery, options.kind or "exact", options.metric or "euclidean", options.options)
    if options.index:
        save_index(index, options.index)
        model = f"of the model {gallery.model}" if gallery.model else "of an unknown model"
        line = f"{options.index}: {len(gallery.pids)} images {model}, kind {index.kind}, {index.metric} distance"
        say(terminal(stderr=options.json), line)
    return index


def _answer(index: Index, options: Options) -> None:
    """Searches, and prints the results in the forms that were asked for."""
    query = load_embeddings(options.query or "", "query")
    answers = nearest(index, query, min(10, len(index.gallery.pids)) if options.k is None else options.k)
    if copies := sum(_is_copy([image["distance"] for image in answer["nearest"]]) for answer in answers):
        say(
            terminal(stderr=True),
            f"note: the nearest image of {copies} of {len(answers)} queries has the feature of the query: where it is "
            "the same image, the query has found itself.",
        )
    if options.out:
        _write(options.out, answers)
    console = terminal()
    if options.json:
        say(console, json.dumps({"results": answers}))
        return
    for answer in answers[:SHOWN]:
        say(console, _table(answer))
    if len(answers) > SHOWN:
        say(console, f"These are the first {SHOWN} of {len(answers)} queries; --out FILE and --json give all.")


def nearest(index: Index, query: Embeddings, k: int) -> list[Answer]:
    """Returns the k nearest images of each query, with what the gallery says of them; fewer where there are.

    Raises:
        ValueError: What `search` refuses.
    """
    neighbors, gallery = search(index, query, k), index.gallery
    answers = []
    for name, rows, distances in zip(query.names.tolist(), neighbors.rows, neighbors.distances, strict=True):
        some = rows >= 0
        rows, distances = rows[some], distances[some]
        columns = (gallery.names[rows], gallery.pids[rows], gallery.cameras[rows], distances, rows)
        lines = zip(*(column.tolist() for column in columns), strict=True)
        answers.append({"query": name, "nearest": [dict(zip(COLUMNS, line, strict=True)) for line in lines]})
    return answers


def _is_copy(distances: Sequence[float]) -> bool:
    return len(distances) > 0 and (distances[0] == 0 or distances[0] < NEAR * distances[-1])


def _table(answer: Answer) -> str:
    """Returns a query's name and its images, a line each."""
    lines = [f"{answer['query']}", f"  {'rank':>4}  {'distance':>10}  {'pid':>6}  {'camera':>6}  name"]
    for rank, image in enumerate(answer["nearest"], start=1):
        numbers = f"{rank:>4}  {image['distance']:>10.4f}  {image['pid']:>6}  {image['camera']:>6}"
        lines.append(f"  {numbers}  {image['name']}")
    return "\n".join(lines) + "\n"


def _write(path: Path, answers: Sequence[Answer]) -> None:
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(HEAD)
    for answer in answers:
        for rank, image in enumerate(answer["nearest"], start=1):
            # A name that is no text, for a file system takes any bytes, is in a CSV as it is printed.
            name, *numbers = (image[column] for column in COLUMNS)
            table.writerow((as_cell(answer["query"]), rank, as_cell(name), *numbers))
    write_whole(path, text.getvalue().encode())
