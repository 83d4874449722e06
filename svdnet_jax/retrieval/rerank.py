"""k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, CVPR 2017) in memory O(N k1) instead of O(N^2).

Query and gallery together are N images. Two of them are k-reciprocal neighbours if each is among the first k of the
other's ranking. An image is described by a sparse vector over its expanded set of such neighbours, weighted by
exp(-distance) and averaged over its k2 nearest images; images are compared by the Jaccard distance of these vectors,
mixed with the original distance:

    d* = (1 - weight) d_J + weight d^2 / (largest d^2 of the query)

Conventions of the authors' code, which decide the numbers: "the first k" are k + 1 images, as each image stands in
its own ranking, nearly always first; the expansion looks at half of k1, rounded to even, plus 1; the query expansion
averages k2 images, the image itself among them; distances are squared and divided by the largest of their row. Junk
takes part, as there, and is left out of the ranking afterwards; toolkits whose loaders drop it first differ by that.

The vectors are sparse, and only the k1 + 1 nearest images of each are ever looked up, so nothing of size N x N is
held. The cost is the neighbour search, O(N^2 D).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, Int, Int32, Int64

from svdnet_jax.retrieval.alike import first_copies
from svdnet_jax.retrieval.all_pairs import as_queries, nearest_of_all
from svdnet_jax.retrieval.distances import Metric, Points, Prepared, prepare, too_close
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.neighbors import Nearest, in_double

if TYPE_CHECKING:
    from scipy import sparse


BLOCK = 2**18
"""Neighbours' neighbours looked at together."""
PAIRS = 2**13
"""Pairs of images whose distance is computed together."""


MOST_NEIGHBORS = 1000
"""Of an image; its authors take 20, and memory grows with images times neighbors."""


@dataclass(frozen=True)
class Rerank:
    """Settings of k-reciprocal re-ranking; the defaults are the paper's for Market-1501.

    Raises:
        ValueError: A k below 1, or a weight outside [0, 1].
    """

    k1: int = 20
    """Neighbours that must be reciprocal."""
    k2: int = 6
    """Images that the query expansion averages; 1 for none."""
    weight: float = 0.3
    """Weight of the original distance, the paper's lambda."""

    def __post_init__(self) -> None:
        if not (1 <= self.k1 <= MOST_NEIGHBORS and 1 <= self.k2 <= MOST_NEIGHBORS):
            raise ValueError(
                f"re-ranking needs `k1` and `k2` of at least 1 and at most {MOST_NEIGHBORS}; found {self.k1} and "
                f"{self.k2}."
            )
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight of the original distance must be in [0, 1]; found {self.weight}.")


class JaccardTerm(NamedTuple):
    """The distance d* as far as it orders the gallery of a query: offsets, less what the vectors take off."""

    ready: Points
    """Each query scaled so that its offsets count as in d*."""
    subtract: Callable[[Int[np.ndarray, " b"]], Float32[np.ndarray, "b g"]]
    """From rows of `ready.query` to what comes off their offsets."""


def rerank_scores(
    ready: Points,
    query: Embeddings,
    query_rows: Int[np.ndarray, " v"],
    gallery: Embeddings,
    gallery_rows: Int[np.ndarray, " g"],
    metric: Metric,
    settings: Rerank,
) -> JaccardTerm:
    """Re-ranks all of query and gallery, for some rows of them.

    Args:
        ready: `points` of these rows.
        query: The query images.
        query_rows: Those whose rankings are wanted.
        gallery: The gallery images, junk included.
        gallery_rows: Those to rank.
        metric: That of the original distance; under cosine it is that of features of length 1.
        settings: Of the re-ranking.
    """
    vectors, farthest = reciprocal(query, gallery, metric, settings)
    q, width = len(query.pids), len(gallery_rows)
    mine, holders = vectors[:q][query_rows], vectors[q:][gallery_rows].T.tocsr()
    factor = settings.weight / (farthest[query_rows] * ready.scale**2)

    def subtract(rows: Int[np.ndarray, " b"]) -> Float32[np.ndarray, "b g"]:
        # float32 here: half the way to a device, and the same numbers where JAX is told to keep float64.
        shared = _shared(mine[rows], holders).astype(np.float32).reshape(len(rows), width)
        shared /= 2 - shared
        shared *= np.float32(1 - settings.weight)
        return shared

    return JaccardTerm(ready._replace(query=ready.query * factor.astype(np.float32)[:, None]), subtract)


def reciprocal(
    query: Embeddings, gallery: Embeddings, metric: Metric, settings: Rerank
) -> tuple["sparse.csr_array", Float64[np.ndarray, " n"]]:
    """Returns the vectors of all images, those of the query first.

    Args:
        query: Q images.
        gallery: G images, junk included.
        metric: That of the original distance.
        settings: Of the re-ranking.

    Returns:
        The vectors, (N, N) float32, and each image's largest squared distance.
    """
    from scipy import sparse  # plain evaluation does without it

    n = len(query.pids) + len(gallery.pids)
    nobody = np.zeros(n, np.int64)
    both = Embeddings(np.concatenate([query.features, gallery.features]), nobody, nobody)
    ready = prepare(both, np.arange(n), metric)
    nearest = _neighbors(both, ready, metric, min(max(settings.k1 + 1, settings.k2), n))
    del both
    # The largest is 0 where all images are alike; any number then does.
    farthest = np.maximum(nearest.farthest, np.finfo(np.float32).tiny)
    row, column = _expanded(nearest.rows[:, : settings.k1 + 1], settings.k1)
    squared = np.maximum(_squared_distances(ready.features, nearest, row, column), 0)
    weights = np.exp(-squared / farthest[row])
    total = np.bincount(row, weights, minlength=n)
    vectors = sparse.csr_array(((weights / total[row]).astype(np.float32), (row, column)), shape=(n, n))
    if settings.k2 > 1:
        vectors = _averages(nearest.rows[:, : settings.k2]) @ vectors
    return vectors, farthest / np.float64(ready.scale) ** 2


def _neighbors(images: Embeddings, ready: Prepared, metric: Metric, k: int) -> Nearest:
    """Finds the k nearest of all images to each, again in float64 where these are too near for float32."""
    n = len(ready.features)
    nearest = nearest_of_all(ready.features, more := min(k + 1, n))
    squared = ready.features[:, -2]
    # What is behind the k-th decides whether they are the right k; of equal images any order is right but this one.
    again = np.flatnonzero(too_close(nearest.offsets[:, -1] - squared, squared)) if more > k else np.empty(0, np.int64)
    if again.size:
        exact = prepare(images, np.arange(n), metric, np.float64)
        own = in_double(as_queries(exact.features[again]), exact.features, more)
        nearest.rows[again], nearest.offsets[again] = own.rows, own.offsets
    rows = nearest.rows if ready.alike is None else first_copies(nearest.rows, ready.alike)
    return Nearest(rows[:, :k], nearest.offsets[:, :k], nearest.farthest)


def _shared(mine: "sparse.csr_array", holders: "sparse.csr_array") -> Float64[np.ndarray, " bg"]:
    """Sums over images of the smaller of two weights, of vectors (B, N) with all vectors given by image (N, G)."""
    # Each nonzero of a query meets the gallery images that hold the same image.
    start, length = holders.indptr[mine.indices], np.diff(holders.indptr)[mine.indices]
    owner = np.repeat(np.repeat(np.arange(mine.shape[0]), np.diff(mine.indptr)), length)
    entry = np.arange(length.sum()) + np.repeat(start - (np.cumsum(length) - length), length)
    smaller = np.minimum(np.repeat(mine.data, length), holders.data[entry])
    width = holders.shape[1]
    return np.bincount(owner * width + holders.indices[entry], smaller, minlength=mine.shape[0] * width)


def _expanded(rows: Int32[np.ndarray, "n k"], k1: int) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Returns pairs (image, member of its expanded set of k-reciprocal neighbours), ascending, each once."""
    n, k = rows.shape
    half = min(int(np.around(k1 / 2)) + 1, k)
    size = max(1, min(n, BLOCK // (k * half)))
    # Filled up, so that one program serves all blocks.
    images = np.resize(np.arange(n, dtype=np.int32), n + -n % size).reshape(-1, size)
    ranked = jax.device_put(rows)
    mutual = [_mutual(ranked, ranked[:, :half], block) for block in images]
    close = jnp.concatenate(mutual)[:n]
    keys = []
    for block in images:
        members, kept = jax.device_get(_expand(ranked, ranked[:, :half], close, block))
        keys.append((block[:, None].astype(np.int64) * n + members)[kept])
    pairs = np.unique(np.concatenate(keys))
    return np.divmod(pairs, n)


@jax.jit
def _mutual(ranked: Int32[Array, "n k"], heads: Int32[Array, "n h"], images: Int32[Array, " b"]) -> Bool[Array, "b h"]:
    """Returns which of the first images of some rankings have the image among their own first."""
    return jnp.any(heads[heads[images]] == images[:, None, None], axis=2)


@jax.jit
def _expand(
    ranked: Int32[Array, "n k"], heads: Int32[Array, "n h"], close: Bool[Array, "n h"], images: Int32[Array, " b"]
) -> tuple[Int32[Array, "b m"], Bool[Array, "b m"]]:
    """Returns the k-reciprocal neighbours of some images, and those of neighbours that share most of theirs with them.

    Returns:
        Candidates, some of them more than once, and which of them belong.
    """
    mine = ranked[images]
    mutual = jnp.any(ranked[mine] == images[:, None, None], axis=2)
    members, real = heads[mine], close[mine]
    own = (members[:, :, :, None] == mine[:, None, None, :]) & mutual[:, None, None, :]
    shared = jnp.sum(jnp.any(own, axis=3) & real, axis=2)
    # More than two thirds, in integers.
    taken = mutual & (3 * shared > 2 * jnp.sum(real, axis=2))
    kept = real & taken[:, :, None]
    flat = (len(images), -1)
    return jnp.concatenate([mine, members.reshape(flat)], axis=1), jnp.concatenate([mutual, kept.reshape(flat)], axis=1)


def _squared_distances(
    images: Float32[np.ndarray, "n e"], found: Nearest, row: Int64[np.ndarray, " p"], column: Int64[np.ndarray, " p"]
) -> Float32[np.ndarray, " p"]:
    """Returns squared distances of pairs, most of which the search has found."""
    n = len(images)
    key, known = row * n + column, (np.arange(n)[:, None] * n + found.rows).ravel()
    order = np.argsort(known)
    place = order[np.searchsorted(known, key, sorter=order).clip(max=len(known) - 1)]
    squared = found.offsets.ravel()[place]
    unknown = np.flatnonzero(known[place] != key)
    for begin in range(0, len(unknown), PAIRS):
        part = unknown[begin : begin + PAIRS]
        # But for the last two columns, which are not features.
        between = images[row[part], :-2] - images[column[part], :-2]
        squared[part] = np.einsum("pd,pd->p", between, between)
    return squared


def _averages(rows: Int32[np.ndarray, "n k"]) -> "sparse.csr_array":
    """Returns the matrix that averages the given rows of another, (N, N)."""
    from scipy import sparse

    n, k = rows.shape
    shares = np.full(rows.size, 1 / k, np.float32)
    return sparse.csr_array((shares, rows.ravel(), np.arange(0, rows.size + 1, k)), shape=(n, n))
