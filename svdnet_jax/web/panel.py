"""`Panel`: one embedding of the images, made ready to be asked; everything here is a function of embeddings alone."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.distributions import FEWEST, Distributions, distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import Index, build_index, search
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.results import Report

LEVELS = 61
"""False-match rates that the page's slider can stand at."""
REACH = 4
"""Times as many images are looked at as are wanted, and again so many times more while too few of them may be shown."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One embedding of queries and gallery, with what is known of its distances."""

    query: Embeddings
    """Images whose identities are known, to be searched for; none where the gallery is somebody's own."""
    gallery: Embeddings
    index: Index
    cross_camera: bool
    """Whether the evaluation leaves out images of the query's identity and camera."""
    report: Report | None
    """What `evaluate` says of the queries; None where there are none."""
    distributions: Distributions | None
    """How far apart images of one person and of two are, by this embedding; None where that is not known."""
    note: str = ""
    """Why it is not known."""


def evaluated_panel(query: Embeddings, gallery: Embeddings, metric: Metric, cross_camera: bool) -> Panel:
    """Returns the panel of a test set.

    Raises:
        ValueError: What `evaluate` refuses.
    """
    report = evaluate(query, gallery, metric, cross_camera)
    try:
        distributions, note = distance_distributions(query, gallery, metric, cross_camera), ""
    except ValueError as error:  # a test set of one identity has no false match
        distributions, note = None, str(error)
    return Panel(query, gallery, build_index(gallery, metric=metric), cross_camera, report, distributions, note)


def own_panel(gallery: Embeddings, test: Panel) -> Panel:
    """Returns the panel of a gallery of somebody's own; how sure a distance is is known from the run's test set.

    Raises:
        ValueError: The gallery is empty, or of another model than the test set.
    """
    none = np.zeros(0, np.int64)
    nobody = Embeddings(gallery.features[:0], none, none, model=gallery.model)
    if gallery.model != test.gallery.model:
        raise ValueError(f"the gallery is of the model {gallery.model}, and the run is {test.gallery.model}.")
    return Panel(
        nobody,
        gallery,
        build_index(gallery, metric=test.index.metric),
        test.cross_camera,
        None,
        test.distributions,
        test.note,
    )


class Rates(NamedTuple):
    """Of each of N distances, what accepting pairs up to it would bring about."""

    false: Float64[np.ndarray, " n"]
    """Share of the pairs of two people that are as near or nearer; where that is not `measured`, the least that is."""
    true: Float64[np.ndarray, " n"]
    """Share of the pairs of one person that are."""
    measured: Bool[np.ndarray, " n"]
    """Whether ten false matches are as near; of fewer, no rate can be told."""


def rates_at(distributions: Distributions, distances: Float[np.ndarray, " n"]) -> Rates:
    """Returns the rates of false and true matches at some distances, to a step of the distributions' grid."""
    last = len(distributions.edges) - 1
    entry = np.minimum(np.searchsorted(distributions.edges, distances, side="left"), last)
    negatives, positives = np.cumsum(distributions.negatives), np.cumsum(distributions.positives)
    measured = negatives[entry] >= FEWEST
    return Rates(np.maximum(negatives[entry], FEWEST) / negatives[-1], positives[entry] / positives[-1], measured)


def levels(distributions: Distributions) -> list[dict[str, float]]:
    """Returns thresholds for false-match rates from the least that the data can tell to 1, evenly on a logarithm."""
    least = min(1.0, FEWEST / int(distributions.negatives.sum()))
    thresholds = [distributions.threshold(min(1.0, float(rate))) for rate in np.geomspace(least, 1.0, LEVELS)]
    return [
        {"distance": each.distance, "false": each.false_match_rate, "true": each.true_match_rate} for each in thresholds
    ]


class Near(NamedTuple):
    """The nearest of the gallery images that may be shown."""

    rows: Int[np.ndarray, " k"]
    distances: Float64[np.ndarray, " k"]


def nearest(panel: Panel, asked: Embeddings, allowed: Bool[np.ndarray, " n"], k: int) -> Near:
    """Returns the nearest allowed gallery images of one image, nearest first; fewer than k where there are.

    Args:
        panel: Where to look.
        asked: The image, one row.
        allowed: Which gallery images may be shown.
        k: At least 1.

    Raises:
        ValueError: What `search` refuses.
    """
    n, wanted = len(allowed), min(k, int(allowed.sum()))
    if not wanted:
        return Near(np.zeros(0, np.int64), np.zeros(0))
    reach = min(n, REACH * k)
    while True:
        found = search(panel.index, asked, reach)
        kept = allowed[found.rows[0]]
        if kept.sum() >= wanted or reach == n:
            return Near(found.rows[0][kept][:wanted], found.distances[0][kept][:wanted])
        reach = min(n, REACH * reach)


def allowed_for(
    panel: Panel, kind: str, row: int, cameras: Int[np.ndarray, " c"] | None, everything: bool
) -> Bool[np.ndarray, " n"]:
    """Returns which gallery images may be shown to an image that is searched for.

    Args:
        panel: Where it is looked for.
        kind: ``query``, ``gallery`` or ``image``: one of the queries, a gallery image, which does not find itself, or
            an image from elsewhere.
        row: Of the query or the gallery.
        cameras: Those to show; None for all.
        everything: Whether to show a query also what the evaluation leaves out: junk, and where the rule about cameras
            holds, the images of its identity and camera.
    """
    gallery = panel.gallery
    allowed = np.ones(len(gallery.pids), bool)
    if kind == "gallery":
        allowed[row] = False
    elif kind == "query" and not everything:
        allowed = gallery.pids >= 0
        if panel.cross_camera:
            own = (gallery.pids == panel.query.pids[row]) & (gallery.cameras == panel.query.cameras[row])
            allowed &= ~own
    return allowed if cameras is None else allowed & np.isin(gallery.cameras, cameras)
