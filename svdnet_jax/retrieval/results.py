"""`Report`: the result of an evaluation, as numbers and as text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64

from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.protocol import Matches
from svdnet_jax.retrieval.ranking import Ranks
from svdnet_jax.retrieval.rerank import Rerank


@dataclass(frozen=True, eq=False)
class RightAnswers:
    """The right answers of all queries, one after another, each query's in the order of its ranking.

    Those of query q are the entries from `start[q]` to `start[q + 1]`: S is one more than the queries.
    """

    start: Int64[np.ndarray, " s"]
    ranks: Int64[np.ndarray, " n"]
    """From 1 on, ascending for each query."""
    images: Int64[np.ndarray, " n"]
    """Rows of the gallery as given."""

    @classmethod
    def gather(cls, blocks: Sequence[Ranks], matches: Matches) -> "RightAnswers":
        """Gathers the blocks of `rank_blocks`."""
        start = np.concatenate([[0], np.cumsum(matches.count)])
        ranks, images = np.empty(start[-1], np.int64), np.empty(start[-1], np.int64)
        for block in blocks:
            column = np.arange(block.ranks.shape[1])[None, :]
            real = column < block.counts[:, None]
            entry = (start[block.queries][:, None] + column)[real]
            ranks[entry], images[entry] = block.ranks[real], matches.kept[block.images[real]]
        return cls(start, ranks, images)

    def first(self) -> Int64[np.ndarray, " q"]:
        """Ranks of each query's first right answer; 0 where there is none."""
        ranks = np.zeros(len(self.start) - 1, np.int64)
        some = np.diff(self.start) > 0
        ranks[some] = self.ranks[self.start[:-1][some]]
        return ranks


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` found. Shares are in [0, 1]; means are over the valid queries."""

    metric: Metric
    """Distance that the gallery was ranked by."""
    cross_camera: bool
    """Whether a query's own camera was left out for its identity."""
    rerank: Rerank | None
    """Settings of re-ranking; None without."""
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
    ap_market: Float[np.ndarray, " q"]
    """Likewise by the trapezoid rule."""
    inp: Float[np.ndarray, " q"]
    """Right answers / rank of the last one, of each query; NaN likewise."""
    first_hit: Int[np.ndarray, " q"]
    """Rank of each query's first right answer; 0 for queries that do not count."""
    right: RightAnswers
    """Ranks and gallery rows of all right answers."""
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
        """Returns rank-k: the share of valid queries with a positive among the first k.

        Args:
            k: From 1 on; 1.0 beyond the gallery's size.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"ranks start at 1; found {k}.")
        return float(self.cmc[min(k, len(self.cmc)) - 1])

    def metrics(self) -> dict[str, float]:
        """Returns the numbers that logs and tables hold, by name."""
        ranks = {f"rank{k}": self.rank(k) for k in (1, 5, 10, 20)}
        return ranks | {"mAP": self.mAP, "mAP_market": self.mAP_market, "mINP": self.mINP}

    def per_query(self, measure: str) -> Float[np.ndarray, " q"]:
        """Returns what a number of `metrics` is the mean of, query by query; of no meaning for those that do not count.

        Args:
            measure: Its name.
        """
        if measure.startswith("rank"):
            return ((self.first_hit > 0) & (self.first_hit <= int(measure.removeprefix("rank")))).astype(float)
        return {"mAP": self.ap, "mAP_market": self.ap_market, "mINP": self.inp}[measure]

    def __str__(self) -> str:
        notes = {
            "mAP": "plain average precision",
            "mAP_market": "trapezoid rule of Market-1501's code, as in the 2017 paper",
            "mINP": "how early the last right answer comes",
        }
        camera = "images of the query's identity and camera left out" if self.cross_camera else "all cameras kept"
        return "\n".join(
            [
                f"{self.metric} distance{self._reranked()}, {camera}",
                f"{self.valid_queries} of {self.queries} queries have a right answer and count",
                f"{self.gallery} gallery images, {self.distractors} of them distractors (pid 0); "
                f"{self.junk} more are junk (negative pid), left out",
                *(
                    f"  {name:<11}{100 * value:6.2f} %  {notes.get(name, '')}".rstrip()
                    for name, value in self.metrics().items()
                ),
            ]
        )

    def _reranked(self) -> str:
        if self.rerank is None:
            return ""
        return f", re-ranked (k1 {self.rerank.k1}, k2 {self.rerank.k2}, lambda {self.rerank.weight:g})"
