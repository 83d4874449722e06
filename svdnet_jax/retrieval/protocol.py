"""The evaluation protocol: junk, positives and cameras of each query; no distances here."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64

from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.people import refuse_other_people


@dataclass(frozen=True, eq=False)
class Matches:
    """For each query its right answers, and what is left out of its ranking.

    Positions count in the gallery without junk. `order` holds them sorted by identity and camera. The right
    answers of query q are `count[q]` of its entries from `start[q]` on; after the first `before[q]` of them,
    `skip[q]` entries are passed over, those of the query's camera.
    """

    kept: Int64[np.ndarray, " g"]
    """Gallery rows that are not junk, ascending."""
    order: Int64[np.ndarray, " g"]
    start: Int64[np.ndarray, " q"]
    before: Int64[np.ndarray, " q"]
    skip: Int64[np.ndarray, " q"]
    count: Int64[np.ndarray, " q"]
    gallery_group: Int32[np.ndarray, " g"]
    """One number per pair of identity and camera."""
    query_group: Int32[np.ndarray, " q"]
    """The group left out for each query; -1 where none is."""


def match(query: Embeddings, gallery: Embeddings, cross_camera: bool) -> Matches:
    """Applies the protocol to the ids; O((Q + G) log(Q + G)).

    Args:
        query: Q images.
        gallery: Images, junk (negative pids) among them.
        cross_camera: Leave out, per query, the gallery images of the same pid and the same camera.

    Raises:
        ValueError: A pid is called one thing in the query and another in the gallery.
    """
    refuse_other_people(query.people, gallery.people)
    kept = np.flatnonzero(gallery.pids >= 0)
    n = len(kept)
    # Pids and cameras may be any integers; as codes 0, 1, ... a pair of them fits one number.
    _, pid = np.unique(np.concatenate([gallery.pids[kept], query.pids]), return_inverse=True)
    cameras, camera = np.unique(np.concatenate([gallery.cameras[kept], query.cameras]), return_inverse=True)
    _, group = np.unique(pid * max(len(cameras), 1) + camera, return_inverse=True)
    order = np.argsort(group[:n], kind="stable")
    sorted_pid, sorted_group = pid[:n][order], group[:n][order]
    start = np.searchsorted(sorted_pid, pid[n:], side="left")
    end = np.searchsorted(sorted_pid, pid[n:], side="right")
    if cross_camera:
        first = np.searchsorted(sorted_group, group[n:], side="left")
        skip = np.searchsorted(sorted_group, group[n:], side="right") - first
        left_out = group[n:]
    else:
        first, skip = start, np.zeros_like(start)
        left_out = np.full_like(group[n:], -1)
    return Matches(
        kept=kept,
        order=order,
        start=start,
        before=first - start,
        skip=skip,
        count=end - start - skip,
        gallery_group=group[:n].astype(np.int32),
        query_group=left_out.astype(np.int32),
    )


def right_answers(matches: Matches, queries: Int[np.ndarray, " b"], width: int) -> Int32[np.ndarray, "b p"]:
    """Returns the positions of the positives of some queries, in the gallery without junk.

    Args:
        matches: From `match`.
        queries: Rows of the query set, each with `count` <= width.
        width: P, the columns; from column `count` on a row is filled up with other positions.
    """
    column = np.arange(width)[None, :]
    start, before, skip = (of[queries][:, None] for of in (matches.start, matches.before, matches.skip))
    entry = start + column + skip * (column >= before)
    return matches.order[np.minimum(entry, len(matches.order) - 1)].astype(np.int32)


def explain_no_match(query: Embeddings, gallery: Embeddings, matches: Matches) -> str:
    """Explains why no query has a positive, and what to do about it."""
    junk = query.pids < 0
    own_camera = ~junk & (matches.skip > 0)
    nowhere = ~junk & (matches.skip == 0)
    lines = [
        "no query has a right answer in the gallery, so there is nothing to measure.",
        f"Of {len(query.pids)} queries, {nowhere.sum()} have no gallery image of their identity at all, "
        f"{own_camera.sum()} have some but all from their own camera (left out by the cross-camera "
        f"rule), and {junk.sum()} are junk themselves (negative pid).",
        f"The gallery has {len(matches.kept)} images after leaving out "
        f"{len(gallery.pids) - len(matches.kept)} of junk.",
    ]
    if own_camera.any():
        lines.append(
            "If there is one camera only or the cameras are unknown, evaluate with "
            "`cross_camera` False (when training, `eval.cross_camera` False)."
        )
    if nowhere.any() or not len(query.pids):
        spans = _span("query", query.pids[~junk]), _span("gallery", gallery.pids[matches.kept])
        lines.append(f"Check that the pids of both sets mean the same people: {'; '.join(spans)}.")
    return "\n".join(lines)


def _span(what: str, pids: Int64[np.ndarray, " n"]) -> str:
    """Returns the count and range of some pids."""
    if not len(pids):
        return f"{what} pids: none"
    return f"{what} pids: {len(np.unique(pids))} different, {pids.min()} to {pids.max()}"
