"""Ranks of positives, by counting closer gallery images; nothing is sorted.

Every retrieval metric follows from the ranks of each query's right answers, and such a rank is a count:

    rank(p) = 1 + #{j : d_j < d_p} + #{j : d_j = d_p and j before p in the gallery}

so nothing is sorted. The cost is one product of query and gallery features and, for each right answer, one
pass over its query's distances: O(Q G D + Q P G) for P right answers a query. Queries go by blocks: memory is a
copy of the features and a few times block x G float32, never Q x G.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32

from svdnet_jax.retrieval.distances import Points, offsets
from svdnet_jax.retrieval.protocol import Matches, right_answers

# Most distances held at a time, 256 MiB of them: blocks shrink for galleries beyond 262 144 images.
MAX_BLOCK_ELEMENTS = 2**26


class Ranks(NamedTuple):
    """Right answers of a block of queries, each row in the order of its ranking.

    Of a row only the first `counts` entries mean anything.
    """

    queries: Int[np.ndarray, " b"]
    """Rows of the query set."""
    counts: Int[np.ndarray, " b"]
    """Right answers of each query."""
    ranks: Int32[np.ndarray, "b p"]
    """From 1 on, ascending."""
    images: Int32[np.ndarray, "b p"]
    """Gallery positions, as `matches.kept` counts."""
    nearest: Float[np.ndarray, " b"]
    """Offset of the nearest right answer."""


def rank_blocks(
    ready: Points,
    matches: Matches,
    valid: Int[np.ndarray, " v"],
    block: int,
    nearer: Callable[[Int[np.ndarray, " b"]], Float[np.ndarray, "b g"]] | None = None,
) -> Iterator[Ranks]:
    """Ranks of the right answers of some queries, block by block.

    Args:
        ready: Of these queries, in this order, and of the gallery without junk.
        matches: From `match`.
        valid: Rows of the queries, each with a right answer.
        block: Queries ranked at a time.
        nearer: From rows of `ready.query` to what to take off their offsets, as `rerank.mix` gives it.
    """
    width = int(matches.count[valid].max(initial=0))
    size = max(1, min(block, len(valid), MAX_BLOCK_ELEMENTS // len(ready.gallery)))
    side = jax.device_put((ready.gallery, matches.gallery_group))
    alike = None if ready.alike is None else jax.device_put(ready.alike)
    # Queries with equally many right answers go together: the longest list of a block sets its time.
    order = np.argsort(matches.count[valid], kind="stable")
    for begin in range(0, len(valid), size):
        part = order[begin : begin + size]
        filled = np.resize(part, size)  # the last block too is a full one: one program serves all
        rows = valid[filled]
        own = (
            ready.query[filled],
            matches.query_group[rows],
            right_answers(matches, rows, width),
            np.int32(matches.count[rows].max()),
        )
        less = None if nearer is None else jax.device_put(nearer(filled))
        ranks, nearest = jax.device_get(positive_ranks(*jax.device_put(own), *side, alike, less))
        yield _in_order(valid[part], matches, ranks[: len(part)], own[2][: len(part)], nearest[: len(part)])


def _in_order(
    queries: Int[np.ndarray, " b"],
    matches: Matches,
    ranks: Int32[np.ndarray, "b p"],
    images: Int32[np.ndarray, "b p"],
    nearest: Float[np.ndarray, " b"],
) -> Ranks:
    """Returns each row sorted by rank."""
    count = matches.count[queries]
    real = np.arange(ranks.shape[1]) < count[:, None]
    ranks = np.where(real, ranks, np.iinfo(np.int32).max)
    order = np.argsort(ranks, axis=1)
    return Ranks(queries, count, np.take_along_axis(ranks, order, 1), np.take_along_axis(images, order, 1), nearest)


@jax.jit
def positive_ranks(
    query: Float[Array, "b e"],
    query_group: Int32[Array, " b"],
    positives: Int32[Array, "b p"],
    count: Int32[Array, ""],
    gallery: Float[Array, "g e"],
    gallery_group: Int32[Array, " g"],
    alike: Int32[Array, " g"] | None = None,
    nearer: Float[Array, "b g"] | None = None,
) -> tuple[Int32[Array, "b p"], Float[Array, " b"]]:
    """Ranks of the right answers of a block of queries, by counting (see the head of this file).

    Args:
        query: Features from `points`.
        query_group: The group of gallery images left out for each query.
        positives: Gallery positions of each query's right answers, filled up with any others.
        count: Columns of positives to rank. It is data: blocks that differ in it share one program.
        gallery: Features from `points`.
        gallery_group: The group of each gallery image.
        alike: `Points.alike`.
        nearer: Taken off the offsets.

    Returns:
        Ranks from 1 on, in the order of `positives`, 0 from column `count` on; and the least of the positives' offsets.
    """
    offset = offsets(query, gallery, alike)
    if nearer is not None:
        offset = offset - nearer
    left_out = gallery_group[None, :] == query_group[:, None]
    offset = jnp.where(left_out, jnp.inf, offset)
    position = lax.broadcasted_iota(jnp.int32, (1, len(gallery)), 1)

    def rank_column(
        k: Int32[Array, ""], found: tuple[Int32[Array, "b p"], Float[Array, "b 1"]]
    ) -> tuple[Int32[Array, "b p"], Float[Array, "b 1"]]:
        ranks, least = found
        positive = lax.dynamic_slice_in_dim(positives, k, 1, axis=1)
        # Read from the block that it is compared with: computed anew it could differ in the last digit.
        own = jnp.take_along_axis(offset, positive, axis=1)
        ahead = jnp.where(position < positive, offset <= own, offset < own)
        rank = 1 + jnp.sum(ahead, axis=1, keepdims=True, dtype=jnp.int32)
        # The columns that fill up count too: at worst a query is done again that need not be.
        return lax.dynamic_update_slice_in_dim(ranks, rank, k, axis=1), jnp.minimum(least, own)

    # One right answer at a time: XLA's CPU code takes twice as long over eight at once (24 answers of 256
    # queries at Market-1501's size: 0.024 s and 0.053 s).
    start = jnp.zeros_like(positives), jnp.full_like(offset[:, :1], jnp.inf)
    ranks, least = lax.fori_loop(0, count, rank_column, start)
    return ranks, least[:, 0]
