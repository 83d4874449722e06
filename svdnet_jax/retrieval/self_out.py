"""Leave-self-out: one set of images is queries and gallery, and only a query's own image is left out of its ranking.

Each image is given a camera of its own, so that the rule about cameras leaves out just that image, whatever is measured
(as LaST's and VehicleID's loaders do it, which have no cameras).
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from svdnet_jax.retrieval.embeddings import Embeddings

By = Literal["name", "row"]


class SelfOut(NamedTuple):
    """Query and gallery whose cameras are their images, to be evaluated with the rule about cameras."""

    query: Embeddings
    gallery: Embeddings
    by: By
    found: int
    """Queries whose own image is in the gallery."""
    alone: int
    """Those of them whose identity has no other image there: they do not count."""

    def __str__(self) -> str:
        total = len(self.query.pids)
        return (
            f"leave-self-out by {self.by}: {self.found} of {total} queries are in the gallery and left out of their "
            f"own ranking; {self.alone} of these have no other image of their identity and do not count"
        )


def leave_self_out(query: Embeddings, gallery: Embeddings, by: By) -> SelfOut:
    """Finds each query's own image in the gallery.

    Args:
        query: The queries.
        gallery: The images to rank.
        by: ``name``: the gallery image of the same name. ``row``: the one in the same row.

    Raises:
        ValueError: Names are missing, or several gallery images have one; sets of different length by row; an image has
            another pid as a query than in the gallery; no query is in the gallery.
    """
    own = _rows_by_name(query, gallery) if by == "name" else _rows(query, gallery)
    some = np.flatnonzero(own >= 0)
    if not some.size:
        raise ValueError(
            "no query has the name of a gallery image, so none can be left out; is this one set of images? Give "
            "`leave_self_out` row where both have one order."
        )
    differ = some[query.pids[some] != gallery.pids[own[some]]]
    if differ.size:
        first = differ[0]
        raise ValueError(
            f"{differ.size} images have another pid as a query than in the gallery, the first is query row {first} "
            f"({query.names[first]}): pid {query.person(first)}, and {gallery.person(own[first])} in the gallery."
        )
    n = len(gallery.pids)
    cameras = np.where(own >= 0, own, n + np.arange(len(own)))
    people, counted = np.unique(gallery.pids, return_counts=True)
    others = counted[np.searchsorted(people, query.pids[some])] - 1
    return SelfOut(
        replace(query, cameras=cameras), replace(gallery, cameras=np.arange(n)), by, len(some), int((others == 0).sum())
    )


def is_one_set(query: Embeddings, gallery: Embeddings) -> bool:
    """Returns whether query set and gallery are one, and each image has a camera of its own."""
    same = np.array_equal(query.names, gallery.names) and np.array_equal(query.cameras, gallery.cameras)
    return same and len(np.unique(gallery.cameras)) == len(gallery.cameras)


def _rows_by_name(query: Embeddings, gallery: Embeddings) -> Int64[np.ndarray, " q"]:
    """Returns the gallery's row of each query's name; -1 where there is none."""
    for what, side in (("query", query), ("gallery", gallery)):
        if np.array_equal(side.names, np.arange(len(side.names)).astype(np.str_)):
            raise ValueError(
                f"the {what} has no names, so its images cannot be told by them; give `leave_self_out` row where query "
                "and gallery have one order, or an array of names."
            )
    names, first, counted = np.unique(gallery.names, return_index=True, return_counts=True)
    if (counted > 1).any():
        raise ValueError(
            f"{int((counted > 1).sum())} names are those of several gallery images, the first is "
            f"{names[counted > 1][0]}; each image needs a name of its own."
        )
    if not len(names):
        return np.full(len(query.names), -1, np.int64)
    place = np.minimum(np.searchsorted(names, query.names), len(names) - 1)
    return np.where(names[place] == query.names, first[place], -1)


def _rows(query: Embeddings, gallery: Embeddings) -> Int64[np.ndarray, " q"]:
    if len(query.pids) != len(gallery.pids):
        raise ValueError(
            f"`leave_self_out` row: the query has {len(query.pids)} rows and the gallery {len(gallery.pids)}; expected "
            "one set of images in one order."
        )
    return np.arange(len(query.pids))
