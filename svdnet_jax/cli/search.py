"""The nearest images of a gallery: builds an index, saves it, and asks it.

    svdnet search --gallery g.npz --index people.npz --kind hnsw    builds an index and saves it
    svdnet search --index people.npz --query q.npz --k 10           asks it for the nearest
    svdnet search --gallery g.npz --query q.npz --k 10              the same without a file of an index
    svdnet search --gallery g.npz --images photo.jpg --run runs/a   embeds what to search for
    svdnet search --gallery g.npz --duplicates 0.01                 pairs of the gallery that are so near
    svdnet search --gallery g.npz --images photo.jpg --run runs/a --figure found.png --pictures my_crops
    svdnet search --index people.npz --query q.npz --out nearest.csv --json

Query and gallery are files of embeddings, as a run writes them (embeddings/), svdnet embed makes them of images, and
other programs save them (docs/evaluation.md); both must be of one model. Nothing is left out of an answer, whatever
identities and cameras say, but by --exclude-self and --max-distance; svdnet evaluate is for measuring. Prints the
nearest images of the first 20 queries with rank, distance, pid, camera and name, the pid -1 as unknown; --out gives all
as CSV (query, rank, name, pid, camera, distance, row), and --json as one object {"results": [{"query": name, "nearest":
[{"name", "pid", "camera", "distance", "row"}, ...]}, ...]}, row being that of the gallery's file, and pid null where
unknown. Where identities are texts, these are printed in place of pids, and are in CSV and JSON as "person".
--duplicates prints, writes and gives {"duplicates": [{"name", "other", "distance", "row", "other_row"}, ...]}.

Kind exact needs nothing more than this package. The others need FAISS (pip install 'svdnet-jax[faiss]'), but for
approx, which is exact where there is no TPU. For Market-1501's gallery (19 732 images, D = 1024, drawn features) on two
CPU cores, the time to build, the time for 3 368 queries, and the share of the ten nearest that is found: exact 0.1 s,
1 s, all; ivf 2 s, 1 s, 0.99; hnsw 9 s, 1 s, 1.00; pq 7 s, 2 s, 0.90 in a file of 6 MB instead of 83. A single query
takes about 1.3 s with any of them, nearly all of it for starting up; in a process that stays, exact takes 3 ms and
these three 1 ms or less.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from svdnet_jax.cli.answers import (
    PAIR_HEAD,
    copies_note,
    is_answers,
    nearest,
    pair_rows,
    pair_table,
    table,
    write_answers,
    write_pairs,
)
from svdnet_jax.cli.exits import fail, fail_on
from svdnet_jax.config.flags import Flag
from svdnet_jax.data.index import ImageRecord
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.duplicates import near_pairs
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.foreign import load_embeddings
from svdnet_jax.retrieval.index import Index, Kind, build_index, load_index, save_index
from svdnet_jax.safe_writing import is_csv, is_figure, is_npz, refuse_overwrite

CHOICE = (
    "give --gallery or --index, and what to do with it: --query, --images or --duplicates; or --gallery with --index, "
    "which makes an index"
)
SHOWN = 20
"""Queries whose answers are printed."""
IS_INDEX = is_npz("kind", "metric", "pids", "cameras", "names")
"""Whether a file is an index."""


@dataclass(frozen=True)
class Options:
    """What to search in, and for what."""

    gallery: Path | None = None
    """Embeddings to build an index of: .npz, .npy, .mat or .pt."""
    index: Path | None = None
    """File of an index: written if there is a gallery, read if not."""
    query: Path | None = None
    """Embeddings of the images to search for, likewise."""
    images: Path | None = None
    """What to search for: an image, a folder, a list (.txt) or a manifest, embedded by --run."""
    run: Path | None = None
    """Folder of the run that embeds --images, which is that of the gallery."""
    outside: Flag = False
    """Read --images that a list or a manifest names outside of its folder."""
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
    exclude_self: Flag = False
    """Pass over images of the gallery that have the query's name."""
    max_distance: float | None = None
    """Farthest image that is an answer, in the metric's unit. Not given: any distance."""
    duplicates: float | None = None
    """List the pairs of the gallery that are at most so far apart; 0: those of equal features."""
    figure: Path | None = None
    """Picture (.png) of the first 8 queries and the 10 nearest images of each."""
    pictures: Path | None = None
    """Folder for --figure: the images lie there or in folders in it, by their paths or their names."""
    out: Path | None = None
    """File for all results as CSV. An older one of ours is replaced; any other file stays, and the command stops."""
    json: Flag = False
    """Print all results as one JSON object, and nothing else."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet search") -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    try:
        _check(options)
        index = _index(options)
        if options.duplicates is not None:
            _duplicates(index, options)
        if options.query or options.images:
            _answer(index, options)
    except (OSError, ValueError, MemoryError) as error:
        return fail_on(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    return 0


def _check(options: Options) -> None:
    """Refuses before any work what does not go together."""
    asked = [name for name in ("query", "images", "duplicates") if getattr(options, name) is not None]
    if not (options.gallery or options.index) or not (asked or (options.gallery and options.index)):
        raise ConfigError(CHOICE)
    if len(asked) > 1:
        raise ConfigError(f"--{' and --'.join(asked)} are different questions; ask one at a time")
    if (options.images is None) != (options.run is None) or (options.outside and not options.images):
        raise ConfigError("--images, --run and --outside go together: the run embeds the images to search for")
    _check_outputs(options)
    if not asked and (options.json or options.out):
        raise ConfigError("--json and --out are for results; give --query, --images or --duplicates")
    of_searches = (options.k, options.max_distance, options.figure, options.exclude_self or None)
    if asked in ([], ["duplicates"]) and any(given is not None for given in of_searches):
        raise ConfigError("--k, --exclude-self, --max-distance and --figure are for searches; give --query or --images")
    if (options.figure is None) != (options.pictures is None):
        raise ConfigError("--figure and --pictures go together: the picture, and the folder where the images lie")
    if options.pictures and not options.pictures.is_dir():
        raise ConfigError(f"--pictures {options.pictures}: is no folder; give that of the images")
    if options.max_distance is not None and not 0 <= options.max_distance < float("inf"):
        raise ConfigError(f"--max-distance {options.max_distance}: must be a distance of 0 or more")
    if options.gallery is None and (options.kind or options.metric or options.options):
        raise ConfigError(
            "--kind, --metric and --options are for a new index, and an index that is read has its own; give --gallery "
            "to build one"
        )


def _check_outputs(options: Options) -> None:
    """Refuses to write over what is read, or what is not ours."""
    read = [path for path in (options.gallery, options.query, options.images) if path]
    if options.index and options.gallery:
        refuse_overwrite("--index", options.index, IS_INDEX, read)
    if options.out:
        ours = is_answers if options.duplicates is None else is_csv(PAIR_HEAD)
        refuse_overwrite("--out", options.out, ours, [*read, options.index])
    if options.figure:
        refuse_overwrite("--figure", options.figure, is_figure, [*read, options.index, options.out])


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
    query, crops = (load_embeddings(options.query, "query"), ()) if options.query else _embedded(index, options)
    farthest = float("inf") if options.max_distance is None else options.max_distance
    k = min(10, len(index.gallery.pids)) if options.k is None else options.k
    answers = nearest(index, query, k, exclude_self=options.exclude_self, max_distance=farthest)
    errors = terminal(stderr=True)
    if note := copies_note(answers):
        say(errors, note)
    if options.exclude_self and not set(query.names.tolist()) & set(index.gallery.names.tolist()):
        say(errors, "note: --exclude-self passed over nothing: no image of the gallery has the name of a query.")
    if options.figure and options.pictures:
        # matplotlib takes half a second to import.
        from svdnet_jax.cli.ranked_answers import draw_answers

        draw_answers(options.figure, options.pictures, answers, query, crops)
    if options.out:
        write_answers(options.out, answers)
    console = terminal()
    if options.json:
        say(console, json.dumps({"results": answers}))
        return
    for answer in answers[:SHOWN]:
        say(console, table(answer))
    if len(answers) > SHOWN:
        say(console, f"These are the first {SHOWN} of {len(answers)} queries; --out FILE and --json give all.")
    if options.figure:
        say(console, f"figure: {options.figure}")


def _embedded(index: Index, options: Options) -> tuple[Embeddings, Sequence[ImageRecord]]:
    """Returns embeddings of the images to search for, of the kind that the gallery's are, and their files."""
    # Flax and all that belongs to training, which searches by files can do without.
    from svdnet_jax.data.found import find_images
    from svdnet_jax.runs import inference

    console, model = terminal(stderr=True), index.gallery.model
    found = find_images(options.images or Path(), outside=options.outside)
    embedder = inference.from_run(options.run or Path())
    kinds = [kind for kind, made in embedder.models.items() if made == model]
    if not kinds:
        made = " or ".join(embedder.models.values())
        raise ConfigError(
            f"--run {options.run}: embeds as the model {made}, and the gallery is of {model or 'an unknown model'}; "
            "distances between features of different models mean nothing. Embed the gallery by the same run"
        )
    for line in found.remarks():
        say(console, line)
    return inference.embed_images(embedder, found.crops, kinds[0], console, found.people), found.crops


def _duplicates(index: Index, options: Options) -> None:
    """Lists pairs of the gallery."""
    gallery = index.gallery
    if not gallery.features.shape[1]:
        raise ConfigError(f"--duplicates: an index of kind {index.kind} holds no features; give --gallery without it")
    rows = pair_rows(near_pairs(gallery, options.duplicates or 0.0, index.metric), gallery.names)
    if options.out:
        write_pairs(options.out, rows)
    console = terminal()
    if options.json:
        say(console, json.dumps({"duplicates": rows}))
        return
    say(console, f"{len(rows)} pairs of {len(gallery.pids)} images are at most {options.duplicates:g} apart")
    if rows:
        say(console, pair_table(rows[:SHOWN]))
    if len(rows) > SHOWN:
        say(console, f"These are the first {SHOWN}; --out FILE and --json give all.")
