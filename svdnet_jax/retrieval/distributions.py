"""How far apart images of one identity and of two are: distributions of distances, ROC, thresholds.

They answer "is this the same person, yes or no?", where `metrics` judges the order of a gallery. A pair is accepted if
its distance is at most a threshold; accepted, two images of one identity are a true match, of two a false match.

Market-1501 has 54 million pairs of two identities, so distances are not kept. They are counted on a grid of equal
steps, positives and negatives alike. The step is a power of two, which makes three things exact in float32: the bin of
a distance, every edge, and so the comparison `distance <= edge`. Rates at edges are therefore exact counts of the
computed distances, and thresholds are edges. Only what asks for more than that is approximate: means and standard
deviations are at most half a step off, and AUC at most half the share of (positive, negative) couples in one bin.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, Int, Int32, Int64

from svdnet_jax.retrieval.direct import of_pairs
from svdnet_jax.retrieval.distances import CLOSE, Metric, Points, offsets, points
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.protocol import Matches, explain_no_match, match

STEPS_LOG2 = 16
"""The grid has 2^16 steps; at least about half of them lie below the largest distance that there can be."""
MAX_BLOCK_ELEMENTS = 2**24
"""Most distances held at a time, 64 MiB of them; counting them takes twice that for a while."""
FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4, 1e-5)
"""The rates that tables name thresholds for."""
FEWEST = 10
"""False matches that a rate must amount to, to be called measured."""


class Threshold(NamedTuple):
    """A distance up to which pairs are accepted, and what that brings about."""

    distance: float
    """Below zero where nothing may be accepted."""
    false_match_rate: float
    """Share of the negatives at this distance or nearer."""
    true_match_rate: float
    """Share of the positives at this distance or nearer."""


class Moments(NamedTuple):
    """What a distribution is in short."""

    pairs: int
    mean: float
    std: float


@dataclass(frozen=True, eq=False)
class Distributions:
    """Distances of the pairs of one identity (positives) and of two (negatives), counted on one grid.

    Entry k of a count holds the pairs with ``edges[k - 1] < distance <= edges[k]``. The first edge is below zero, with
    no pairs, and the last above all of them; so each curve over the edges goes from 0 to 1.
    """

    metric: Metric
    cross_camera: bool
    edges: Float64[np.ndarray, " e"]
    """Distances, also exact in float32."""
    positives: Int64[np.ndarray, " e"]
    negatives: Int64[np.ndarray, " e"]

    def roc(self) -> tuple[Float64[np.ndarray, " e"], Float64[np.ndarray, " e"]]:
        """Returns false-match and true-match rate at each edge as threshold, both rising from 0 to 1."""
        return _shares(self.negatives), _shares(self.positives)

    def threshold(self, false_match_rate: float) -> Threshold:
        """Returns the largest edge at which at most this share of the negatives is accepted.

        Args:
            false_match_rate: In [0, 1]. See `measures` for whether the data can tell.

        Raises:
            ValueError: The rate is outside.
        """
        if not 0 <= false_match_rate <= 1:
            raise ValueError(f"a false-match rate is between 0 and 1; found {false_match_rate}.")
        false, true = self.roc()
        last = int(np.searchsorted(false, false_match_rate, side="right")) - 1
        return Threshold(float(self.edges[last]), float(false[last]), float(true[last]))

    def measures(self, false_match_rate: float) -> bool:
        """Returns whether a rate amounts to at least ten false matches; a threshold for fewer would be chance."""
        return false_match_rate * int(self.negatives.sum()) >= FEWEST

    def thresholds(self) -> dict[float, Threshold]:
        """Returns the thresholds for the false-match rates 1e-2 to 1e-5 that the data can tell, by rate."""
        return {rate: self.threshold(rate) for rate in FALSE_MATCH_RATES if self.measures(rate)}

    @property
    def auc(self) -> float:
        """Area under the ROC curve: how often a positive is nearer than a negative, equal ones counting half.

        Pairs in one bin count as equal.
        """
        false, true = self.roc()
        return float(np.trapezoid(true, false))

    @property
    def eer(self) -> float:
        """Equal error rate: where as many negatives are accepted as positives are not.

        Between two edges both rates are taken as straight lines.
        """
        false, true = self.roc()
        more = false + true - 1  # false matches less missed matches, in shares: rises from -1 to 1
        k = int(np.argmax(more >= 0))
        along = more[k - 1] / (more[k - 1] - more[k])
        return float(false[k - 1] + along * (false[k] - false[k - 1]))

    @property
    def separation(self) -> float:
        """The index d': |difference of the means| / sqrt(mean of the variances); infinite where neither side varies."""
        positives, negatives = self.of_positives(), self.of_negatives()
        spread = math.sqrt((positives.std**2 + negatives.std**2) / 2)
        return abs(negatives.mean - positives.mean) / spread if spread else math.inf

    def of_positives(self) -> Moments:
        """Returns number, mean and standard deviation of the distances within identities."""
        return self._moments(self.positives)

    def of_negatives(self) -> Moments:
        """Returns number, mean and standard deviation of the distances between identities."""
        return self._moments(self.negatives)

    def _moments(self, counts: Int64[np.ndarray, " e"]) -> Moments:
        middle = np.maximum(self.edges - (self.edges[1] - self.edges[0]) / 2, 0)
        mean = np.average(middle, weights=counts)
        return Moments(int(counts.sum()), float(mean), math.sqrt(np.average((middle - mean) ** 2, weights=counts)))

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers and text, for JSON; the separation is None where it is infinite."""
        separation = self.separation
        return {
            "metric": self.metric,
            "cross_camera": self.cross_camera,
            "positives": self.of_positives()._asdict(),
            "negatives": self.of_negatives()._asdict(),
            "separation": separation if math.isfinite(separation) else None,
            "auc": self.auc,
            "eer": self.eer,
            "thresholds": [{"asked": rate, **threshold._asdict()} for rate, threshold in self.thresholds().items()],
        }

    def __str__(self) -> str:
        camera = "images of the query's identity and camera left out" if self.cross_camera else "all cameras kept"
        sides = {"of one identity": self.of_positives(), "of two": self.of_negatives()}
        thresholds = self.thresholds()
        lines = [
            f"{self.metric} distance, {camera}",
            f"  {'pairs':<15}{'number':>12}{'mean':>12}{'std':>12}",
            *(f"  {name:<15}{side.pairs:>12}{side.mean:>12.5g}{side.std:>12.4g}" for name, side in sides.items()),
            f"  separation d' {self.separation:.3f}, AUC {100 * self.auc:.3f} %, "
            f"equal error rate {100 * self.eer:.2f} %",
        ]
        if thresholds:
            lines.append(f"  {'false matches':<15}{'measured':>12}{'distance <=':>12}{'true matches':>14}")
        for rate, (distance, false, true) in thresholds.items():
            asked = f"{100 * rate:g} %"
            lines.append(f"  {asked:<15}{100 * false:>10.3g} %{distance:>12.5g}{100 * true:>12.2f} %")
        left = [f"{100 * rate:g} %" for rate in FALSE_MATCH_RATES if rate not in thresholds]
        if left:
            lines.append(f"  not measured, fewer than {FEWEST} false matches: {', '.join(left)}")
        lines.append("thresholds hold for this network, these data and these cameras only")
        return "\n".join(lines)


def distance_distributions(
    query: Embeddings,
    gallery: Embeddings,
    metric: Metric = "euclidean",
    cross_camera: bool = True,
    *,
    block: int = 256,
) -> Distributions:
    """Returns the count the distances of all pairs that the protocol compares; memory is that of `evaluate`.

    Every query that is not junk meets every gallery image that is not junk, less, under `cross_camera`, the images of
    its own pid and camera. Queries without a right answer count too, with their negatives. As in `evaluate`, two
    images of pid 0 are a positive.

    Args:
        query: Q images.
        gallery: G images.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        cross_camera: Whether the rule about cameras holds; off where cameras are unknown or one only.
        block: Queries at a time, fewer for a gallery beyond 65 536 images. Sets memory and speed, not the result.

    Raises:
        ValueError: No positive or no negative pair (the message says why), or what `evaluate` refuses.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1; found {block}.")
    matches = match(query, gallery, cross_camera)
    if not matches.count.any():
        raise ValueError(explain_no_match(query, gallery, matches))
    rows = np.flatnonzero(query.pids >= 0)
    if (matches.count + matches.skip)[rows].min() == len(matches.kept):
        raise ValueError(
            f"there is no pair of two identities, so there is no false match to measure: all {len(rows)} queries and "
            f"{len(matches.kept)} gallery images have the pid {query.pids[rows[0]]} (junk left out). Take images of "
            "more identities."
        )
    ready = points(query, rows, gallery, matches.kept, metric)
    step = _step(ready, metric)
    unit = 1 / ready.scale if metric == "euclidean" else 0.5 / ready.scale**2
    bins = 2**STEPS_LOG2 + 2
    positives, negatives = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    for part, binned in _bin_blocks(ready, step, metric, block):
        every = np.bincount(binned.ravel(), minlength=bins)
        if every[0]:  # too near for float32: most often copies of an image, a few of them
            binned, (q, g) = binned.copy(), np.nonzero(binned == 0)
            exact = of_pairs(query.features, gallery.features, rows[part][q], matches.kept[g], metric == "cosine")
            binned[q, g] = np.ceil(exact.astype(np.float32) / np.float64(step * unit)) + 1
            every = np.bincount(binned.ravel(), minlength=bins)
        pair, left_out = _own_identity(matches, rows[part])
        own = binned[pair]
        positives += np.bincount(own[~left_out], minlength=bins)
        # What is not of the query's identity is what remains: no pass over all pairs to tell them apart.
        negatives += every - np.bincount(own, minlength=bins)
    return Distributions(metric, cross_camera, np.arange(-1, bins - 1) * (step * unit), positives, negatives)


def _shares(counts: Int64[np.ndarray, " e"]) -> Float64[np.ndarray, " e"]:
    """Counts, of all pairs, those up to each edge."""
    total = np.cumsum(counts)
    return total / total[-1]


def _step(ready: Points, metric: Metric) -> float:
    """Returns the grid's step, in the unit that `_bins` counts in.

    No distance is larger than the sum of the largest lengths of both sides (triangle inequality), and no two vectors of
    length 1 are further apart than 2. One per cent more leaves room for float32.
    """
    longest = math.sqrt(ready.gallery[:, -2].max()) + math.sqrt(ready.query_squared.max())
    if metric == "cosine":
        longest = min(longest, 2 * ready.scale)
    _, exponent = math.frexp(1.01 * longest if metric == "euclidean" else 1.01 * longest**2)
    return math.ldexp(1.0, max(exponent, -100) - STEPS_LOG2)  # its inverse too is to be a float32


def _bin_blocks(
    ready: Points, step: float, metric: Metric, block: int
) -> Iterator[tuple[slice, Int32[np.ndarray, "b g"]]]:
    """Bins of all pairs, some queries at a time."""
    n = len(ready.query)
    size = max(1, min(block, n, MAX_BLOCK_ELEMENTS // len(ready.gallery)))
    side = jax.device_put(ready.gallery)
    for begin in range(0, n, size):
        filled = np.arange(begin, begin + size) % n  # the last block too is a full one: one program serves all
        own = jax.device_put((ready.query[filled], ready.query_squared[filled], np.float32(1 / step)))
        part = slice(begin, min(begin + size, n))
        yield part, np.asarray(_bins(*own, side, metric=metric))[: part.stop - begin]


@partial(jax.jit, static_argnames="metric")
def _bins(
    query: Float32[Array, "b e"],
    squared: Float32[Array, " b"],
    per_unit: Float32[Array, ""],
    gallery: Float32[Array, "g e"],
    metric: Metric,
) -> Int32[Array, "b g"]:
    """Returns the number of the first edge that is not below the distance; edge 1 is zero. 0 where float32 cannot say.

    Counted in distances of the scaled features or, under cosine, in their squares.
    """
    distance = offsets(query, gallery) + squared[:, None]
    far = distance > CLOSE**2 * squared[:, None]
    if metric == "euclidean":
        distance = jnp.sqrt(distance)
    return jnp.where(far, jnp.ceil(distance * per_unit).astype(jnp.int32) + 1, 0)


def _own_identity(
    matches: Matches, queries: Int[np.ndarray, " b"]
) -> tuple[tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]], Bool[np.ndarray, " n"]]:
    """Returns row and gallery position of all pairs of one identity, and which of them the protocol leaves out."""
    start, before, skip, count = (of[queries] for of in (matches.start, matches.before, matches.skip, matches.count))
    length = count + skip
    row = np.repeat(np.arange(len(queries)), length)
    entry = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    left_out = (before[row] <= entry) & (entry < (before + skip)[row])
    return (row, matches.order[start[row] + entry]), left_out
