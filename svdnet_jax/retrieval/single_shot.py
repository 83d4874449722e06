"""Single shot: one gallery image per identity, drawn at random, and the mean over repeated draws (CUHK03's protocol).

What the draws show is settled first, so that distances are computed once: between the queries and the images that
some draw shows, one product by blocks of queries. Of a block each draw takes its columns and counts. The product is
never larger than that of `evaluate`, however many draws there are, and a right answer is compared with others
of the very product it is from.

Source: Li et al., "DeepReID", CVPR 2014: one gallery is drawn for all queries, 100 times. torchreid's eval_cuhk03
draws anew for each query, 10 times, and takes its mAP from the whole gallery.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from svdnet_jax.retrieval.distances import Metric, Points, offsets, points, too_close
from svdnet_jax.retrieval.draws import Draws, draw, drawn_themselves, random_orders
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.protocol import explain_no_match, match
from svdnet_jax.retrieval.ranking import MAX_BLOCK_ELEMENTS


@dataclass(frozen=True, eq=False)
class SingleShot:
    """What `evaluate_single_shot` found. Shares are in [0, 1]; each draw's metrics are means over the valid queries.

    Standard deviations are over the draws, divided by one less than their number; NaN for a single draw.
    """

    metric: Metric
    cross_camera: bool
    repeats: int
    """Draws."""
    seed: int
    cmc: Float[np.ndarray, " n"]
    """cmc[k - 1] is rank-k, the mean over the draws; N images are shown, identities and distractors."""
    cmc_std: Float[np.ndarray, " n"]
    """Its standard deviation."""
    mAP: float  # noqa: N815 - as the field writes it
    """Mean of 1 / rank, which average precision is where there is one right answer."""
    mAP_std: float  # noqa: N815
    """Its standard deviation."""
    queries: int
    """All queries."""
    valid_queries: int
    """Those with a right answer; only they count."""
    identities: int
    """Identities in the gallery, pid 0 aside: one image of each is shown."""
    distractors: int
    """Gallery images with pid 0: all of them are shown."""

    def rank(self, k: int) -> float:
        """Returns rank-k, the mean over the draws.

        Args:
            k: From 1 on; 1.0 beyond the images shown.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"ranks start at 1; found {k}.")
        return float(self.cmc[min(k, len(self.cmc)) - 1])

    def metrics(self) -> dict[str, float]:
        """Returns the numbers that logs and tables hold, by name."""
        return {f"rank{k}": self.rank(k) for k in (1, 5, 10, 20)} | {"mAP": self.mAP}

    def __str__(self) -> str:
        camera = "images of the query's identity and camera left out" if self.cross_camera else "all cameras kept"
        stds = [float(self.cmc_std[min(k, len(self.cmc)) - 1]) for k in (1, 5, 10, 20)] + [self.mAP_std]
        spread = [f" ± {100 * std:.2f}" if self.repeats > 1 else "" for std in stds]
        lines = zip(self.metrics().items(), spread, strict=True)
        return "\n".join(
            [
                f"{self.metric} distance, {camera}",
                f"single shot: mean{' ± standard deviation' * (self.repeats > 1)} of {self.repeats} draws "
                f"(seed {self.seed})",
                f"{self.valid_queries} of {self.queries} queries have a right answer and count",
                f"each draw shows one image of each of {self.identities} identities and all "
                f"{self.distractors} distractors (pid 0)",
                *(f"  {name:<11}{100 * value:6.2f}{std} %" for (name, value), std in lines),
            ]
        )


def evaluate_single_shot(
    query: Embeddings,
    gallery: Embeddings,
    metric: Metric = "euclidean",
    cross_camera: bool = True,
    *,
    repeats: int = 10,
    seed: int = 0,
    one_set: bool = False,
    block: int = 256,
) -> SingleShot:
    """Draws one gallery image per identity, rank them for each query, and take the mean over repeated draws.

    A draw is a random order of the gallery without junk. An identity's image is its first in that order; to a query
    of that identity it is the first that the rule about cameras leaves, and no other of the identity is in the
    ranking. So each valid query has exactly one right answer, any of those of `evaluate` with equal chance, and the
    valid queries are the same.

    Distractors (pid 0) are nobody in particular: all of them stay as wrong answers in every draw. (torchreid takes
    pid 0 for an identity and draws one of them.) To a query of pid 0, as in `evaluate`, pid 0 is an identity like any
    other: one of the images of pid 0 is its right answer and the others are left out.

    Ties: of equal computed distances, the image that comes first in the gallery ranks first, as in `evaluate`.

    Args:
        query: Q images.
        gallery: The images to draw from.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        cross_camera: Whether a query's ranking leaves out the images of its pid and camera.
        repeats: Draws. The first of many are the same as those of few.
        seed: Of the draws.
        one_set: Whether query set and gallery are one, each image with a camera of its own, as `leave_self_out` gives
            them: what a draw shows does not ask in it (VehicleID's protocol; Liu et al., CVPR 2016).
        block: Queries ranked at a time, fewer where draws show more than 262 144 images. Sets memory and speed, not
            the result.

    Raises:
        ValueError: No query has a right answer (the message says why and what to do), features of different length
            or different models, an unknown metric, a zero feature under cosine, a negative seed, repeats or a
            block below 1.
    """
    if not 1 <= repeats <= 10_000:  # all draws are held at a time
        raise ValueError(f"repeats must be at least 1 and at most 10000; found {repeats}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0; found {seed}.")
    if block < 1:
        raise ValueError(f"block must be at least 1; found {block}.")
    matches = match(query, gallery, cross_camera)
    valid = np.flatnonzero(matches.count)
    if not len(valid):
        raise ValueError(explain_no_match(query, gallery, matches))
    asking, cameras = query.pids[valid], query.cameras[valid] if cross_camera else None
    orders = random_orders(len(matches.kept), repeats, seed)
    drawn = draw(orders, gallery.pids[matches.kept], gallery.cameras[matches.kept], asking, cameras)
    ready = points(query, valid, gallery, matches.kept, metric)
    ranks, own = _ranks(ready, drawn, block)
    again = np.flatnonzero(too_close(own.min(axis=0), ready.query_squared))
    if again.size:
        del ready
        with jax.enable_x64(True):
            exact = points(query, valid[again], gallery, matches.kept, metric, np.float64)
            ranks[:, again], _ = _ranks(exact, drawn.only(again), block)
    n = drawn.shown.shape[1] + len(drawn.distractors)
    asked = ~drawn_themselves(drawn, gallery.cameras[matches.kept], query.cameras[valid], one_set)
    counted = [each[some] for each, some in zip(ranks, asked, strict=True)]
    cmc = np.stack([np.cumsum(np.bincount(each, minlength=n + 1)[1:]) / len(each) for each in counted])
    precision = np.array([(1 / each).mean() for each in counted])
    return SingleShot(
        metric=metric,
        cross_camera=cross_camera,
        repeats=repeats,
        seed=seed,
        cmc=cmc.mean(axis=0),
        cmc_std=cmc.std(axis=0, ddof=1) if repeats > 1 else np.full(n, np.nan),
        mAP=float(precision.mean()),
        mAP_std=float(precision.std(ddof=1)) if repeats > 1 else float("nan"),
        queries=len(query.pids),
        valid_queries=len(valid),
        identities=drawn.shown.shape[1],
        distractors=len(drawn.distractors),
    )


def _ranks(ready: Points, draws: Draws, block: int) -> tuple[Int32[np.ndarray, "r v"], Float[np.ndarray, "r v"]]:
    """Ranks of each query's right answer in each draw, and its offset."""
    every = np.concatenate([draws.shown, draws.right], axis=1)
    place = np.concatenate([draws.distractors, np.setdiff1d(every, draws.distractors)])
    column = np.empty(len(ready.gallery), np.int32)
    column[place] = np.arange(len(place))
    shown, right = column[draws.shown], column[draws.right]
    side = jax.device_put((ready.gallery[place], place.astype(np.int32), shown))
    alike = None if ready.alike is None else jax.device_put(_first_columns(ready.alike[place]))
    v = len(ready.query)
    size = max(1, min(block, v, MAX_BLOCK_ELEMENTS // len(place)))
    ranks, offset = np.empty(right.shape, np.int32), np.empty(right.shape, ready.query.dtype)
    for begin in range(0, v, size):
        part = np.arange(begin, begin + size) % v  # the last block too is a full one: one program serves all
        own = jax.device_put((ready.query[part], draws.identity[part].astype(np.int32), right[:, part]))
        ranks[:, part], offset[:, part] = drawn_ranks(*own, *side, alike, distractors=len(draws.distractors))
    return ranks, offset


def _first_columns(alike: Int32[np.ndarray, " c"]) -> Int32[np.ndarray, " c"]:
    _, first, number = np.unique(alike, return_index=True, return_inverse=True)
    return first[number].astype(np.int32)


@partial(jax.jit, static_argnames="distractors")
def drawn_ranks(
    query: Float[Array, "b e"],
    identity: Int32[Array, " b"],
    right: Int32[Array, "r b"],
    gallery: Float[Array, "c e"],
    place: Int32[Array, " c"],
    shown: Int32[Array, "r i"],
    alike: Int32[Array, " c"] | None,
    distractors: int,
) -> tuple[Int32[Array, "r b"], Float[Array, "r b"]]:
    """Ranks of the right answers of a block of queries in each draw, by counting.

    Args:
        query: Features from `points`.
        identity: As in `Draws`.
        right: Column of each query's right answer, a row per draw.
        gallery: Features from `points`: first of the distractors, then of all else that some draw shows.
        place: Where these images are in the gallery, for ties.
        shown: Column of each identity's image, a row per draw.
        alike: `Points.alike`, in columns.
        distractors: How many come first.

    Returns:
        The ranks, and the offsets of the right answers.
    """
    offset = offsets(query, gallery, alike)
    # Of the query's own identity nothing but the right answer is in its ranking.
    other = lax.broadcasted_iota(jnp.int32, (1, shown.shape[1]), 1) != identity[:, None]

    def rank_draw(of: tuple[Int32[Array, " i"], Int32[Array, " b"]]) -> tuple[Int32[Array, " b"], Float[Array, " b"]]:
        columns, answer = of
        own = jnp.take_along_axis(offset, answer[:, None], axis=1)

        def ahead(distance: Float[Array, "b n"], at: Int32[Array, " n"]) -> Bool[Array, "b n"]:
            return jnp.where(at[None, :] < place[answer][:, None], distance <= own, distance < own)

        people = jnp.sum(ahead(offset[:, columns], place[columns]) & other, axis=1, dtype=jnp.int32)
        nobody = jnp.sum(ahead(offset[:, :distractors], place[:distractors]), axis=1, dtype=jnp.int32)
        return 1 + people + jnp.where(identity < 0, 0, nobody), own[:, 0]

    return lax.map(rank_draw, (shown, right))
