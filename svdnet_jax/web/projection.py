"""A map of embeddings: their first two principal components."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int
from scipy.linalg import eigh

from svdnet_jax.retrieval.direct import unit
from svdnet_jax.web.panel import Panel


class Map(NamedTuple):
    """Queries, then gallery images without junk, in the plane."""

    queries: int
    """How many of the points are queries: rows 0, 1, 2, ..."""
    rows: Int[np.ndarray, " m"]
    """Rows of the gallery of the other points."""
    xy: Float32[np.ndarray, "n 2"]
    """All points, in the unit of the features, with their mean at 0."""
    share: Float64[np.ndarray, " 2"]
    """Of the variance of all dimensions, what each axis holds."""


def project(panel: Panel) -> Map:
    """Returns the map of a panel: of its features, scaled to length 1 where cosines are compared.

    The covariance costs N D^2: 24 000 images of 2 048 dimensions take some seconds on two cores.
    """
    rows = np.flatnonzero(panel.gallery.pids >= 0)
    if not len(rows) and not len(panel.query.pids):  # of a folder of images nobody's identity is known
        rows = np.arange(len(panel.gallery.pids))
    features = np.concatenate([panel.query.features, panel.gallery.features[rows]])
    if panel.index.metric == "cosine":
        features = unit(features).astype(np.float32)
    features = (features - features.mean(axis=0, dtype=np.float64)).astype(np.float32)
    covariance = (features.T @ features).astype(np.float64)
    d = len(covariance)
    values, vectors = eigh(covariance, subset_by_index=[max(0, d - 2), d - 1])
    values, vectors = values[::-1], vectors[:, ::-1]  # the largest first
    # An eigenvector may be turned round: its largest entry is made positive, so that a map does not depend on chance.
    vectors = vectors * np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0))
    xy = np.zeros((len(features), 2), np.float32)
    xy[:, : vectors.shape[1]] = features @ vectors.astype(np.float32)
    share = np.zeros(2)
    share[: len(values)] = np.maximum(values, 0) / max(np.trace(covariance), np.finfo(np.float64).tiny)
    return Map(len(panel.query.pids), rows, xy, share)
