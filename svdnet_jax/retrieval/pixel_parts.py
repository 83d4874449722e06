"""Splits the similarity and the distance of two images over their pixels: what makes them alike, what sets them apart.

A network that averages its last feature map over P pixels and then does nothing but what is linear gives an embedding
that is a sum over pixels. With a_p the features of pixel p, W the Eigenlayer's weight and m any vector,

    f - m = sum_p u_p,    u_p = (a_p W - m) / P        (pooled feature: without W)

so that for two images with embeddings f, g and pixel features u_p, v_q

    similarity      s = (f - m).(g - m)  = sum_p u_p.(g - m)  = sum_q (f - m).v_q
    distance      |f - g|^2              = sum_p u_p.(f - g)  + sum_q v_q.(g - f)

Both are exact, and hold for a neck too, whose BatchNorm at rest is the same affine map at each pixel. The first gives a
map on each image that adds up to s by itself; the second two maps that add up to the squared distance together.

Euclidean distances do not depend on m, and s does: with the mean of the gallery as m it is what both images have beyond
the average image, d^2 = |f - m|^2 + |g - m|^2 - 2 s. Cosine similarity is s of f / |f| and g / |g| with m = 0; its
distance 1 - s is half the squared distance of these two. (Stylianou et al. 2019, "Visualizing deep similarity
networks", splits the cosine so; class activation maps, Zhou et al. 2016, a class score.)

A pixel of the last feature map sees far more of the image than its own place, so a map says where the network found
something and not exactly what.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from svdnet_jax.retrieval.direct import lengths
from svdnet_jax.retrieval.distances import Metric


class PixelParts(NamedTuple):
    """What each pixel of a query and a gallery image contributes."""

    alike_query: Float64[np.ndarray, "h w"]
    """Adds up to the similarity."""
    alike_gallery: Float64[np.ndarray, "h w"]
    """So does this."""
    apart_query: Float64[np.ndarray, "h w"]
    """Adds up, with the next, to the squared Euclidean distance, or to 1 - cosine similarity."""
    apart_gallery: Float64[np.ndarray, "h w"]
    similarity: float
    """Of the embeddings: (f - m).(g - m), or the cosine."""
    distance: float
    """Of the embeddings, as `evaluate` has it: Euclidean, not squared, or 1 - cosine similarity."""


def pixel_parts(
    query: Float[np.ndarray, "h w d"],
    gallery: Float[np.ndarray, "h w d"],
    metric: Metric = "euclidean",
    center: Float[np.ndarray, " d"] | None = None,
) -> PixelParts:
    """Splits similarity and distance of a pair over the pixels of both.

    Args:
        query: Features of the query's pixels, whose mean is its embedding: from `make_pixel_fn`.
        gallery: Likewise of the gallery image.
        metric: Of the evaluation.
        center: m; not given: zero. With cosine there is none.

    Raises:
        ValueError: A center with cosine, an embedding of length zero with cosine, or features that are not finite.
    """
    if metric == "cosine" and center is not None:
        raise ValueError("cosine similarity is of the features as they are; leave the center out")
    u, v = _summands(query, metric), _summands(gallery, metric)
    f, g = u.sum(axis=(0, 1)), v.sum(axis=(0, 1))
    if not (np.isfinite(f).all() and np.isfinite(g).all()):
        raise ValueError("the features of a pair are not finite, or of length zero, which has no cosine")
    share = 0.5 if metric == "cosine" else 1.0
    apart_query, apart_gallery = share * (u @ (f - g)), share * (v @ (g - f))
    m = np.zeros_like(f) if center is None else center.astype(np.float64)
    alike_query, alike_gallery = (u - m / _pixels(u)) @ (g - m), (v - m / _pixels(v)) @ (f - m)
    between = float(lengths((f - g)[None])[0])
    distance = between**2 / 2 if metric == "cosine" else between
    return PixelParts(alike_query, alike_gallery, apart_query, apart_gallery, float((f - m) @ (g - m)), distance)


def _summands(features: Float[np.ndarray, "h w d"], metric: Metric) -> Float64[np.ndarray, "h w d"]:
    """Returns the features of pixels divided by their number, and for cosine by the length of the embedding."""
    summands = features.astype(np.float64) / _pixels(features)
    if metric == "cosine":
        with np.errstate(invalid="ignore", divide="ignore"):
            summands /= lengths(summands.sum(axis=(0, 1))[None])
    return summands


def _pixels(features: Float[np.ndarray, "h w d"]) -> int:
    return features.shape[0] * features.shape[1]
