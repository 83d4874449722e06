"""Nearest neighbours of every image among all of them.

A distance is the same from both ends, so on a CPU each pair of blocks of images is multiplied once and looked at twice,
by column and by row: half the work of searching the set for all of its members. On an accelerator, where
the product is quick and passes over memory are not, it is that search.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations, pairwise
from queue import SimpleQueue

import jax
import numpy as np
from jaxtyping import Float, Float32

from svdnet_jax.retrieval import neighbors
from svdnet_jax.retrieval.neighbors import (
    HOST_GROUP,
    Candidates,
    Nearest,
    candidates,
    first_bound,
    merged,
    on_device,
    packed,
    unpacked,
)

BLOCK = 3072
"""Images in a block; two threads hold BLOCK x BLOCK distances each."""


def nearest_of_all(images: Float32[np.ndarray, "n e"], k: int) -> Nearest:
    """Returns the k nearest of all images to each, itself among them, with squared distances in place of offsets.

    Args:
        images: `Prepared.features`.
        k: Neighbours, at most N.

    Raises:
        ValueError: k is below 1 or above N.
    """
    if not 1 <= k <= len(images):
        raise ValueError(f"k must be between 1 and the {len(images)} images; found {k}.")
    if jax.default_backend() == "cpu":
        return on_host(images, k)
    return on_device(as_queries(images), images, k, farthest=True)


def as_queries(images: Float[np.ndarray, "b e"]) -> Float[np.ndarray, "b e"]:
    """Returns the other factor of squared distances: (-2 q, 0, ..., 1, |q|^2) for (q, 0, ..., |q|^2, 1)."""
    queries = images.dtype.type(-2) * images
    queries[:, -2] = 1
    queries[:, -1] = images[:, -2]
    return queries


def on_host(images: Float32[np.ndarray, "n e"], k: int) -> Nearest:
    """Returns `nearest_of_all` by numpy."""
    n = len(images)
    parts = -(-n // BLOCK)
    if HOST_GROUP * k > n // parts:  # blocks must hold k groups
        return neighbors.on_host(as_queries(images), images, k, farthest=True)
    edges = np.linspace(0, n, parts + 1).astype(int)
    blocks = [slice(a, b) for a, b in pairwise(edges)]
    best = np.full((n, k), np.iinfo(np.uint64).max, np.uint64)
    bound, most = np.full(n, np.inf, np.float32), np.full(n, -np.inf, np.float32)
    # Within blocks first: it bounds what the others have to offer.
    pairs = [(block, block) for block in blocks] + list(combinations(blocks, 2))
    rooms: SimpleQueue[Float32[np.ndarray, "b b"]] = SimpleQueue()
    for _ in range(2):
        rooms.put(np.empty((max(np.diff(edges)),) * 2, np.float32))

    def look(pair: tuple[slice, slice]) -> list[tuple[slice, Candidates, Float32[np.ndarray, " b"]]]:
        room = rooms.get()
        nearest = _look(images, *pair, bound, k, room)
        rooms.put(room)
        return nearest

    # Two threads: while the product of one is on all cores, the other selects. A bound that is out of date lets more
    # through and changes nothing.
    with ThreadPoolExecutor(2) as pool:
        for part, new, largest in chain.from_iterable(pool.map(look, pairs)):
            best[part] = merged(best[part], [new], k)
            bound[part] = unpacked(best[part, -1])[1]
            np.maximum(most[part], largest, out=most[part])
    return Nearest(*unpacked(best), most)


def _look(
    images: Float32[np.ndarray, "n e"],
    one: slice,
    other: slice,
    bound: Float32[np.ndarray, " n"],
    k: int,
    room: Float32[np.ndarray, "b b"],
) -> list[tuple[slice, Candidates, Float32[np.ndarray, " b"]]]:
    """Returns for the images of each of two blocks: candidates in the other, and the largest distance to it."""
    high, wide = other.stop - other.start, one.stop - one.start
    squared = np.matmul(images[other], as_queries(images[one]).T, out=room.ravel()[: high * wide].reshape(high, wide))
    if one == other:
        return [(one, candidates(squared, first_bound(squared, k), one.start), squared.max(axis=0))]
    row, column = np.divmod(np.flatnonzero(squared <= bound[other, None]), wide)
    across = Candidates(row, packed(squared[row, column], column + one.start))
    return [
        (one, candidates(squared, bound[one], other.start), squared.max(axis=0)),
        (other, across, squared.max(axis=1)),
    ]
