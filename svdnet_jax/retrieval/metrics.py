"""Retrieval metrics under Market-1501's protocol: CMC, both mAPs and mINP.

They all follow from the ranks of each query's right answers, and such a rank is a count:

    rank(p) = 1 + #{j : d_j < d_p} + #{j : d_j = d_p and j before p in the gallery}

so nothing is sorted. The cost is one product of query and gallery features and, for each right answer, one
pass over its query's distances: O(Q G D + Q P G) for P right answers a query. Queries go by blocks: memory is
twice the gallery's features and a few times block x G float32, never Q x G.

Ties: of equal computed distances, the image that comes first in the gallery ranks first. Equal features have
equal distances where float32 is exact, as for small integers; elsewhere a matrix product may tell them apart
in the last digit.
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

# Most distances held at a time, 256 MiB of them: blocks shrink for galleries beyond 262 144 images.
MAX_BLOCK_ELEMENTS = 2**26


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` found. Shares are in [0, 1]; means are over the valid queries."""

    metric: Metric
    cross_camera: bool
    cmc: Float[np.ndarray, " g"]
    """cmc[k - 1] is rank-k: the share of valid queries with a right answer among the first k."""
    mAP: float  # noqa: N815 - as the field writes it
    """Mean of plain average precision: the mean of k / r, the k-th right answer being at rank r."""
    mAP_market: float  # noqa: N815
    """By the trapezoid rule of Market-1501's code: k / r becomes (k / r + (k - 1) / (r - 1)) / 2, the second
    precision counting as 1 at r = 1."""
    mINP: float  # noqa: N815
    """Mean of right answers / rank of the last one (Ye et al. 2021)."""
    ap: Float[np.ndarray, " q"]
    """Plain average precision of each query; NaN for queries that do not count."""
    first_hit: Int[np.ndarray, " q"]
    """Rank of each query's first right answer; 0 for queries that do not count."""
    queries: int
    """All queries."""
    valid_queries: int
    """Those with a right answer; only they count."""
    gallery: int
    """G, gallery images without junk."""
    distractors: int
    """Those of them with pid 0."""
    junk: int
    """Gallery images left out for their negative pid."""

    def rank(self, k: int) -> float:
        """Rank-k: the share of valid queries with a right answer among the first k.

        Args:
            k: From 1 on; 1.0 beyond the gallery's size.

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
        notes = {
            "mAP": "plain average precision",
            "mAP_market": "trapezoid rule of Market-1501's code, as in the 2017 paper",
            "mINP": "how early the last right answer comes",
        }
        camera = "images of the query's identity and camera left out" if self.cross_camera else "all cameras kept"
        return "\n".join(
            [
                f"{self.metric} distance, {camera}",
                f"{self.valid_queries} of {self.queries} queries have a right answer and count",
                f"{self.gallery} gallery images, {self.distractors} of them distractors (pid 0); "
                f"{self.junk} more are junk (negative pid), left out",
                *(
                    f"  {name:<11}{100 * value:6.2f} %  {notes.get(name, '')}".rstrip()
                    for name, value in self.metrics().items()
                ),
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

    Market-1501's protocol: gallery images with a negative pid are junk and left out, distractors (pid 0) stay
    as wrong answers, and with `cross_camera` a query's ranking leaves out the images of its pid and camera.
    Queries with a negative pid, or with no right answer left, do not count. To a query of pid 0, gallery
    images of pid 0 are right answers like those of any other identity.

    Args:
        query: Q images.
        gallery: The images to rank.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        cross_camera: Whether the rule about cameras holds; off where cameras are unknown or one only.
        block: Queries ranked at a time, fewer for a gallery beyond 262 144 images. Sets memory and speed,
            not the result.

    Raises:
        ValueError: No query has a right answer (the message says why and what to do), features of different
            length, an unknown metric, a zero feature under cosine, a block below 1.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1; found {block}.")
    matches = match(query, gallery, cross_camera)
    valid = matches.count > 0
    if not valid.any():
        raise ValueError(explain_no_match(query, gallery, matches))
    n, g = len(query.pids), len(matches.kept)
    ap, ap_market, inp = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    first_hit = np.zeros(n, np.int64)
    for rows, ranks, count in _blocks(query, gallery, matches, metric, block):
        ap[rows], ap_market[rows], inp[rows], first_hit[rows] = _precisions(ranks, count)
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
        gallery: The images to rank.
        index: Row of the query.
        k: Length of the list, which is shorter where the ranking is.
        metric: As in `evaluate`.
        cross_camera: Likewise.

    Returns:
        Rows of `gallery` as given (no junk, nothing the camera rule leaves out), whether each is right, and
        the distances.

    Raises:
        ValueError: No such query, k below 1, a gallery of nothing but junk, or what `evaluate` refuses.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; found {k}.")
    if not 0 <= index < len(query.pids):
        raise ValueError(f"index must be below the {len(query.pids)} queries; found {index}.")
    matches = match(query, gallery, cross_camera)
    if not len(matches.kept):
        raise ValueError(f"the gallery has nothing to rank: {len(gallery.pids)} images, all of them junk.")
    ready = points(query, np.array([index]), gallery, matches.kept, metric)
    side = jax.device_put((ready.query, ready.gallery, ready.gallery_squared))
    offset = np.asarray(offsets(*side))[0]
    order = np.argsort(offset, kind="stable")
    best = order[matches.gallery_group[order] != matches.query_group[index]][:k]
    rows = matches.kept[best]
    distance = from_offsets(offset[best], ready.query_squared[0], ready.scale, metric)
    return rows, gallery.pids[rows] == query.pids[index], distance


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
    del ready  # a second copy of the gallery, once it is on the device
    # Queries with equally many right answers go together: the longest list of a block sets its time.
    order = np.argsort(matches.count[valid], kind="stable")
    for begin in range(0, len(valid), size):
        part = order[begin : begin + size]
        filled = np.resize(part, size)  # the last block too is a full one: one program serves all
        rows = valid[filled]
        own = (
            features[filled],
            matches.query_group[rows],
            right_answers(matches, rows, width),
            np.int32(matches.count[rows].max()),
        )
        ranks = np.asarray(positive_ranks(*jax.device_put(own), *side))
        n = len(part)
        yield rows[:n], ranks[:n], matches.count[rows[:n]]


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
    """Ranks of the right answers of a block of queries, by counting (see the head of this file).

    Args:
        query: Features from `points`.
        query_group: The group of gallery images left out for each query.
        positives: Gallery positions of each query's right answers, filled up with any others.
        count: Columns of positives to rank. It is data: blocks that differ in it share one program.
        gallery: Features from `points`.
        squared: Their squared lengths.
        gallery_group: The group of each gallery image.

    Returns:
        Ranks from 1 on, in the order of `positives`; 0 from column `count` on.
    """
    left_out = gallery_group[None, :] == query_group[:, None]
    offset = jnp.where(left_out, jnp.inf, offsets(query, gallery, squared))
    position = lax.broadcasted_iota(jnp.int32, (1, len(gallery)), 1)

    def rank_column(k: Int32[Array, ""], ranks: Int32[Array, "b p"]) -> Int32[Array, "b p"]:
        positive = lax.dynamic_slice_in_dim(positives, k, 1, axis=1)
        # Read from the block that it is compared with: computed anew it could differ in the last digit.
        own = jnp.take_along_axis(offset, positive, axis=1)
        ahead = jnp.where(position < positive, offset <= own, offset < own)
        rank = 1 + jnp.sum(ahead, axis=1, keepdims=True, dtype=jnp.int32)
        return lax.dynamic_update_slice_in_dim(ranks, rank, k, axis=1)

    # One right answer at a time: XLA's CPU code takes twice as long over eight at once (24 answers of 256
    # queries at Market-1501's size: 0.024 s and 0.053 s).
    return lax.fori_loop(0, count, rank_column, jnp.zeros_like(positives))


def _precisions(
    ranks: Int32[np.ndarray, "b p"], count: Int[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"], Float[np.ndarray, " b"], Int[np.ndarray, " b"]]:
    """Plain AP, trapezoid AP, right answers / rank of the last, and first hit of each query."""
    k = np.arange(1, ranks.shape[1] + 1)[None, :]
    real = k <= count[:, None]
    r = np.sort(np.where(real, ranks, np.iinfo(np.int32).max), axis=1)
    at = np.where(real, k / r, 0.0).sum(axis=1) / count
    before = np.where(r > 1, (k - 1) / np.maximum(r - 1, 1), 1.0)
    before = np.where(real, before, 0.0).sum(axis=1) / count
    last = np.take_along_axis(r, count[:, None] - 1, axis=1)[:, 0]
    return at, (at + before) / 2, count / last, r[:, 0]
