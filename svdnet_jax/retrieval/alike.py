"""Finds rows with equal features (copies of an image), which tie in every ranking."""

import numpy as np
from jaxtyping import Float, Int, Int32

COLUMNS = 16
"""Features compared first."""


def first_alike(features: Float[np.ndarray, "n d"]) -> Int32[np.ndarray, " n"] | None:
    """Returns for each row the first row equal to it; None if all differ. O(N log N) where few are equal."""
    n, d = features.shape
    # Equal rows have equal sums in integers. The sums of a few columns leave few rows to compare as a whole.
    few = _bits(features[:, :: max(1, -(-d // COLUMNS))]).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, few.shape[1], np.uint64)
    _, number, counts = np.unique((few * factors).sum(axis=1), return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[number] > 1)
    if not several.size:
        return None
    whole = _bits(features[several])
    _, first, number = np.unique(
        whole.view(np.dtype((np.void, whole.itemsize * d))).ravel(), return_index=True, return_inverse=True
    )
    found = np.arange(n, dtype=np.int32)
    found[several] = several[first[number]]
    return None if len(first) == len(several) else found


def _bits(features: Float[np.ndarray, "n d"]) -> np.ndarray:
    """Returns the bits of rows as integers, a copy in one piece."""
    # -0 becomes 0, which it equals.
    return (np.ascontiguousarray(features) + features.dtype.type(0)).view(f"u{features.dtype.itemsize}")


def first_copies(rows: Int[np.ndarray, "q k"], alike: Int32[np.ndarray, " n"]) -> Int[np.ndarray, "q k"]:
    """Replaces, where some of several equal images are in a list, these by the first of them.

    Args:
        rows: Images near each query. A product may tell equal images apart in the last digit, and list any of them.
        alike: From `first_alike`.
    """
    members = np.argsort(alike, kind="stable")
    start = np.searchsorted(alike[members], np.arange(len(alike)))
    by_group = np.argsort(alike[rows], axis=1, kind="stable")
    group = np.take_along_axis(alike[rows], by_group, 1)
    column = np.arange(rows.shape[1])
    begins = np.diff(group, axis=1, prepend=-1) != 0
    place = column - np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    copies = np.empty_like(rows)
    np.put_along_axis(copies, by_group, members[start[group] + place].astype(rows.dtype), 1)
    return copies
