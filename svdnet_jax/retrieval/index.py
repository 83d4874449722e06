"""Search in a gallery that stays: an index is built once, saved in one file, and asked for the nearest images.

An index is of images, not of identities: whose they are may be unknown, so junk (pid -1) and distractors are found like
any other image, and nothing is left out by cameras. (`metrics.evaluate` is for measuring, where both are.)

Kinds `exact` and `approx` need nothing more than this package, and keep the features. `approx` may miss one in twenty
of the true neighbours on a TPU, which has hardware for that, and is the same as `exact` elsewhere. `flat` (exact),
`ivf`, `hnsw` and `pq` are FAISS's; `faiss_index` says how they are made.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import numpy as np
from jaxtyping import Array, Float32, Float64, Int64, UInt8

from svdnet_jax.arrays import read_arrays
from svdnet_jax.retrieval import faiss_index
from svdnet_jax.retrieval.alike import first_copies
from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.distances import Metric, Prepared, narrow, points, prepare, prepare_query, too_close
from svdnet_jax.retrieval.embeddings import Embeddings, as_text, with_people, write_arrays
from svdnet_jax.retrieval.faiss_index import FaissKind
from svdnet_jax.retrieval.neighbors import in_double, nearest, placed
from svdnet_jax.retrieval.people import as_array

Kind = Literal["exact", "approx", "flat", "ivf", "hnsw", "pq"]

RECALL = 0.95
"""Of kind approx, where the hardware can make use of it."""
DEFAULTS: Mapping[str, int] = MappingProxyType({})
ALWAYS = ("kind", "metric", "model", "pids", "cameras", "names")
"""Arrays of every file."""
KEPT, OF_FAISS = ("features",), ("faiss", "sha256", "scale", "centre")
"""Those of our kinds, and those of FAISS's."""


@dataclass(frozen=True, eq=False)
class Index:
    """A gallery of N images made ready for searches; see `build_index`."""

    kind: Kind
    """How it is searched."""
    metric: Metric
    """Distance that it is searched by."""
    gallery: Embeddings
    """The images that can be found, with the model that all queries must be of. Features (N, D) as they were given for
    exact and approx, (N, 0) where FAISS holds them."""
    ready: Prepared
    """The gallery's side of all distances, without its rows: what queries are readied by."""
    rows: Float32[np.ndarray | Array, "n e"] | None = None
    """Its rows, on an accelerator where there is one; None where FAISS holds them."""
    faiss: Any = None
    """The index of FAISS, if the kind is one of its."""


@dataclass(frozen=True, eq=False)
class Found:
    """The k nearest images of each query, nearest first."""

    rows: Int64[np.ndarray, "q k"]
    """Rows of the gallery; -1 where FAISS found fewer than k (ivf, when the clusters it looks into hold fewer)."""
    distances: Float64[np.ndarray, "q k"]
    """In the metric's unit: Euclidean distances, or 1 - cosine similarity; inf where the row is -1. From differences of
    the features as they were given, or as FAISS holds them: between equal ones 0."""


def build_index(
    gallery: Embeddings, kind: Kind = "exact", metric: Metric = "euclidean", options: Mapping[str, int] = DEFAULTS
) -> Index:
    """Makes an index of a gallery.

    Args:
        gallery: N images, at least one.
        kind: How to search; see the head of this file.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        options: For FAISS's kinds, what to choose other than by the rules of `faiss_index`.

    Raises:
        ValueError: No images, an unknown kind or metric, a zero feature under cosine, FAISS not installed, or what
            `faiss_index.make` refuses.
    """
    _check_names(kind, metric)
    if not gallery.features.size:
        raise ValueError(f"the gallery has nothing to search in: its features are {gallery.features.shape}.")
    if options and kind not in get_args(FaissKind):
        raise ValueError(f"kind {kind} has no options; found {', '.join(options)}.")
    full = prepare(gallery, np.arange(len(gallery.pids)), metric)
    ready = full._replace(features=full.features[:0].copy())
    if kind in get_args(FaissKind):
        made = faiss_index.make(full.features[:, : len(full.center)], cast(FaissKind, kind), options)
        bare = replace(gallery, features=gallery.features[:, :0].copy())
        return Index(kind, metric, bare, ready, faiss=made)
    return Index(kind, metric, gallery, ready, rows=placed(full.features))


def search(index: Index, query: Embeddings, k: int) -> Found:
    """Finds the k nearest images of each query.

    Of images at equal distance the first in the gallery comes first. (FAISS's kinds may find any of those that are as
    far as the k-th, and look in float32 only.)

    Args:
        index: From `build_index`, or from a file by `load_index`.
        query: Q images; their identities and cameras are not looked at.
        k: From 1 to N.

    Raises:
        ValueError: k out of range, features of another length or another model than the gallery's, or of length zero
            under cosine.

    Examples:
        >>> gallery = Embeddings([[0.0, 0.0], [3.0, 4.0]], pids=[1, 2], cameras=[1, 1], names=["ann.jpg", "ben.jpg"])
        >>> found = search(build_index(gallery), Embeddings([[0.0, 0.0]], pids=[-1], cameras=[0]), k=2)
        >>> print(gallery.names[found.rows], found.distances)
        [['ann.jpg' 'ben.jpg']] [[0. 5.]]
    """
    n, q, ready = len(index.gallery.pids), len(query.pids), index.ready
    d, of_query = len(ready.center), query.features.shape[1]
    _check_model(index.gallery.model, query.model)
    if of_query != d:
        raise ValueError(
            f"query features have {of_query} dimensions and those of the index {d}; both must come from the same "
            "embedding."
        )
    if not 1 <= k <= n:
        raise ValueError(f"`k` must be between 1 and the {n} images of the index; found {k}.")
    if not q:
        return Found(np.empty((q, k), np.int64), np.empty((q, k)))
    if index.rows is not None:
        return _ours(index, index.rows, query, k)
    features, _ = prepare_query(query, np.arange(q), index.metric, ready)
    # The queries are ready to be multiplied, as -2 q; FAISS takes them plain.
    rows, distances = faiss_index.look(index.faiss, features[:, :d] / np.float32(-2), k)
    distances /= ready.scale
    return Found(rows, distances if index.metric == "euclidean" else distances**2 / 2)


def _ours(index: Index, side: Float32[np.ndarray | Array, "n e"], query: Embeddings, k: int) -> Found:
    """Searches by kinds exact and approx."""
    gallery, metric, everyone = index.gallery, index.metric, np.arange(len(query.pids))
    features, squared = prepare_query(query, everyone, metric, index.ready)
    more = min(k + 1, len(gallery.pids))
    best = nearest(features, side, more, recall=RECALL if index.kind == "approx" else 1.0)
    rows = best.rows.astype(np.int64)
    # Whether these are the right k is up to the distance behind them; their own order is settled below.
    again = np.flatnonzero(too_close(best.offsets[:, -1], squared)) if more > k else everyone[:0]
    if again.size:
        exact = points(query, again, gallery, np.arange(len(gallery.pids)), metric, np.float64)
        rows[again] = in_double(exact.query, exact.gallery, more).rows
    if index.ready.alike is not None:
        rows = first_copies(rows, index.ready.alike)
    distances = between(query.features, gallery.features, rows, metric == "cosine")
    order = np.lexsort((rows, distances))[:, :k]
    return Found(np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1))


def save_index(index: Index, path: str | Path) -> None:
    """Writes an index as one `.npz` to exactly this path; a reader never sees half a file.

    It holds names, pids, cameras, model, kind and metric, people where identities are texts, and the features (such a
    file is one of `Embeddings` too) or FAISS's index with its SHA-256, and the scale and centre of the features in it.

    Args:
        index: From `build_index`.
        path: The file; its folder is made if needed, an older file is replaced.

    Raises:
        OSError: The file cannot be written.
    """
    gallery = index.gallery
    arrays = {name: np.array(value) for name, value in (("kind", index.kind), ("metric", index.metric))}
    arrays |= {name: np.asarray(getattr(gallery, name)) for name in ("model", "pids", "cameras", "names")}
    arrays |= {"people": as_array(gallery.people, gallery.pids)} if gallery.people else {}
    if index.rows is not None:
        arrays["features"] = gallery.features
    else:
        arrays["faiss"] = faiss_index.to_bytes(index.faiss)
        arrays["sha256"] = np.array(_sha256(arrays["faiss"]))
        arrays |= {"scale": np.array(index.ready.scale), "centre": index.ready.center.astype(np.float64)}
    write_arrays(Path(path), arrays)


def load_index(path: str | Path) -> Index:
    """Reads what `save_index` wrote.

    FAISS's part is read only if its SHA-256 is right. That guards against damage and not against malice, as whoever
    changes the one can change the other, and FAISS trusts what it reads: build an index from an untrusted source anew,
    from its embeddings.

    Args:
        path: The file.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no index, is damaged, or needs FAISS, which is not installed; the message names the file.
    """
    path = Path(path)
    arrays = read_arrays(path, (*ALWAYS, "people", *KEPT, *OF_FAISS), "an index as `svdnet search` saves it")
    try:
        return _index(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _index(arrays: Mapping[str, np.ndarray]) -> Index:
    """Returns an index from the arrays of its file."""
    missing = [name for name in ALWAYS if name not in arrays]
    if missing:
        raise ValueError(
            f"no array {', '.join(missing)}, so this is no index; expected one as `svdnet search` saves it from a "
            "gallery of embeddings, given as `gallery` and `index`."
        )
    kind, metric, model = (as_text(name, arrays[name]) for name in ("kind", "metric", "model"))
    _check_names(kind, metric)
    theirs = kind in get_args(FaissKind)
    missing = [name for name in (OF_FAISS if theirs else KEPT) if name not in arrays]
    if missing:
        raise ValueError(f"no array {', '.join(missing)}, which an index of kind {kind} has; build it anew.")
    features = np.empty((arrays["names"].size, 0), np.float32) if theirs else arrays["features"]
    gallery = Embeddings(features, arrays["pids"], arrays["cameras"], arrays["names"], model)
    gallery = with_people(gallery, arrays["people"]) if "people" in arrays else gallery
    if not theirs:
        return build_index(gallery, cast(Kind, kind), cast(Metric, metric))
    made, ready = _whole(arrays, len(features))
    return Index(cast(Kind, kind), cast(Metric, metric), gallery, ready, faiss=made)


def _whole(arrays: Mapping[str, np.ndarray], n: int) -> tuple[Any, Prepared]:
    """Returns FAISS's index of N images, from bytes that are as they were written, and what readies queries."""
    content, scale, center = (arrays[name] for name in ("faiss", "scale", "centre"))
    if content.dtype != np.uint8 or content.ndim != 1 or _sha256(content) != as_text("sha256", arrays["sha256"]):
        raise ValueError("the index of FAISS is not what was written (its SHA-256 differs); build it anew.")
    made = faiss_index.from_bytes(content)
    actual = (made.ntotal, scale.shape, center.shape, scale.dtype, center.dtype)
    expected = (n, (), (made.d,), np.dtype(np.float64), np.dtype(np.float64))
    if actual[:-1] != expected[:-1] or center.dtype not in (np.float32, np.float64):
        raise ValueError(
            "the arrays do not belong together: images, and shapes and types of scale and centre, are "
            f"{', '.join(map(str, actual))}; expected {', '.join(map(str, expected))}. Build the index anew."
        )
    return made, Prepared(np.empty((0, 0), np.float32), float(scale), narrow(center), None)


def _sha256(content: UInt8[np.ndarray, " b"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(content).data).hexdigest()


def _check_names(kind: str, metric: str) -> None:
    for name, value, known in (("kind", kind, get_args(Kind)), ("metric", metric, get_args(Metric))):
        if value not in known:
            raise ValueError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}; found {value!r}.")


def _check_model(gallery: str, query: str) -> None:
    """Refuses another model; stricter than `check_same_model`, as a saved index no longer says where it is from."""
    if query == gallery:
        return
    theirs, ours = (f"of the model {model}" if model else "of an unknown model" for model in (gallery, query))
    if query and gallery:
        remedy = "Embed the queries with the model of the index"
    elif gallery:
        remedy = (
            "Embed the queries with the model of the index (`svdnet embed` and `svdnet evaluate` write "
            f"down which one it was), or, where that is certain, load them and give Embeddings model={gallery!r}"
        )
    else:
        remedy = "Build the index from embeddings that say of which model they are"
    raise ValueError(
        f"the index is {theirs} and the query {ours}; distances between features of different models mean nothing. "
        f"{remedy}."
    )
