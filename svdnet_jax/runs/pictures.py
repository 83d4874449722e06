"""Pictures of single queries: their ranked lists, and what makes them and what they find alike."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure

from svdnet_jax.data.types import Dataset
from svdnet_jax.reporting.figures.alike import Pair, alike
from svdnet_jax.reporting.figures.ranked import RankedList, choose_queries, ranked_lists
from svdnet_jax.reporting.figures.style import short
from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import ranked_list
from svdnet_jax.retrieval.pixel_parts import pixel_parts

SHOWN = 10
"""Gallery images in a ranked list."""
Pixels = Callable[[UInt8[np.ndarray, "N h w 3"]], Mapping[str, Any]]
"""`svdnet_jax.training.pixel_features.PixelFn` of a network's variables."""


class Ranked(NamedTuple):
    """A test set that was ranked by an embedding."""

    dataset: Dataset
    query: Embeddings
    """Of the dataset's queries, in their order."""
    gallery: Embeddings
    ap: Float[np.ndarray, " Q"]
    """Average precision of each query; NaN for those that do not count."""
    metric: Metric
    cross_camera: bool


def ranked_figure(ranked: Ranked) -> Figure | None:
    """Draws the queries with the best, the median and the worst AP, and their nearest gallery images, with file names.

    Returns:
        The figure; None where no query counts.
    """
    dataset, sections = ranked.dataset, {}
    for heading, chosen in choose_queries(ranked.ap).items():
        rows = []
        for index in chosen:
            nearest, right, distances = _list(ranked, int(index), SHOWN)
            who = short(ranked.query.people, int(dataset.query.pids[index]), 4)
            captions = [f"c{dataset.gallery.cameras[i]}  {d:.2f}" for i, d in zip(nearest, distances, strict=True)]
            rows.append(
                RankedList(
                    query=dataset.query.images[index],
                    query_caption=f"{who} c{dataset.query.cameras[index]}",
                    gallery=list(dataset.gallery.images[nearest]),
                    right=right,
                    captions=captions,
                    average_precision=float(ranked.ap[index]),
                    query_name=str(ranked.query.names[index]),
                    names=ranked.gallery.names[nearest].tolist(),
                )
            )
        if rows:
            sections[heading] = rows
    title = (
        f"The {SHOWN} nearest gallery images of the queries with the best, the median and the worst average "
        "precision; under each its camera, distance and file"
    )
    return ranked_lists(sections, title) if sections else None


def alike_figure(ranked: Ranked, pixels: Pixels, kind: str) -> Figure | None:
    """Draws what makes queries and their nearest image alike, and what sets them apart.

    Where the nearest image is wrong, the nearest right one follows.

    Args:
        ranked: The test set.
        pixels: The network that made its embeddings.
        kind: Which they are, ``embedding`` or ``pooled``.

    Returns:
        The figure; None where no query counts, or the network's last feature map is one pixel.
    """
    dataset, center = ranked.dataset, gallery_center(ranked.gallery, ranked.metric)
    pairs = []
    for heading, chosen in choose_queries(ranked.ap, count=1).items():
        for index in chosen[:1]:
            query = dataset.query.images[index]
            for rank, row, right, distance in _compared(ranked, int(index)):
                found = dataset.gallery.images[row]
                features = np.asarray(pixels(np.stack([query, found]))[kind])
                if features.shape[1] * features.shape[2] == 1:
                    return None
                pairs.append(
                    Pair(
                        query=query,
                        gallery=found,
                        parts=pixel_parts(features[0], features[1], ranked.metric, center),
                        heading=f"{heading}: rank {rank}, distance {distance:.3g}",
                        query_name=str(ranked.query.names[index]),
                        gallery_name=str(ranked.gallery.names[row]),
                        right=right,
                    )
                )
                size = features.shape[1:3]
    if not pairs:
        return None
    beyond = " beyond what the average gallery image has" if center is not None else ""
    to = "1 - similarity" if center is None else "the squared distance"
    title = (
        f"What a query and a gallery image have in common{beyond}, and what differs: vermillion adds, blue takes away. "
        f"Each map of the first kind adds up to their similarity, both of the second together to {to}; maps of "
        f"{size[0]} x {size[1]} pixels, smoothed"
    )
    return alike(pairs, title)


def gallery_center(gallery: Embeddings, metric: Metric) -> Float[np.ndarray, " D"] | None:
    """Returns the mean of the gallery, to split similarities around; None for cosine, which has none.

    Junk does not count, unless nothing is known of any image.
    """
    known = gallery.pids >= 0
    counted = gallery.features[known] if known.any() else gallery.features
    return counted.mean(axis=0, dtype=np.float64) if metric == "euclidean" else None


def _compared(ranked: Ranked, index: int) -> list[tuple[int, int, bool, float]]:
    """Returns rank, row, whether it is right, and distance: of the nearest image, and of the nearest right one."""
    rows, right, distances = _list(ranked, index, len(ranked.gallery.pids))
    chosen = sorted({0, *np.flatnonzero(right)[:1].tolist()})
    return [(place + 1, int(rows[place]), bool(right[place]), float(distances[place])) for place in chosen]


def _list(ranked: Ranked, index: int, k: int) -> tuple[Int[np.ndarray, " k"], Any, Any]:
    sides = ranked.query, ranked.gallery
    return ranked_list(*sides, index, k, metric=ranked.metric, cross_camera=ranked.cross_camera)
