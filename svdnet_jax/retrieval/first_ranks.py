"""The heads of all rankings: the first k images of each query under the protocol, without the rankings."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import build_index, search
from svdnet_jax.retrieval.protocol import match


class FirstRanks(NamedTuple):
    """The first k images of each query, nearest first."""

    rows: Int64[np.ndarray, "q k"]
    """Rows of the gallery as given; -1 behind the end of a ranking that is shorter."""
    distances: Float64[np.ndarray, "q k"]
    """NaN there."""


def first_ranks(
    query: Embeddings, gallery: Embeddings, k: int, metric: Metric = "euclidean", cross_camera: bool = True
) -> FirstRanks:
    """Returns what `ranked_list` returns, for all queries at once.

    Args:
        query: Q images.
        gallery: Images, junk among them, which is left out.
        k: At least 1.
        metric: As in `evaluate`.
        cross_camera: Likewise.

    Raises:
        ValueError: k below 1, a gallery of nothing but junk, or what `search` refuses.
    """
    matches = match(query, gallery, cross_camera)
    kept = matches.kept
    if k < 1 or not len(kept):
        raise ValueError(f"k must be at least 1, of a gallery that is not all junk; found {k} of {len(kept)}.")
    parts = {name: getattr(gallery, name)[kept] for name in ("features", "pids", "cameras", "names")}
    clean = gallery if len(kept) == len(gallery.pids) else dataclasses.replace(gallery, **parts)
    # So many more as the camera rule may take away.
    reach = min(len(kept), k + int(matches.skip.max(initial=0)))
    found = search(build_index(clean, metric=metric), query, reach)
    own = matches.gallery_group[found.rows] == matches.query_group[:, None]
    order = np.argsort(own, axis=1, kind="stable")[:, :k]
    rows, distances, own = (np.take_along_axis(each, order, axis=1) for each in (found.rows, found.distances, own))
    return FirstRanks(np.where(own, -1, kept[rows]), np.where(own, np.nan, distances))
