"""Exact nearest neighbours by blocks: the first k of a ranking without the ranking.

On an accelerator one program multiplies a block of queries with the gallery, takes the least offset of every
group of 64 gallery images, and sorts only the members of the k groups whose least offset is least: whatever is
among the first k is in one of these. On a CPU, where XLA's product takes a tenth longer than that of numpy's BLAS
numpy multiplies, and of the groups only those are looked into whose least offset is below the k-th best so far.

Either way the cost is the product, O(Q G D), and one pass over the offsets; memory is a block of offsets at a
time, whatever Q and G. Of equal offsets the image that comes first in the gallery wins, as in `evaluate`.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, Int64

from svdnet_jax.retrieval.distances import offsets

HOST_ELEMENTS, HOST_STEP = 2**25, 8192
"""Offsets held at a time on a CPU by each of two threads, 128 MiB; and of how many gallery images, for small k."""
HOST_GROUP, DEVICE_GROUP = 16, 64
"""Gallery images in a group."""
DEVICE_ELEMENTS = 2**27
"""Offsets held at a time on an accelerator, 512 MiB of them."""


class Nearest(NamedTuple):
    """The first k of each query's ranking, nearest first."""

    rows: Int32[np.ndarray, "q k"]
    """Rows of the gallery."""
    offsets: Float32[np.ndarray, "q k"]
    """As `distances.offsets` gives them."""
    farthest: Float32[np.ndarray, " q"]
    """The largest offset of each query; NaN where it was not asked for."""


class Candidates(NamedTuple):
    """Pairs that may belong to the first k."""

    query: Int64[np.ndarray, " n"]
    offset: Float32[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]
    """Ascending for each query."""


def nearest(
    query: Float32[np.ndarray, "q e"],
    gallery: Float32[np.ndarray, "g e"],
    k: int,
    *,
    farthest: bool = False,
    recall: float = 1.0,
) -> Nearest:
    """The k nearest gallery images of each query.

    Args:
        query: `Points.query`.
        gallery: `Points.gallery`.
        k: Neighbours, at most G.
        farthest: Whether to find the largest offsets too, for a fiftieth of the time more.
        recall: Below 1, the expected share of the true neighbours that is enough. On a TPU, which has hardware for
            it, `lax.approx_max_k` then searches; elsewhere that would be a full sort, and the search stays exact.

    Raises:
        ValueError: k is below 1 or above G.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must be between 1 and the gallery's {len(gallery)} images; found {k}.")
    if jax.default_backend() == "cpu":
        return on_host(query, gallery, k, farthest)
    return on_device(query, gallery, k, farthest, recall if jax.default_backend() == "tpu" else 1.0)


def on_host(
    query: Float32[np.ndarray, "q e"], gallery: Float32[np.ndarray, "g e"], k: int, farthest: bool = False
) -> Nearest:
    """`nearest` by numpy."""
    size = max(1, HOST_ELEMENTS // max(HOST_STEP, HOST_GROUP * k))
    parts = np.array_split(query, max(1, -(-len(query) // size)))
    look = _sort if HOST_GROUP * k > len(gallery) else _scan
    # While one thread's product is on all cores, the other selects.
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(partial(look, gallery=gallery, k=k, farthest=farthest), parts))
    return Nearest(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _scan(query: Float32[np.ndarray, "b e"], gallery: Float32[np.ndarray, "g e"], k: int, farthest: bool) -> Nearest:
    """Walks over the gallery and keeps the best k of each query."""
    b, step = len(query), max(HOST_STEP, HOST_GROUP * k)
    # One column a query: BLAS is faster with the longer side first.
    buffer = np.empty((min(step, len(gallery)), b), np.float32)
    best = np.empty((b, 0), np.float32), np.empty((b, 0), np.int32)
    most = np.full(b, -np.inf if farthest else np.nan, np.float32)
    bound = np.full(b, np.inf, np.float32)
    waiting: list[Candidates] = []
    for begin in range(0, len(gallery), step):
        part = gallery[begin : begin + step]
        offset = np.matmul(part, query.T, out=buffer[: len(part)])
        if farthest:
            np.maximum(most, offset.max(axis=0), out=most)
        waiting.append(_candidates(offset, bound, k, begin))
        # Merged when there are as many as would change the bound, not for a few.
        if not begin or 2 * sum(len(each.query) for each in waiting) > b * k or begin + step >= len(gallery):
            best = _merged(best, Candidates(*(np.concatenate(each) for each in zip(*waiting, strict=True))), k)
            bound, waiting = best[0][:, -1], []
    return Nearest(best[1], best[0], most)


def _sort(query: Float32[np.ndarray, "b e"], gallery: Float32[np.ndarray, "g e"], k: int, farthest: bool) -> Nearest:
    """For a k that is much of the gallery."""
    offset = query @ gallery.T
    rows = np.argsort(offset, axis=1, kind="stable")
    most = np.take_along_axis(offset, rows[:, -1:], 1)[:, 0] if farthest else np.full(len(query), np.nan, np.float32)
    return Nearest(rows[:, :k].astype(np.int32), np.take_along_axis(offset, rows[:, :k], 1), most)


def _candidates(offset: Float32[np.ndarray, "c b"], bound: Float32[np.ndarray, " b"], k: int, begin: int) -> Candidates:
    """What is nearer than the bounds: one pass for the least of every group of rows, then a look into few groups."""
    whole = len(offset) // HOST_GROUP * HOST_GROUP
    b = offset.shape[1]
    grouped = offset[:whole].reshape(-1, HOST_GROUP, b)
    least = grouped.min(axis=1)
    if not begin:
        # k groups have something this near; the next float up, as what equals it may belong to the best.
        bound = np.nextafter(np.partition(least, k - 1, axis=0)[k - 1], np.float32(np.inf))
    group, query = np.divmod(np.flatnonzero(least < bound), b)
    members = grouped[group, :, query]
    hit, member = np.divmod(np.flatnonzero(members < bound[query][:, None]), HOST_GROUP)
    row, column = np.divmod(np.flatnonzero(offset[whole:] < bound), b)
    return Candidates(
        np.concatenate([query[hit], column]),
        np.concatenate([members[hit, member], offset[whole + row, column]]),
        np.concatenate([group[hit] * HOST_GROUP + member, whole + row]) + begin,
    )


def _merged(
    best: tuple[Float32[np.ndarray, "b m"], Int32[np.ndarray, "b m"]], new: Candidates, k: int
) -> tuple[Float32[np.ndarray, "b k"], Int32[np.ndarray, "b k"]]:
    """The best k of the best so far and new candidates, sorted by offset and then by row."""
    b, m = best[0].shape
    # Queries in 16 bits are sorted by radix.
    order = np.argsort(new.query.astype(np.int16), kind="stable")
    query, count = new.query[order], np.bincount(new.query, minlength=b)
    slot = m + np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    width = m + int(count.max(initial=0))
    offsets, rows = np.full((b, width), np.inf, np.float32), np.zeros((b, width), np.int32)
    offsets[:, :m], rows[:, :m] = best
    offsets[query, slot], rows[query, slot] = new.offset[order], new.row[order]
    order = np.argsort(offsets, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(offsets, order, 1), np.take_along_axis(rows, order, 1)


def on_device(
    query: Float32[np.ndarray, "q e"],
    gallery: Float32[np.ndarray, "g e"],
    k: int,
    farthest: bool = False,
    recall: float = 1.0,
) -> Nearest:
    """`nearest` by JAX."""
    missing = -len(gallery) % DEVICE_GROUP
    side = jax.device_put(np.pad(gallery, ((0, missing), (0, 0))) if missing else gallery)
    size = max(1, min(len(query), DEVICE_ELEMENTS // len(side)))
    found: list[tuple[Array, Array, Array]] = []
    for begin in range(0, len(query), size):
        part = np.arange(begin, begin + size) % len(query)  # the last block too is a full one: one program
        found.append(_select(jax.device_put(query[part]), side, k, len(gallery), recall))
    rows, least, most = (np.concatenate(each)[: len(query)] for each in zip(*jax.device_get(found), strict=True))
    return Nearest(rows, least, most if farthest else np.full(len(query), np.nan, np.float32))


@partial(jax.jit, static_argnames=("k", "real", "recall"))
def _select(
    query: Float32[Array, "b e"], gallery: Float32[Array, "g e"], k: int, real: int, recall: float
) -> tuple[Int32[Array, "b k"], Float32[Array, "b k"], Float32[Array, " b"]]:
    """Of a gallery filled up to whole groups, the best k of the real images."""
    offset = offsets(query, gallery)
    filler = lax.broadcasted_iota(jnp.int32, (1, len(gallery)), 1) >= real
    farthest = jnp.max(jnp.where(filler, -jnp.inf, offset), axis=1)
    offset = jnp.where(filler, jnp.inf, offset)
    if recall < 1.0:
        best, rows = lax.approx_min_k(offset, k, recall_target=recall)
        return rows, best, farthest
    if k >= len(gallery) // DEVICE_GROUP:
        least, rows = lax.top_k(-offset, k)
        return rows, -least, farthest
    grouped = offset.reshape(len(query), -1, DEVICE_GROUP)
    _, groups = lax.top_k(-grouped.min(axis=2), k)
    # Ascending, so that of equal offsets the first in the gallery is first here.
    groups = jnp.sort(groups, axis=1)
    members = jnp.take_along_axis(grouped, groups[:, :, None], axis=1).reshape(len(query), k * DEVICE_GROUP)
    least, place = lax.top_k(-members, k)
    rows = jnp.take_along_axis(groups, place // DEVICE_GROUP, axis=1) * DEVICE_GROUP + place % DEVICE_GROUP
    return rows, -least, farthest
