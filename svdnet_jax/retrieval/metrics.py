"""Retrieval metrics under Market-1501's protocol: CMC, both mAPs and mINP.

All follow from the ranks of the right answers, which are counted, not sorted for: `ranks` says what that costs.

Ties: of equal computed distances, the image that comes first in the gallery ranks first. Images with equal features
are equally far from any query. Distances between other images are equal where float32 is exact, as for small integers;
elsewhere they may differ in the last digit. Queries whose right answers are too near for float32 are ranked once more,
in float64.
"""

import jax
import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int32

from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.distances import Metric, points, too_close
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.protocol import Matches, explain_no_match, match
from svdnet_jax.retrieval.ranking import Ranks, rank_blocks
from svdnet_jax.retrieval.rerank import Rerank, rerank_scores
from svdnet_jax.retrieval.results import Report, RightAnswers


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    metric: Metric = "euclidean",
    cross_camera: bool = True,
    *,
    rerank: Rerank | None = None,
    block: int = 256,
) -> Report:
    """Ranks the gallery for each query and measure where the right answers are.

    Market-1501's protocol: gallery images with a negative pid are junk and left out, distractors (pid 0) stay
    as wrong answers, and with `cross_camera` a query's ranking leaves out the images of its pid and camera.
    Queries with a negative pid, or with no right answer left, do not count. To a query of pid 0, gallery
    images of pid 0 are right answers like those of any other identity.

    Args:
        query: Q images.
        gallery: The images to rank.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        cross_camera: Whether the rule about cameras holds; off where cameras are unknown or one only.
        rerank: Re-rank first, with these settings; None for the distances as they are.
        block: Queries ranked at a time, fewer for a gallery beyond 262 144 images. Sets memory and speed,
            not the result.

    Raises:
        ValueError: No query has a right answer (the message says why and what to do), features of different
            length, an unknown metric, a zero feature under cosine, a block below 1.

    Examples:
        One query, and three gallery images by another camera: a stranger at distance 1, the person at 2 and at 3.

        >>> query = Embeddings([[0.0]], pids=[5], cameras=[1])
        >>> gallery = Embeddings([[1.0], [2.0], [3.0]], pids=[6, 5, 5], cameras=[2, 2, 2])
        >>> report = evaluate(query, gallery)
        >>> print(report.rank(1), report.rank(2), round(report.mAP, 3), round(report.mAP_market, 3))
        0.0 1.0 0.583 0.417
    """
    if block < 1:
        raise ValueError(f"block must be at least 1; found {block}.")
    matches = match(query, gallery, cross_camera)
    valid = matches.count > 0
    if not valid.any():
        raise ValueError(explain_no_match(query, gallery, matches))
    n, g = len(query.pids), len(matches.kept)
    if rerank:
        chosen = query, np.flatnonzero(valid), gallery, matches.kept, metric
        mixture = rerank_scores(points(*chosen), *chosen, rerank)
        blocks = list(rank_blocks(mixture.ready, matches, chosen[1], block, mixture.subtract))
    else:
        blocks = _ranked(query, gallery, matches, metric, block)
    ap, ap_market, inp = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    for ranked in blocks:
        ap[ranked.queries], ap_market[ranked.queries], inp[ranked.queries] = precisions(ranked.ranks, ranked.counts)
    right = RightAnswers.gather(blocks, matches)
    first_hit = right.first()
    return Report(
        metric=metric,
        cross_camera=cross_camera,
        rerank=rerank,
        cmc=np.cumsum(np.bincount(first_hit[valid], minlength=g + 1)[1:]) / valid.sum(),
        mAP=float(ap[valid].mean()),
        mAP_market=float(ap_market[valid].mean()),
        mINP=float(inp[valid].mean()),
        ap=ap,
        ap_market=ap_market,
        inp=inp,
        first_hit=first_hit,
        right=right,
        queries=n,
        valid_queries=int(valid.sum()),
        gallery=g,
        distractors=int((gallery.pids == 0).sum()),
        junk=len(gallery.pids) - g,
    )


def _ranked(query: Embeddings, gallery: Embeddings, matches: Matches, metric: Metric, block: int) -> list[Ranks]:
    """Ranks of the right answers of all valid queries; of blocks that hold a query twice, the later is right."""
    valid = np.flatnonzero(matches.count)
    ready = points(query, valid, gallery, matches.kept, metric)
    blocks = list(rank_blocks(ready, matches, valid, block))
    squared = np.zeros(len(query.pids), np.float32)
    squared[valid] = ready.query_squared
    again = np.concatenate([each.queries[too_close(each.nearest, squared[each.queries])] for each in blocks])
    if again.size:
        del ready
        with jax.enable_x64(True):
            exact = points(query, again, gallery, matches.kept, metric, np.float64)
            blocks += rank_blocks(exact, matches, again, block)
    return blocks


def ranked_list(
    query: Embeddings,
    gallery: Embeddings,
    index: int,
    k: int,
    metric: Metric = "euclidean",
    cross_camera: bool = True,
) -> tuple[Int[np.ndarray, " k"], Bool[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Returns the first k images of one query's ranking, for pictures.

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
    points(query, np.array([index]), gallery, matches.kept, metric)  # refuses what `evaluate` refuses
    rows = matches.kept[matches.gallery_group != matches.query_group[index]]
    distance = between(query.features[index, None], gallery.features, rows[None], metric == "cosine")[0]
    order = np.argsort(distance, kind="stable")[:k]
    return rows[order], gallery.pids[rows[order]] == query.pids[index], distance[order]


def precisions(
    ranks: Int32[np.ndarray, "b p"], count: Int[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Returns plain AP, trapezoid AP, and right answers / rank of the last.

    Args:
        ranks: Of each query's right answers, ascending.
        count: How many they are, at least one; later columns mean nothing.
    """
    k = np.arange(1, ranks.shape[1] + 1)[None, :]
    real = k <= count[:, None]
    at = np.where(real, k / ranks, 0.0).sum(axis=1) / count
    before = np.where(ranks > 1, (k - 1) / np.maximum(ranks - 1, 1), 1.0)
    before = np.where(real, before, 0.0).sum(axis=1) / count
    last = np.take_along_axis(ranks, count[:, None] - 1, axis=1)[:, 0]
    return at, (at + before) / 2, count / last
