"""Notes on data that make a score misleading: copies of queries in the gallery, ranks beyond its size."""

import numpy as np

from svdnet_jax.retrieval.alike import first_alike
from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.rerank import Rerank
from svdnet_jax.retrieval.results import Report

NEAR, SHARE = 3e-3, 0.2
"""Of the usual distance: below it lie copies of an image (features rounded to float16 or bfloat16 are off by less),
while two photographs of a person are a tenth of it apart or more. And the share of the queries for which it must be so,
as a single pair may be as near by chance."""
LARGEST = 20
"""Largest k of the rank-k that are printed."""
SHOWN_PAIRS = 8
"""Images of each query that tell what a usual distance is."""


def doubts(report: Report, query: Embeddings, gallery: Embeddings, rerank: Rerank | None = None) -> list[str]:
    """Says, a text each, what to look at before the numbers are believed."""
    said = []
    some = np.flatnonzero(np.diff(report.right.start))
    first = report.right.images[report.right.start[some]]
    equal = (query.features[some] == gallery.features[first]).all(axis=1)
    if equal.any():
        said.append(
            f"the first right answer of {equal.sum()} of {len(some)} queries has the very feature of the query: if it "
            "is the same image, take it out of the gallery, as finding it is no achievement."
        )
    near = are_copies(query, gallery, some, first) & ~equal
    if near.sum() >= SHARE * len(some):
        said.append(
            f"the first right answer of {near.sum()} of {len(some)} queries has the feature of the query but for "
            f"rounding or scale (at less than {100 * NEAR:g} % of the usual distance): if it is the same image, take "
            "it out of the gallery, as finding it is no achievement."
        )
    kept = np.flatnonzero(gallery.pids >= 0)
    alike = first_alike(gallery.features[kept])
    if alike is not None:
        several = np.count_nonzero(alike != np.arange(len(kept)))
        said.append(
            f"{several} of {len(kept)} gallery images have the very feature of another one before them: copies of a "
            "file count as several answers, right or wrong; leave one of each."
        )
    if nobody := int((query.pids == 0).sum()):
        said.append(
            f"{nobody} queries have the pid 0, which marks distractors; to them it counts as an identity like any "
            "other. If identities are numbered from 0, add 1 to every pid but -1, in query and gallery "
            "(`svdnet evaluate --pids-from-zero` does)."
        )
    if report.gallery < LARGEST:
        said.append(
            f"the gallery has {report.gallery} images without junk: rank-k for larger k is 100 %, whatever the ranking."
        )
    together = len(query.pids) + len(gallery.pids)
    if rerank and max(rerank.k1 + 1, rerank.k2) > together:
        said.append(
            f"query and gallery have {together} images together, and re-ranking was to look at "
            f"{max(rerank.k1 + 1, rerank.k2)}: it looked at all; give smaller `k1` and `k2`."
        )
    return said


def are_copies(query: Embeddings, gallery: Embeddings, some: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Returns which pairs are images with one feature, whatever its length and its last digits."""
    if not len(some):
        return np.zeros(0, bool)
    others = np.random.default_rng(0).integers(0, len(gallery.pids), (len(some), SHOWN_PAIRS))
    # By angles, which know no length.
    own, usual = (
        np.sqrt(between(query.features[some], gallery.features, rows, cosine=True)) for rows in (first[:, None], others)
    )
    return own[:, 0] < NEAR * np.nanmedian(usual) if np.isfinite(usual).any() else np.zeros(len(some), bool)
