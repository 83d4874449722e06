"""What the draws of a single-shot evaluation show: one image of each identity, by a random order of the gallery."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64


class Draws(NamedTuple):
    """What each of R draws shows to V queries; images by position in the gallery without junk."""

    shown: Int64[np.ndarray, "r i"]
    """The image of each identity, pid 0 aside."""
    right: Int64[np.ndarray, "r v"]
    """The right answer of each query, which stands in for the image of its identity."""
    identity: Int64[np.ndarray, " v"]
    """Column of `shown` that holds the query's identity; -1 for a query of pid 0."""
    distractors: Int64[np.ndarray, " d"]
    """Images of pid 0, which every draw shows."""

    def only(self, queries: Int64[np.ndarray, " w"]) -> "Draws":
        """Returns the same draws for some of the queries."""
        return self._replace(right=self.right[:, queries], identity=self.identity[queries])


def random_orders(n: int, repeats: int, seed: int) -> Iterator[Int64[np.ndarray, " n"]]:
    """Returns the random order of N gallery images that makes each draw."""
    generator = np.random.Generator(np.random.Philox(seed))
    for _ in range(repeats):
        yield generator.permutation(n)


def draw(
    orders: Iterator[Int64[np.ndarray, " g"]],
    pids: Int64[np.ndarray, " g"],
    cameras: Int64[np.ndarray, " g"],
    query_pids: Int64[np.ndarray, " v"],
    query_cameras: Int64[np.ndarray, " v"] | None,
) -> Draws:
    """Evaluates the draws, by the rules of `evaluate_single_shot`; O(R (G + V)) after sorting the pids once.

    Args:
        orders: A permutation of the gallery's positions for each draw.
        pids: Of the gallery without junk.
        cameras: Likewise.
        query_pids: Of the valid queries.
        query_cameras: Likewise; None where the rule about cameras does not hold.
    """
    people, person = np.unique(pids, return_inverse=True)
    own, named = np.searchsorted(people, query_pids), people != 0
    shown, right = [], []
    for order in orders:
        first = _first(order, person, len(people))
        answer = first[own]
        if query_cameras is not None:
            # Where the first is of the query's camera, the first of any other camera is what the rule leaves.
            other = order[cameras[order] != cameras[first][person[order]]]
            left = _first(other, person, len(people))[own]
            answer = np.where(cameras[answer] == query_cameras, left, answer)
        shown.append(first[named])
        right.append(answer)
    # Pids are sorted and not negative, so pid 0, where there is one, is person 0.
    return Draws(np.stack(shown), np.stack(right), own - np.sum(~named), np.flatnonzero(pids == 0))


def _first(order: Int64[np.ndarray, " n"], person: Int64[np.ndarray, " g"], people: int) -> Int64[np.ndarray, " p"]:
    """Returns each person's first image in an order; -1 for those without one."""
    first = np.full(people, -1)
    first[person[order[::-1]]] = order[::-1]  # of several written to one place the last stays
    return first


def drawn_themselves(
    draws: Draws,
    cameras: Int64[np.ndarray, " g"],
    query_cameras: Int64[np.ndarray, " v"],
    one_set: bool,
) -> Bool[np.ndarray, "r v"]:
    """Returns which queries are themselves what a draw shows of their identity, where query set and gallery are one.

    There each image has a camera of its own. VehicleID's protocol draws the gallery from the test images, and what is
    left are the queries: these do not count in that draw.
    """
    if not one_set:
        return np.zeros(draws.right.shape, bool)
    return (cameras[draws.shown[:, draws.identity]] == query_cameras) & (draws.identity >= 0)
