"""FAISS wrapper: build, search, serialize, deserialize.

FAISS (Douze et al. 2024, arXiv:2401.08281; package `faiss-cpu`) is imported when it is needed. How an index is made
follows from the gallery's size (N images, D dimensions), by the rules of FAISS's own guide; `options` changes single
numbers:

- flat: every feature, compared with every query. No options.
- ivf: features in `nlist` = 4 sqrt(N) clusters, at most N / 39 so that k-means has as many features per cluster as
  FAISS asks for; a query is compared with the `nprobe` = max(8, nlist / 16) clusters nearest to it.
- hnsw: a graph of near features (Malkov and Yashunin 2016) with `m` = 32 links each, made with `ef_construction` = 80
  and walked with `ef_search` = 128 candidates.
- pq: features cut into `subquantisers` parts, each replaced by the nearest of 256 (Jegou et al. 2011), one byte a part.
  A part has the fewest dimensions from 8 on that divide D (with 4 the index finds more, and at D = 1024 takes
  eighteen times as long to make). Every image is compared, by distances that are approximate too.

All of it is deterministic: k-means has a fixed seed, and a graph is made by one thread.
"""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from svdnet_jax.retrieval.direct import lengths, parts

FaissKind = Literal["flat", "ivf", "hnsw", "pq"]

LEAST: Mapping[str, int] = MappingProxyType({"flat": 1, "ivf": 624, "hnsw": 1, "pq": 256})
"""The smallest galleries: 16 clusters of 39 images, and as many images as a byte has values."""
LOWEST: Mapping[str, int] = MappingProxyType({"m": 2})
"""What options must be at least, where 1 is too little: with one link FAISS crashes."""
HIGHEST: Mapping[str, int] = MappingProxyType({"m": 512, "ef_construction": 2**16, "ef_search": 2**16})
"""What options may be at most; FAISS allocates by them, whatever the number of images."""
MOST_FETCHED = 2**20
"""Numbers held at a time of features that were found."""
LARGEST_PART = 32
"""Dimensions that one byte can still tell something about."""


def make(features: Float32[np.ndarray, "n d"], kind: FaissKind, options: Mapping[str, int]) -> Any:
    """Returns an index of features by squared Euclidean distance.

    Args:
        features: One row per image.
        kind: See the head of this file.
        options: What to choose other than by its rules.

    Raises:
        ValueError: FAISS is not installed, too few images, no such option or one that cannot work.
    """
    faiss = library()
    n, d = features.shape
    if n < LEAST[kind]:
        raise ValueError(f"kind {kind} needs {LEAST[kind]} images or more, and there are {n}; use exact for so few.")
    chosen = parameters(kind, n, d, options)
    with _refusals(kind, chosen):
        if kind == "flat":
            made = faiss.IndexFlatL2(d)
        elif kind == "ivf":
            made = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, chosen["nlist"])
            made.cp.min_points_per_centroid = 1  # fewer than 39 are wanted where the options say so: no warning
            made.nprobe = chosen["nprobe"]
        elif kind == "hnsw":
            made = faiss.IndexHNSWFlat(d, chosen["m"])
            made.hnsw.efConstruction, made.hnsw.efSearch = chosen["ef_construction"], chosen["ef_search"]
        else:
            made = faiss.IndexPQ(d, chosen["subquantisers"], 8)
            made.pq.cp.min_points_per_centroid = 1  # below 9984 images FAISS would print a line for every part
        features = np.ascontiguousarray(features)
        with _one_thread(faiss) if kind in ("hnsw", "pq") else contextlib.nullcontext():
            made.train(features)
            made.add(features)
    return _fetchable(made)


def parameters(kind: FaissKind, n: int, d: int, options: Mapping[str, int]) -> dict[str, int]:
    """Returns what an index of N images of D dimensions is made with.

    Raises:
        ValueError: No such option, one that is too small, or no way to cut D.
    """
    rules: dict[str, int] = {}
    if kind == "ivf":
        nlist = options.get("nlist", max(1, min(round(4 * n**0.5), n // 39)))
        rules = {"nlist": nlist, "nprobe": max(8, nlist // 16)}
    elif kind == "hnsw":
        rules = {"m": 32, "ef_construction": 80, "ef_search": 128}
    elif kind == "pq":
        part = next(size for size in range(min(8, d), d + 1) if d % size == 0)
        rules = {"subquantisers": d // part}
    # More clusters than images cannot be filled, nor more parts than dimensions.
    bounds = {name: (LOWEST.get(name, 1), HIGHEST.get(name, d if kind == "pq" else n)) for name in rules}
    wrong = [
        f"{name}={value}"
        for name, value in options.items()
        if name not in rules or not bounds[name][0] <= value <= bounds[name][1]
    ]
    if wrong:
        known = ", ".join(f"{name} from {least} to {most}" for name, (least, most) in bounds.items())
        raise ValueError(f"options of kind {kind} are {known or 'none'}; found {', '.join(wrong)}.")
    chosen = rules | dict(options)
    if kind == "pq" and (d % chosen["subquantisers"] or d // chosen["subquantisers"] > LARGEST_PART):
        raise ValueError(
            f"kind pq cuts features of {d} dimensions into {chosen['subquantisers']} parts, which is to be a divisor "
            f"that leaves {LARGEST_PART} dimensions each or fewer; choose subquantisers, or hnsw or ivf."
        )
    return chosen


def look(
    made: Any, features: Float32[np.ndarray, "q d"], k: int
) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
    """Returns the rows of the k nearest, nearest first, and their distances; row -1 and inf where fewer were found.

    Distances are to the features as the index holds them, which pq rounds. FAISS's own are roots of differences of
    squares, and not zero between equal features.

    Args:
        made: From `make`.
        features: Of the queries.
        k: At most N.
    """
    features = np.ascontiguousarray(features)
    _, rows = made.search(features, k)
    distances = np.full(rows.shape, np.inf)
    for part in parts(len(rows), MOST_FETCHED // (k * made.d)):
        row, column = np.nonzero(rows[part] >= 0)
        held = made.reconstruct_batch(rows[part][row, column]) if len(row) else np.empty((0, made.d), np.float32)
        distances[part][row, column] = lengths(np.subtract(features[part][row], held, dtype=np.float64))
    order = np.lexsort((rows, distances))
    return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)


def to_bytes(made: Any) -> UInt8[np.ndarray, " b"]:
    """Returns an index as FAISS writes it."""
    return library().serialize_index(made)


def from_bytes(content: UInt8[np.ndarray, " b"]) -> Any:
    """Returns the index again. FAISS trusts what it reads: only for bytes that are known to be its own.

    Raises:
        ValueError: FAISS is not installed, cannot read them, or they ask for absurdly wide searches.
    """
    faiss = library()
    try:
        made = faiss.deserialize_index(content)
        _check_width(made)
        return _fetchable(made)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"FAISS {faiss.__version__} cannot read its index ({_reason(error)}); build it anew."
        ) from error


def _check_width(made: Any) -> None:
    """Refuses an index whose searches would take the machine."""
    widths = {"nprobe": (getattr(made, "nprobe", 0), max(made.ntotal, 8))}
    if hasattr(made, "hnsw"):
        widths["ef_search"] = made.hnsw.efSearch, HIGHEST["ef_search"]
    for name, (width, most) in widths.items():
        if width > most:
            raise ValueError(f"the index has {name} {width}; expected {most} or less. Build it anew.")


def _fetchable(made: Any) -> Any:
    """Returns the index, which can say what it holds of an image: ivf then knows each image's place in its clusters."""
    if hasattr(made, "make_direct_map"):
        made.make_direct_map()
    return made


def library() -> Any:
    """Imports FAISS.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError(
            "kinds flat, ivf, hnsw and pq need FAISS: pip install 'svdnet-jax[faiss]'; exact needs nothing more."
        ) from error


@contextlib.contextmanager
def _refusals(kind: str, chosen: Mapping[str, int]) -> Iterator[None]:
    """Returns what FAISS refuses, as an error for people."""
    try:
        yield
    except RuntimeError as error:
        used = ", ".join(f"{name}={value}" for name, value in chosen.items())
        raise ValueError(f"FAISS cannot make kind {kind} with {used}: {_reason(error)}.") from error


def _reason(error: BaseException) -> str:
    """Returns the last line that FAISS says, without the place in its code."""
    return str(error).strip().rpartition("\n")[2].rpartition(": ")[2].rstrip(".")


@contextlib.contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Limits FAISS to one thread: several would link a graph in the order in which they happen to come.

    For pq's many small k-means a second thread saves a third of the time on an idle machine; on a busy one, where each
    waits for the other, it takes six times as long.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
