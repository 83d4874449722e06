"""Distances between query and gallery features, in the form in which ranks need them.

Both metrics are one rule, as 1 - cos is half the squared distance of features scaled to length 1:

    d(q, g)^2 = |q|^2 + |g|^2 - 2 q.g

The *offset* |g|^2 - 2 q.g orders the gallery of a query exactly as the distance does; what it leaves out is the
same for the whole gallery and would only cost digits. With one column more on each side it is a matrix product
and nothing else, (-2 q, 1) . (g, |g|^2), so no pass over the block of distances follows the product.

The rule cancels: a square is off by some 1e-7 of |q|^2, which is nothing only while d^2 is not much less. Two things
keep it so. Distances do not change when one vector is subtracted from all features, so the gallery's centre is, before
anything is rounded to float32. And where features gather far from the centre all the same, so that what is near a
query is nearer than `CLOSE` of its length, `too_close` says so, and that query is done again in float64.
"""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from svdnet_jax.errors import FeatureError
from svdnet_jax.retrieval.alike import first_alike
from svdnet_jax.retrieval.direct import parts, unit
from svdnet_jax.retrieval.embeddings import Embeddings, check_same_model

Metric = Literal["euclidean", "cosine"]

CLOSE = 1 / 32
"""Of a query's length from the centre: the least distance whose square float32 holds to 1e-4."""
SAMPLE, BLOCK = 256, 256
"""Images that the centre is taken from, and images made ready at a time, while they are in the cache."""
VANISHING = 1e-30
"""Squared length below which float32 runs out of digits; the largest feature of all is about 1."""
DTypeLike = Any
"""float32 or float64, as numpy names them."""


class Prepared(NamedTuple):
    """Gallery features made ready for `offsets`: E = D + 2, rounded up to a multiple of 4."""

    features: Float[np.ndarray, "g e"]
    """(g, 0, ..., |g|^2, 1)."""
    scale: float
    """The features were multiplied by it, a power of two,"""
    center: Float[np.ndarray, " d"]
    """and then moved by it."""
    alike: Int32[np.ndarray, " g"] | None
    """For each image the first one with the same feature; None if no two have it."""


class Points(NamedTuple):
    """Features of query and gallery made ready for `offsets`."""

    query: Float[np.ndarray, "q e"]
    """(-2 q, 0, ..., 1, 0)."""
    gallery: Float[np.ndarray, "g e"]
    """As in `Prepared`."""
    query_squared: Float[np.ndarray, " q"]
    """Squared lengths."""
    scale: float
    """The features were multiplied by it."""
    alike: Int32[np.ndarray, " g"] | None
    """As in `Prepared`."""


def points(
    query: Embeddings,
    query_rows: Int[np.ndarray, " q"],
    gallery: Embeddings,
    gallery_rows: Int[np.ndarray, " g"],
    metric: Metric,
    dtype: DTypeLike = np.float32,
) -> Points:
    """Returns features of some rows, ready for `offsets`.

    Args:
        query: The query images.
        query_rows: Which of them.
        gallery: The gallery images.
        gallery_rows: Which of them, at least one.
        metric: "euclidean", or "cosine" for 1 - cosine similarity.
        dtype: Of the result: float32, or float64 for queries that are `too_close`.

    Raises:
        ValueError: Features of different length or of different models, queries beyond any measure of the gallery, an
            unknown metric, or under cosine a feature of length zero.
    """
    check_same_model(query, gallery)
    d_query, d_gallery = query.features.shape[1], gallery.features.shape[1]
    if d_query != d_gallery:
        raise ValueError(
            f"query features have {d_query} dimensions and gallery features {d_gallery}; "
            "both must come from the same embedding."
        )
    ready = prepare(gallery, gallery_rows, metric, dtype)
    features, squared = prepare_query(query, query_rows, metric, ready)
    return Points(features, ready.features, squared, ready.scale, ready.alike)


def prepare(
    gallery: Embeddings, rows: Int[np.ndarray, " g"], metric: Metric, dtype: DTypeLike = np.float32
) -> Prepared:
    """Returns the side of the gallery, which serves any number of queries; arguments and errors as in `points`."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be {' or '.join(get_args(Metric))}; found {metric!r}.")
    scale = _scale(gallery, metric)
    center = _center(gallery, rows, metric, scale)
    room, squared = _ready(gallery, rows, metric, scale, center, dtype, "gallery")
    room[:, -2] = squared
    room[:, -1] = 1
    return Prepared(room, scale, center, first_alike(room[:, : len(center)]))


def prepare_query(
    query: Embeddings, rows: Int[np.ndarray, " q"], metric: Metric, gallery: Prepared
) -> tuple[Float[np.ndarray, "q e"], Float[np.ndarray, " q"]]:
    """Returns the side of the queries, `Points.query` and `Points.query_squared`, for a prepared gallery."""
    room, squared = _ready(query, rows, metric, gallery.scale, gallery.center, gallery.features.dtype, "query")
    room *= room.dtype.type(-2)
    room[:, -2] = 1
    return room, squared


def offsets(
    query: Float[Array, "b e"], gallery: Float[Array, "g e"], alike: Int32[Array, " g"] | None = None
) -> Float[Array, "b g"]:
    """Returns what orders the gallery of each query: squared distances less a constant of the query.

    Args:
        query: Rows of `Points.query`.
        gallery: Rows of `Points.gallery`.
        alike: `Points.alike`. A product may tell equal columns apart in the last digit; with it they stay equal.
    """
    # HIGHEST: accelerators default to TF32 or bfloat16, where many different distances become equal.
    offset = jnp.dot(query, gallery.T, precision=jax.lax.Precision.HIGHEST)
    return offset if alike is None else jnp.take(offset, alike, axis=1)


def too_close(offset: Float[np.ndarray, "*n"], squared: Float[np.ndarray, "*#n"]) -> Bool[np.ndarray, "*n"]:
    """Tells which offsets are so near the query that float32 cannot tell them apart.

    Args:
        offset: From `offsets`.
        squared: `Points.query_squared`.
    """
    # As is what is so near the centre, with other images so far from it, that float32 has no digits for its square.
    return (offset + squared <= squared.dtype.type(CLOSE**2) * squared) | (squared < VANISHING)


def _scale(gallery: Embeddings, metric: Metric) -> float:
    """Returns a power of two that brings features below 1; so squares neither overflow nor, all of them, vanish."""
    if metric == "cosine":
        return 1.0
    features = gallery.features
    _, exponent = math.frexp(max(features.max(initial=0), -features.min(initial=0)))
    # So that the largest float32, multiplied by it and squared, is still within float64.
    return math.ldexp(1.0, -max(exponent, -380))


def _center(gallery: Embeddings, rows: Int[np.ndarray, " g"], metric: Metric, scale: float) -> Float[np.ndarray, " d"]:
    """Returns the middle of the scaled features: the median, which images far away do not move, of a sample of them.

    It is rounded to a multiple of about 1/64 of the features' spread, so that differences of small integers stay exact,
    and with them the ties between distances.
    """
    sample = scale * _of(gallery, rows[:: max(1, len(rows) // SAMPLE)], metric).astype(np.float64)
    if not len(sample):
        return np.zeros(gallery.features.shape[1], np.float32)
    middle = np.sort(sample, axis=0)[len(sample) // 2]
    away = np.abs(sample - middle)
    _, exponent = math.frexp(4 * np.median(away, axis=0).max(initial=0) or away.max(initial=0))
    step = math.ldexp(1.0, exponent - 6)
    center = np.rint(middle / step) * step if away.any() else middle
    return narrow(center) if gallery.features.dtype == np.float64 or metric == "cosine" else center.astype(np.float32)


def narrow(center: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """Returns features in float32 if that loses nothing, which are then made ready faster."""
    less = center.astype(np.float32)
    return less if np.array_equal(less, center) else center


def _of(embeddings: Embeddings, rows: Int[np.ndarray, " n"], metric: Metric, what: str = "gallery") -> np.ndarray:
    """Returns features of some rows, under cosine scaled to length 1, in float64.

    Raises:
        ValueError: One of them has no direction.
    """
    features = embeddings.features[rows]
    if metric == "euclidean":
        return features
    features = unit(features)
    if np.isnan(features).any():
        row = rows[np.argmax(np.isnan(features).any(axis=1))]
        raise FeatureError(
            f"the feature of {what} row {row} ({embeddings.names[row]}) is zero, so it has no cosine; "
            "use the euclidean metric or leave the image out."
        )
    return features


def _ready(
    embeddings: Embeddings,
    rows: Int[np.ndarray, " n"],
    metric: Metric,
    scale: float,
    center: Float[np.ndarray, " d"],
    dtype: DTypeLike,
    what: str,
) -> tuple[Float[np.ndarray, "n e"], Float[np.ndarray, " n"]]:
    """Returns a copy of some rows, scaled and centred, with room for the further columns; and the squared lengths."""
    d = embeddings.features.shape[1]
    room, squared = np.empty((len(rows), d + 2 + -(d + 2) % 4), dtype), np.empty(len(rows), dtype)
    room[:, d:] = 0
    for part in parts(len(rows), BLOCK):
        block = _of(embeddings, rows[part], metric, what)
        if scale > 2.0**120:  # beyond float32
            block = block.astype(np.float64)
        block *= block.dtype.type(scale)
        # Rounded after the subtraction, which leaves small numbers of large ones.
        kind = np.result_type(block, center, room)
        with np.errstate(over="ignore"):
            features = np.subtract(block, center, out=room[part, :d], dtype=kind, casting="same_kind")
            squared[part] = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    if not np.isfinite(squared).all():
        row = rows[np.argmin(np.isfinite(squared))]
        raise FeatureError(
            f"the feature of {what} row {row} ({embeddings.names[row]}) is over 1e18 times as large as those of the "
            "gallery; both must come from the same embedding."
        )
    return room, squared
