"""Pairs of images of one set that are nearer than a distance: copies, and photographs a moment apart."""

from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from svdnet_jax.retrieval.all_pairs import BLOCK, as_queries
from svdnet_jax.retrieval.direct import of_pairs
from svdnet_jax.retrieval.distances import Metric, prepare
from svdnet_jax.retrieval.embeddings import Embeddings

MOST = 10**6
"""Pairs that are listed; a distance with more of them is no distance between copies."""
ROUNDING = 1e-5
"""Of the squared lengths of two features: more than what float32 may be off by in their squared distance."""


class Pairs(NamedTuple):
    """Pairs of rows, nearest first; of equally near ones that which comes first."""

    first: Int64[np.ndarray, " n"]
    second: Int64[np.ndarray, " n"]
    """The larger row."""
    distances: Float64[np.ndarray, " n"]
    """From differences of the features as they were given: between equal ones 0."""


def near_pairs(images: Embeddings, distance: float, metric: Metric = "euclidean") -> Pairs:
    """Finds all pairs at most so far apart, by one matrix product over all pairs and direct distances of the near ones.

    Args:
        images: N of them; identities and cameras are not looked at.
        distance: Euclidean, or 1 - cosine similarity.
        metric: Which of the two.

    Raises:
        ValueError: There are more than `MOST` of them, the distance is negative or no number, or what
            `distances.prepare` refuses.
    """
    if not 0 <= distance < np.inf:
        raise ValueError(f"`duplicates` {distance}: must be a distance of 0 or more")
    n = len(images.pids)
    if n < 2:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    ready = prepare(images, np.arange(n), metric)
    # 1 - cosine similarity is half the square; see `distances`.
    bound = (2 * distance if metric == "cosine" else distance**2) * ready.scale**2
    edges = np.linspace(0, n, -(-n // BLOCK) + 1).astype(int)
    found: list[Pairs] = []
    for one, other in combinations_with_replacement([slice(a, b) for a, b in pairwise(edges)], 2):
        room = MOST - sum(len(pairs.first) for pairs in found)
        first, second = _near(ready.features, one, other, bound, room, distance)
        exact = of_pairs(images.features, images.features, first, second, metric == "cosine")
        kept = exact <= distance
        found.append(Pairs(first[kept], second[kept], exact[kept]))
        if kept.sum() > room:
            raise ValueError(_too_many(distance))
    pairs = Pairs(*(np.concatenate(each) for each in zip(*found, strict=True)))
    order = np.lexsort((pairs.second, pairs.first, pairs.distances))
    return Pairs(*(each[order] for each in pairs))


def _near(
    features: Float[np.ndarray, "n e"], one: slice, other: slice, bound: float, room: int, distance: float
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Returns the pairs between two blocks that may be within a bound on the square, as far as float32 can tell."""
    squared: Float32[np.ndarray, "a b"] = as_queries(features[one]) @ features[other].T
    slack = np.float32(ROUNDING) * (features[one, -2][:, None] + features[other, -2][None])
    near = squared - slack <= bound
    if one == other:
        near = np.triu(near, 1)
    # Before distances are computed: whoever asks for a tenth of all pairs would wait for hours.
    if np.count_nonzero(near) > room and np.count_nonzero(near & (squared + slack <= bound)) > room:
        raise ValueError(_too_many(distance))
    rows, columns = np.nonzero(near)
    return rows + one.start, columns + other.start


def _too_many(distance: float) -> str:
    return f"`duplicates` {distance}: more than {MOST} pairs are as near; give a smaller distance"
