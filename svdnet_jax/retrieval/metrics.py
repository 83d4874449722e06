"""Retrieval metrics: CMC, both mAPs and mINP under Market-1501's protocol.

Every metric here follows from the ranks of a query's right answers, and such a rank is a count:

    rank(p) = 1 + #{j : d_j < d_p} + #{j : d_j = d_p and j before p in the gallery}

so nothing is sorted. The cost is one matrix product of query and gallery features and, for each right answer, one
pass over the distances of its query: O(Q G D + Q P G) for P right answers a query. Queries go by blocks, so
memory is that of the features plus a few times block x G float32, never Q x G.

Ties: of equal computed distances, the image that comes first in the gallery ranks first. Equal features give equal
distances wherever float32 is exact (integers of moderate size); elsewhere a matrix product may tell them apart in
the last digit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from svdnet_jax.retrieval.distances import Metric, from_offsets, offsets, points
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.matches import Matches, explain_no_match, match, right_answers

# Most distances held at a time: 256 MiB. Blocks of queries shrink for galleries beyond a million.
MAX_BLOCK_ELEMENTS = 2**26


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` found. Shares are in [0, 1]; means are over the valid queries."""

    metric: Metric
    cross_camera: bool
    cmc: Float[np.ndarray, " g"]
    """cmc[k - 1] = rank-k: share of valid queries with a right answer among the first k."""
    mAP: float  # noqa: N815 - the field's own name
    """Plain average precision: mean over right answers of k / r, the k-th being at rank r."""
    mAP_market: float  # noqa: N815
    """By the trapezoid rule of Market-1501's code: mean of (k / r + (k - 1) / (r - 1)) / 2, the latter 1 at r = 1."""
    mINP: float  # noqa: N815
    """Mean of right answers / rank of the last one (Ye et al. 2021)."""
    ap: Float[np.ndarray, " q"]
    """Plain average precision of each query; NaN for queries that do not count."""
    first_hit: Int[np.ndarray, " q"]
    """Rank of each query's first right answer; 0 for queries that do not count."""
    queries: int
    """All queries."""
    valid_queries: int
    """Those with a right answer: the only ones that count."""
    gallery: int
    """Gallery images without junk, G."""
    distractors: int
    """Those of them with pid 0."""
    junk: int
    """Gallery images left out for their negative pid."""

    def rank(self, k: int) -> float:
        """Rank-k: share of valid queries with a right answer among the first k.

        Args:
            k: From 1 on; beyond the gallery's size it is 1.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"ranks start at 1; found {k}.")
        return float(self.cmc[min(k, len(self.cmc)) - 1])

    def metrics(self) -> dict[str, float]:
        """The numbers that logs and tables hold, by name."""
        ranks = {f"rank{k}": self.rank(k) for k in (1, 5, 10, 20)}
        return ranks | {"mAP": self.mAP, "mAP_market": self.mAP_market, "mINP": self.mINP}

    def __str__(self) -> str:
        camera = "leaves out the query's own camera" if self.cross_camera else "keeps all cameras"
        percent = {name: f"{100 * value:6.2f} %" for name, value in self.metrics().items()}
        return "\n".join(
            [
                f"{self.metric} distance; cross-camera rule {'on' if self.cross_camera else 'off'}: {camera}",
                f"{self.valid_queries} of {self.queries} queries valid; {self.gallery} gallery images, "
                f"{self.distractors} of them distractors (pid 0); {self.junk} of junk left out",
                "",
                *(f"rank-{k:<9}{percent[f'rank{k}']}" for k in (1, 5, 10, 20)),
                f"{'mAP':<14}{percent['mAP']}   plain average precision",
                f"{'mAP_market':<14}{percent['mAP_market']}   trapezoid rule, as in Market-1501's code and the 2017 paper",
                f"{'mINP':<14}{percent['mINP']}",
            ]
        )


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    metric: Metric = "euclidean",
    cross_camera: bool = True,
    *,
    block: int = 256,
) -> Report:
    """Rank the gallery for each query and measure where the right answers are.

    Market-1501's protocol: gallery images with a negative pid are junk and left out, distractors (pid 0) stay as wrong
    answers, and with `cross_camera` each query's ranking leaves out the images of its own pid and camera. Queries with
    a negative pid, or with no right answer left, do not count. A query of pid 0 is an identity like any other: gallery
    images of pid 0 are its right answers.

    Args:
        query: Q images.
        gallery: The images to rank.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        cross_camera: Whether the rule about cameras holds; turn it off where cameras are unknown or one only.
        block: Queries ranked at a time (fewer where the gallery exceeds a million images). Sets memory and speed,
            never the result: 64 keeps a block of Market's size in a CPU's cache.

    Raises:
        ValueError: No query has a right answer (the message says why and what to do), features of different length,
            a zero feature under cosine, an unknown metric, a block below 1.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1; found {block}.")
    matches = match(query, gallery, cross_camera)
    if not matches.count.any():
        raise ValueError(explain_no_match(query, gallery, matches))
    n = len(query.pids)
    ap, ap_market, inp = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    first_hit = np.zeros(n, np.int64)
    for rows, ranks, count in _blocks(query, gallery, matches, metric, block):
        ap[rows], ap_market[rows], inp[rows], first_hit[rows] = _precisions(ranks, count)
    valid = matches.count > 0
    g = len(matches.kept)
    return Report(
        metric=metric,
        cross_camera=cross_camera,
        cmc=np.cumsum(np.bincount(first_hit[valid], minlength=g + 1)[1:]) / valid.sum(),
        mAP=float(ap[valid].mean()),
        mAP_market=float(ap_market[valid].mean()),
        mINP=float(inp[valid].mean()),
        ap=ap,
        first_hit=first_hit,
        queries=n,
        valid_queries=int(valid.sum()),
        gallery=g,
        distractors=int((gallery.pids == 0).sum()),
        junk=len(gallery.pids) - g,
    )


def ranked_list(
    query: Embeddings,
    gallery: Embeddings,
    index: int,
    k: int,
    metric: Metric = "euclidean",
    cross_camera: bool = True,
) -> tuple[Int[np.ndarray, " k"], Bool[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
    """The first k images of one query's ranking, for pictures.

    Args:
        query: The queries.
        gallery: The images to rank, junk among them.
        index: Row of the query.
        k: Length of the list; the list is shorter where the ranking is.
        metric: As in `evaluate`.
        cross_camera: Likewise.

    Returns:
        Rows of `gallery` as given (junk and the query's own camera are not among them), whether each is right, and
        the distances.

    Raises:
        ValueError: An index that is no row of `query`, or what `evaluate` refuses.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; found {k}.")
    if not 0 <= index < len(query.pids):
        raise ValueError(f"index must be a row of the {len(query.pids)} queries; found {index}.")
    matches = match(query, gallery, cross_camera)
    left = np.flatnonzero(matches.gallery_group != matches.query_group[index])
    rows = matches.kept[left]
    ready = points(query, np.array([index]), gallery, rows, metric)
    side = jax.device_put((ready.query, ready.gallery, ready.gallery_squared))
    offset = np.asarray(offsets(*side))[0]
    best = np.argsort(offset, kind="stable")[:k]
    right = gallery.pids[rows[best]] == query.pids[index]
    distance = from_offsets(offset[best], ready.query_squared[0], ready.scale, metric)
    return rows[best], right, distance


def _blocks(
    query: Embeddings, gallery: Embeddings, matches: Matches, metric: Metric, block: int
) -> Iterator[tuple[Int[np.ndarray, " b"], Int32[np.ndarray, "b p"], Int[np.ndarray, " b"]]]:
    """Blocks of valid queries: their rows, the ranks of their right answers, and how many these are.

    Of a row of ranks only the first `count` mean anything.
    """
    valid = np.flatnonzero(matches.count)
    width = int(matches.count.max())
    size = max(1, min(block, len(valid), MAX_BLOCK_ELEMENTS // len(matches.kept)))
    ready = points(query, valid, gallery, matches.kept, metric)
    features = ready.query
    side = jax.device_put((ready.gallery, ready.gallery_squared, matches.gallery_group))
    del ready  # the gallery is on the device now
    # Queries with equally many right answers go together, as the longest list of a block sets its time.
    order = np.argsort(matches.count[valid], kind="stable")
    for begin in range(0, len(valid), size):
        part = order[begin : begin + size]
        full = np.resize(part, size)  # the last block is filled up, so that one program serves all
        rows = valid[full]
        own = (
            features[full],
            matches.query_group[rows],
            right_answers(matches, rows, width),
            np.int32(matches.count[rows].max()),
        )
        ranks = positive_ranks(*jax.device_put(own), *side)
        n = len(part)
        yield rows[:n], np.asarray(ranks)[:n], matches.count[rows[:n]]


@jax.jit
def positive_ranks(
    query: Float32[Array, "b d"],
    query_group: Int32[Array, " b"],
    positives: Int32[Array, "b p"],
    count: Int32[Array, ""],
    gallery: Float32[Array, "g d"],
    squared: Float32[Array, " g"],
    gallery_group: Int32[Array, " g"],
) -> Int32[Array, "b p"]:
    """Ranks of the right answers of a block of queries; a rank is a count, see the head of this file.

    Args:
        query: Features from `points`.
        query_group: Group of gallery images left out for each query.
        positives: Gallery positions of each query's right answers, filled up with any others.
        count: How many columns of positives to rank. It is data, so blocks differ in it without a new program.
        gallery: Features from `points`.
        squared: Their squared lengths.
        gallery_group: Group of each gallery image.

    Returns:
        Ranks from 1 on, in the order of `positives`; 0 from column `count` on.
    """
    left_out = gallery_group[None, :] == query_group[:, None]
    offset = jnp.where(left_out, jnp.inf, offsets(query, gallery, squared))
    position = lax.broadcasted_iota(jnp.int32, (1, len(gallery)), 1)

    def rank_column(k: Int32[Array, ""], ranks: Int32[Array, "b p"]) -> Int32[Array, "b p"]:
        positive = lax.dynamic_slice_in_dim(positives, k, 1, axis=1)
        own = jnp.take_along_axis(offset, positive, axis=1)
        ahead = jnp.where(position < positive, offset <= own, offset < own)
        rank = 1 + jnp.sum(ahead, axis=1, keepdims=True, dtype=jnp.int32)
        return lax.dynamic_update_slice_in_dim(ranks, rank, k, axis=1)

    # One right answer at a time: a pass over a block that fits the cache is faster than several at once, which XLA
    # does not keep in registers (measured on a CPU: 24 answers of 256 queries 0.024 s, by eights 0.053 s).
    return lax.fori_loop(0, count, rank_column, jnp.zeros_like(positives))


def _precisions(
    ranks: Int32[np.ndarray, "b p"], count: Int[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"], Float[np.ndarray, " b"], Int[np.ndarray, " b"]]:
    """Plain AP, trapezoid AP, inverse negative penalty and first hit of each query, in float64."""
    k = np.arange(1, ranks.shape[1] + 1)[None, :]
    real = k <= count[:, None]
    r = np.sort(np.where(real, ranks, np.iinfo(np.int32).max), axis=1)
    precision = np.where(real, k / r, 0.0)
    # Before the first place precision counts as 1, as in the authors' code.
    before = np.where(real, np.where(r > 1, (k - 1) / np.maximum(r - 1, 1), 1.0), 0.0)
    last = np.take_along_axis(r, count[:, None] - 1, axis=1)[:, 0]
    ap = precision.sum(axis=1) / count
    return ap, (ap + before.sum(axis=1) / count) / 2, count / last, r[:, 0]
