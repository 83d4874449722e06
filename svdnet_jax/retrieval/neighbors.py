"""Exact nearest neighbours by blocks: the first k of a ranking without the ranking.

On an accelerator one program multiplies a block of queries with the gallery, takes the least offset of every
group of 64 gallery images, and sorts only the members of the k groups whose least offset is least: whatever is
among the first k is in one of these. On a CPU, where XLA's product takes a tenth longer than that of numpy's BLAS
numpy multiplies, and of the groups only those are looked into whose least offset is below the k-th best so far.

Either way the cost is the product, O(Q G D), and one pass over the offsets; memory is a block of offsets at a
time, whatever Q and G. Of equal offsets the image that comes first in the gallery wins, as in `evaluate`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Float64, Int, Int32, Int64, UInt64

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
    offsets: Float[np.ndarray, "q k"]
    """As `distances.offsets` gives them."""
    farthest: Float[np.ndarray, " q"]
    """The largest offset of each query; NaN where it was not asked for."""


def placed(gallery: Float32[np.ndarray, "g e"]) -> Float32[np.ndarray | Array, "g e"]:
    """Returns `Points.gallery` on the accelerator, if there is one, so that it moves once for many searches."""
    return gallery if jax.default_backend() == "cpu" else jax.device_put(gallery)


def nearest(
    query: Float32[np.ndarray, "q e"],
    gallery: Float32[np.ndarray | Array, "g e"],
    k: int,
    *,
    farthest: bool = False,
    recall: float = 1.0,
) -> Nearest:
    """Finds the k nearest gallery images of each query.

    Args:
        query: `Points.query`.
        gallery: `Points.gallery`, `placed` or not.
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
        return on_host(query, np.asarray(gallery), k, farthest)
    return on_device(query, gallery, k, farthest, recall if jax.default_backend() == "tpu" else 1.0)


def on_host(
    query: Float32[np.ndarray, "q e"], gallery: Float32[np.ndarray, "g e"], k: int, farthest: bool = False
) -> Nearest:
    """Finds the `nearest` by NumPy."""
    size = max(1, HOST_ELEMENTS // max(HOST_STEP, HOST_GROUP * k))
    parts = np.array_split(query, max(1, -(-len(query) // size)))
    look = _sort if HOST_GROUP * k > len(gallery) else _scan
    # While one thread's product is on all cores, the other selects.
    with ThreadPoolExecutor(2) as pool:
        parts_nearest = list(pool.map(partial(look, gallery=gallery, k=k, farthest=farthest), parts))
    return Nearest(*(np.concatenate(each) for each in zip(*parts_nearest, strict=True)))


def _scan(query: Float32[np.ndarray, "b e"], gallery: Float32[np.ndarray, "g e"], k: int, farthest: bool) -> Nearest:
    """Walks over the gallery and keeps the best k of each query."""
    b, step = len(query), max(HOST_STEP, HOST_GROUP * k)
    # One column a query: BLAS is faster with the longer side first.
    buffer = np.empty((min(step, len(gallery)), b), np.float32)
    most = np.full(b, -np.inf if farthest else np.nan, np.float32)
    best, bound = np.empty((b, 0), np.uint64), np.empty(b, np.float32)
    waiting: list[Candidates] = []
    for begin in range(0, len(gallery), step):
        part = gallery[begin : begin + step]
        offset = np.matmul(part, query.T, out=buffer[: len(part)])
        if farthest:
            np.maximum(most, offset.max(axis=0), out=most)
        waiting.append(candidates(offset, bound if begin else first_bound(offset, k), begin))
        # Merged when there are as many as would change the bound, not for a few.
        if not begin or 2 * sum(len(each.query) for each in waiting) > b * k or begin + step >= len(gallery):
            best, waiting = merged(best, waiting, k), []
            bound = unpacked(best[:, -1])[1]
    return Nearest(*unpacked(best), most)


def _sort(query: Float32[np.ndarray, "b e"], gallery: Float32[np.ndarray, "g e"], k: int, farthest: bool) -> Nearest:
    """Sorts, for a k that is much of the gallery."""
    offset = query @ gallery.T
    most = offset.max(axis=1) if farthest else np.full(len(query), np.nan, np.float32)
    keys = np.sort(packed(offset, np.arange(len(gallery))), axis=1)[:, :k]
    return Nearest(*unpacked(keys), most)


class Candidates(NamedTuple):
    """Pairs that may belong to the first k of a query."""

    query: Int64[np.ndarray, " n"]
    keys: UInt64[np.ndarray, " n"]
    """From `packed`."""


def packed(offset: Float32[np.ndarray, "*n"], rows: Int[np.ndarray, "*#n"]) -> UInt64[np.ndarray, "*n"]:
    """Returns numbers that are in the order of the offsets, and of the rows where offsets are equal."""
    bits = (offset + np.float32(0)).view(np.uint32)  # -0 becomes 0, which it equals
    # The bits of floats are in their order but for the sign: negative ones are turned round and go first.
    bits = bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return (bits.astype(np.uint64) << 32) | rows.astype(np.uint64)


def unpacked(keys: UInt64[np.ndarray, "*n"]) -> tuple[Int32[np.ndarray, "*n"], Float32[np.ndarray, "*n"]]:
    """Returns the rows and offsets of `packed`."""
    bits = (keys >> 32).astype(np.uint32)
    bits ^= np.where(bits >> 31, np.uint32(0x80000000), np.uint32(0xFFFFFFFF))
    return (keys & 0xFFFFFFFF).astype(np.int32), bits.view(np.float32)


def first_bound(offset: Float32[np.ndarray, "c b"], k: int) -> Float32[np.ndarray, " b"]:
    """Returns a bound on the k-th least of each column: the k-th least of the groups' least; needs k groups."""
    least = offset[: len(offset) // HOST_GROUP * HOST_GROUP].reshape(-1, HOST_GROUP, offset.shape[1]).min(axis=1)
    return np.partition(least, k - 1, axis=0)[k - 1]


def candidates(offset: Float32[np.ndarray, "c b"], bound: Float32[np.ndarray, " b"], begin: int) -> Candidates:
    """Returns what is within the bounds of the columns: a pass for the least of every group, then few groups.

    Args:
        offset: Of C gallery images (rows) from B queries (columns).
        bound: Of each query.
        begin: Row of the first of these gallery images in the gallery.
    """
    b = offset.shape[1]
    whole = len(offset) // HOST_GROUP * HOST_GROUP
    grouped = offset[:whole].reshape(-1, HOST_GROUP, b)
    group, query = np.divmod(np.flatnonzero(grouped.min(axis=1) <= bound), b)
    members = grouped[group, :, query]
    hit, member = np.divmod(np.flatnonzero(members <= bound[query][:, None]), HOST_GROUP)
    row, column = np.divmod(np.flatnonzero(offset[whole:] <= bound), b)
    rows = np.concatenate([group[hit] * HOST_GROUP + member, whole + row]) + begin
    values = np.concatenate([members[hit, member], offset[whole + row, column]])
    return Candidates(np.concatenate([query[hit], column]), packed(values, rows))


def merged(best: UInt64[np.ndarray, "b m"], new: Sequence[Candidates], k: int) -> UInt64[np.ndarray, "b k"]:
    """Returns the best k of the best so far and new candidates, in order; of each query there are k at least."""
    b, m = best.shape
    query, keys = (np.concatenate(each) for each in zip(*new, strict=True))
    order = np.argsort(query.astype(np.int16), kind="stable")  # 16 bits are sorted by radix
    query, available = query[order], np.bincount(query, minlength=b)
    slot = m + np.arange(len(query)) - np.repeat(np.cumsum(available) - available, available)
    every = np.full((b, m + int(available.max(initial=0))), np.iinfo(np.uint64).max, np.uint64)
    every[:, :m] = best
    every[query, slot] = keys[order]
    return np.sort(every, axis=1)[:, :k]


def on_device(
    query: Float32[np.ndarray, "q e"],
    gallery: Float32[np.ndarray | Array, "g e"],
    k: int,
    farthest: bool = False,
    recall: float = 1.0,
) -> Nearest:
    """Finds the `nearest` by JAX."""
    side = jax.device_put(gallery)
    size = max(1, min(len(query), DEVICE_ELEMENTS // len(side)))
    merged_parts: list[tuple[Array, Array, Array]] = []
    for begin in range(0, len(query), size):
        part = np.arange(begin, begin + size) % len(query)  # the last block too is a full one: one program
        merged_parts.append(_select(jax.device_put(query[part]), side, k, recall))
    rows, least, most = (np.concatenate(each)[: len(query)] for each in zip(*jax.device_get(merged_parts), strict=True))
    return Nearest(rows, least, most if farthest else np.full(len(query), np.nan, np.float32))


def in_double(query: Float64[np.ndarray, "q e"], gallery: Float64[np.ndarray, "g e"], k: int) -> Nearest:
    """Finds the `nearest` by sorting in float64: for the queries that are too close for float32."""
    rows, least = np.empty((len(query), k), np.int32), np.empty((len(query), k))
    size = max(1, HOST_ELEMENTS // 2 // len(gallery))
    for begin in range(0, len(query), size):
        offset = query[begin : begin + size] @ gallery.T
        bound = np.partition(offset, k - 1, axis=1)[:, k - 1]
        for q, (line, last) in enumerate(zip(offset, bound, strict=True), start=begin):
            some = np.flatnonzero(line <= last)
            rows[q] = some[np.argsort(line[some], kind="stable")][:k]
            least[q] = line[rows[q]]
    return Nearest(rows, least, np.full(len(query), np.nan))


@partial(jax.jit, static_argnames=("k", "recall"))
def _select(
    query: Float32[Array, "b e"], gallery: Float32[Array, "g e"], k: int, recall: float
) -> tuple[Int32[Array, "b k"], Float32[Array, "b k"], Float32[Array, " b"]]:
    """Returns the best k, and the largest offset."""
    offset = offsets(query, gallery)
    farthest = jnp.max(offset, axis=1)
    if recall < 1.0:
        best, rows = lax.approx_min_k(offset, k, recall_target=recall)
        return rows, best, farthest
    if k >= len(gallery) // DEVICE_GROUP:
        least, rows = lax.top_k(-offset, k)
        return rows, -least, farthest
    filled = jnp.pad(offset, ((0, 0), (0, -len(gallery) % DEVICE_GROUP)), constant_values=jnp.inf)
    grouped = filled.reshape(len(query), -1, DEVICE_GROUP)
    _, groups = lax.top_k(-grouped.min(axis=2), k)
    # Ascending, so that of equal offsets the first in the gallery is first here.
    groups = jnp.sort(groups, axis=1)
    members = jnp.take_along_axis(grouped, groups[:, :, None], axis=1).reshape(len(query), k * DEVICE_GROUP)
    least, place = lax.top_k(-members, k)
    rows = jnp.take_along_axis(groups, place // DEVICE_GROUP, axis=1) * DEVICE_GROUP + place % DEVICE_GROUP
    return rows, -least, farthest
