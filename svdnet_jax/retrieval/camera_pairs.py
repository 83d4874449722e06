"""Metrics for each pair of a query camera and a gallery camera, from the ranks that `evaluate` found.

For a query of camera a and a gallery camera b, the right answers are those of camera b. Right answers of other cameras
are left out of the ranking, the wrong answers of all cameras stay. So the rank of a right answer within its pair is its
rank among all, less the right answers of other cameras ahead of it, and no distance is needed a second time.

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, and its code, compute_r1_multiCam.m
and compute_AP_multiCam.m.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import precisions
from svdnet_jax.retrieval.results import Report

METRICS = ("rank1", "mAP", "mAP_market", "mINP")
"""Fields of `CameraPairs` that are metrics."""
MOST_CAMERAS = 20
"""Cameras on a side up to which the text is a table."""


@dataclass(frozen=True, eq=False)
class CameraPairs:
    """What `camera_pairs` found. Metrics are in [0, 1], means over the queries of a pair, NaN where it has none."""

    query_cameras: Int64[np.ndarray, " a"]
    """Cameras of the valid queries, ascending."""
    gallery_cameras: Int64[np.ndarray, " b"]
    """Cameras of the right answers, ascending."""
    queries: Int64[np.ndarray, "a b"]
    """Queries of camera a that have a right answer in camera b."""
    rank1: Float[np.ndarray, "a b"]
    """Share of them with a right answer at rank 1."""
    mAP: Float[np.ndarray, "a b"]  # noqa: N815 - as the field writes it
    """Like `Report.mAP`, and so on."""
    mAP_market: Float[np.ndarray, "a b"]  # noqa: N815
    mINP: Float[np.ndarray, "a b"]  # noqa: N815

    def to_json(self) -> list[dict[str, int | float]]:
        """Returns an entry for each pair that has queries, by query camera, then gallery camera, as JSON takes it."""
        return [
            {
                "query_camera": int(self.query_cameras[a]),
                "gallery_camera": int(self.gallery_cameras[b]),
                "queries": int(self.queries[a, b]),
                **{name: float(getattr(self, name)[a, b]) for name in METRICS},
            }
            for a, b in np.argwhere(self.queries)
        ]

    def __str__(self) -> str:
        small = max(self.queries.shape) <= MOST_CAMERAS
        show = self._table if small else self._summary
        return "\n".join(
            [
                f"{np.count_nonzero(self.queries)} pairs of a query camera and a gallery camera have queries; "
                "each number is a mean over those of its pair",
                *show("rank-1", self.rank1),
                *show("mAP", self.mAP),
            ]
        )

    def _table(self, name: str, values: Float[np.ndarray, "a b"]) -> list[str]:
        cameras = *map(str, self.query_cameras), *map(str, self.gallery_cameras)
        width = max(6, *map(len, cameras))
        cells = [["-" if np.isnan(value) else f"{100 * value:.2f}" for value in line] for line in values]
        head = [["", *map(str, self.gallery_cameras)]]
        body = [[str(camera), *line] for camera, line in zip(self.query_cameras, cells, strict=True)]
        return [
            f"{name} in %, rows: query camera, columns: gallery camera",
            *("  ".join(cell.rjust(width) for cell in line) for line in head + body),
        ]

    def _summary(self, name: str, values: Float[np.ndarray, "a b"]) -> list[str]:
        return [
            f"{name} of the pairs: mean {100 * np.nanmean(values):.2f} %, median {100 * np.nanmedian(values):.2f} %",
            f"  worst {self._at(values, int(np.nanargmin(values)))}",
            f"  best  {self._at(values, int(np.nanargmax(values)))}",
        ]

    def _at(self, values: Float[np.ndarray, "a b"], place: int) -> str:
        a, b = np.unravel_index(place, values.shape)
        return (
            f"{100 * values[a, b]:6.2f} %  query camera {self.query_cameras[a]}, "
            f"gallery camera {self.gallery_cameras[b]}, queries: {self.queries[a, b]}"
        )


def camera_pairs(report: Report, query: Embeddings, gallery: Embeddings) -> CameraPairs:
    """Breaks an evaluation down by camera of the query and camera of the positive.

    With `cross_camera` the diagonal is empty, as images of the query's identity and camera were left out. Market-1501's
    code fills it from what it leaves out: there the right answers are all junk (pid -1) and the images of the query's
    identity and camera, but for whichever image is ranked first of all, which it takes for the query itself. An
    `evaluate` with cross_camera=False fills it here with the images of the query's identity and camera and no junk; a
    copy of the query in the gallery is then a right answer too. Other pairs are the same with either.

    Args:
        report: What `evaluate` found, re-ranked or not.
        query: The queries it was given.
        gallery: Likewise.

    Raises:
        ValueError: The report is of other queries or of another gallery.
    """
    right, counts = report.right, np.diff(report.right.start)
    of = np.repeat(np.arange(len(counts)), counts)
    _check(report, of, query, gallery)
    place = np.arange(len(of)) - right.start[of]
    valid = np.flatnonzero(counts)
    query_cameras, row = np.unique(query.cameras[valid], return_inverse=True)
    row_of = np.zeros(len(counts), np.int64)
    row_of[valid] = row
    gallery_cameras, camera = np.unique(gallery.cameras[right.images], return_inverse=True)
    shape = len(query_cameras), len(gallery_cameras)
    queries, measured = np.zeros(shape, np.int64), {name: np.full(shape, np.nan) for name in METRICS}
    for b in range(len(gallery_cameras)):
        entries = np.flatnonzero(camera == b)
        own, count = np.unique(of[entries], return_counts=True)
        line = np.repeat(np.arange(len(own)), count)
        column = np.arange(len(entries)) - np.repeat(np.cumsum(count) - count, count)
        ranks = np.ones((len(own), count.max()), np.int32)
        # Of the right answers ahead of an entry, which are `place`, `column` are of its own camera.
        ranks[line, column] = right.ranks[entries] - (place[entries] - column)
        queries[:, b] = np.bincount(row_of[own], minlength=shape[0])
        some = queries[:, b] > 0
        for name, values in zip(METRICS, (ranks[:, 0] == 1, *precisions(ranks, count)), strict=True):
            sums = np.bincount(row_of[own], weights=values, minlength=shape[0])
            measured[name][some, b] = sums[some] / queries[some, b]
    return CameraPairs(query_cameras, gallery_cameras, queries, **measured)


def _check(report: Report, of: Int64[np.ndarray, " n"], query: Embeddings, gallery: Embeddings) -> None:
    """Refuses sets whose pids do not fit the report's right answers."""
    images = report.right.images
    same = (
        report.queries == len(query.pids)
        and report.gallery + report.junk == len(gallery.pids)
        and np.array_equal(query.pids[of], gallery.pids[images])
    )
    if not same:
        raise ValueError(
            f"the report is of {report.queries} queries and {report.gallery + report.junk} gallery images, and its "
            f"right answers do not fit the {len(query.pids)} queries and {len(gallery.pids)} gallery images given; "
            "give the sets that were evaluated, in the same order."
        )
