"""Confidence intervals: of a mean over queries by resampling identities, and of a paired difference over seeds.

Queries of one person are not independent: they share clothes, cameras and right answers. An interval that resamples
queries is too narrow, so whole identities are resampled, with all of their queries (a cluster bootstrap). It says how
far the number would move with other people in the test set. How far it moves with another seed of training is a
different question, which only several seeds answer: `over_seeds`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

RESAMPLES = 2000
"""Bootstrap samples; the ends of an interval are then good to about a twentieth of its width."""


class Interval(NamedTuple):
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


class PerIdentity(NamedTuple):
    """Sums over the valid queries of each identity."""

    pids: Int[np.ndarray, " P"]
    queries: Int[np.ndarray, " P"]
    """Valid queries of each."""
    sums: Float[np.ndarray, " P"]
    """Sum of their values."""


def per_identity(
    values: Float[np.ndarray, " q"], pids: Int[np.ndarray, " q"], valid: Bool[np.ndarray, " q"]
) -> PerIdentity:
    """Returns the sums of a number of each query, identity by identity.

    Args:
        values: Of each query, such as its average precision (`Report.ap`).
        pids: Identity of each query.
        valid: Queries that count.
    """
    known, row = np.unique(pids[valid], return_inverse=True)
    queries = np.bincount(row, minlength=len(known))
    return PerIdentity(known, queries, np.bincount(row, weights=values[valid], minlength=len(known)))


def by_identity(
    sums: Float[np.ndarray, " P"], queries: Int[np.ndarray, " P"], *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Computes the mean over queries with an interval from resampled identities.

    The mean of a sample of identities is the sum of its sums over the number of its queries. Bias-corrected and
    accelerated bootstrap of `scipy.stats.bootstrap`. For a difference of two runs give the difference of their sums:
    both are then measured on the same sample of identities.

    Args:
        sums: Sum over the queries of each identity, or difference of two such.
        queries: Valid queries of each identity.
        confidence: Share of such intervals that hold the true value.
        seed: Seed of the resampling.

    Returns:
        The mean and its interval, in the unit of the sums; of less than two identities, or of values that are all
        equal, an interval without width where it has none to estimate: NaN for one identity.

    Raises:
        ValueError: No identity.
    """
    if not len(sums):
        raise ValueError("no identity with a valid query: there is nothing to average")
    value = float(sums.sum() / queries.sum())
    if len(sums) < 2:
        return Interval(value, float("nan"), float("nan"))
    if np.ptp(sums / queries) == 0:
        return Interval(value, value, value)
    bootstrap = stats.bootstrap(
        (sums, queries),
        _mean_over_queries,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        batch=250,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(bootstrap.low), float(bootstrap.high))


def over_seeds(differences: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Computes the mean of paired differences, one a seed, with Student's t interval.

    Returns:
        Mean and interval; the interval of a single seed is NaN, as one says nothing about the others.

    Raises:
        ValueError: No difference.
    """
    values = np.asarray(differences, np.float64)
    if not len(values):
        raise ValueError("no seed: there is nothing to average")
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def _mean_over_queries(
    sums: Float[np.ndarray, "... P"], queries: Int[np.ndarray, "... P"], axis: int = -1
) -> Float[np.ndarray, "..."]:
    return sums.sum(axis=axis) / queries.sum(axis=axis)
