"""Distances computed directly from feature differences, for the few pairs that are shown.

Between equal features they are zero, and between near ones they lose no digits, which `distances.offsets` cannot say;
but there is no matrix product to do the work.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from jaxtyping import Float, Float64, Int

PAIRS = 128
"""Pairs looked at together, so that their differences stay in the cache."""
MOST_PAIRS = 8192
"""Pairs whose queries are copied together."""


def between(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    rows: Int[np.ndarray, "q k"],
    cosine: bool = False,
) -> Float64[np.ndarray, "q k"]:
    """Computes Euclidean distances of chosen pairs, in float64.

    Args:
        query: Features as they were given.
        gallery: Likewise.
        rows: K of the gallery for each query.
        cosine: Whether to give 1 - cosine similarity instead, which is half the square of the distance between
            features of length 1. NaN where a feature is zero.
    """
    exact = np.empty(rows.shape, np.float64)

    def fill(part: tuple[slice, slice]) -> None:
        q, g = query[part[0], None], gallery[rows[part]]
        exact[part] = lengths(unit(q) - unit(g)) ** 2 / 2 if cosine else lengths(np.subtract(q, g, dtype=np.float64))

    q, k = rows.shape
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, product(parts(q, PAIRS // max(1, k)), parts(k, PAIRS))))
    return exact


def of_pairs(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    query_rows: Int[np.ndarray, " n"],
    gallery_rows: Int[np.ndarray, " n"],
    cosine: bool = False,
) -> Float64[np.ndarray, " n"]:
    """Computes what `between` does for N pairs of rows, however many."""
    distances = [
        between(query[query_rows[part]], gallery, gallery_rows[part, None], cosine)[:, 0]
        for part in parts(len(query_rows), MOST_PAIRS)
    ]
    return np.concatenate([*distances, np.empty(0)])


def lengths(vectors: Float64[np.ndarray, "*n d"]) -> Float64[np.ndarray, "*n"]:
    """Returns euclidean lengths, also of vectors whose squares overflow or vanish."""
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
    odd = (norms < 1e-140) | (norms > 1e140)
    if odd.any():
        some = vectors[odd]
        _, exponent = np.frexp(np.maximum(some.max(axis=-1, initial=0), -some.min(axis=-1, initial=0)))
        some = np.ldexp(some, -exponent[:, None])
        norms[odd] = np.ldexp(np.sqrt(np.einsum("nd,nd->n", some, some)), exponent)
    return norms


def unit(features: Float[np.ndarray, "*n d"]) -> Float64[np.ndarray, "*n d"]:
    """Returns features scaled to length 1; NaN where the length is zero."""
    wide = features.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return wide / lengths(wide)[..., None]


def parts(n: int, size: int) -> Iterator[slice]:
    """Walks over N rows, some at a time."""
    size = max(1, size)
    yield from (slice(begin, begin + size) for begin in range(0, n, size))
