"""Confidence intervals: of a mean over queries by resampling identities, and of a paired difference over seeds.

Queries of one person are not independent: they share clothes, cameras and right answers. An interval that resamples
queries is too narrow, so whole identities are resampled, with all of their queries (a cluster bootstrap). It says how
far the number would move with other people in the test set. How far it moves with another seed of training is a
different question, which only several seeds answer: `over_seeds`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from svdnet_jax.retrieval.results import Report

MEASURES = ("rank1", "mAP", "mAP_market")
"""What is kept by identity."""
RESAMPLES = 2000
"""Bootstrap samples; the ends of an interval are then good to about a twentieth of its width. Their seed is 0 where
none is given, so the same results give the same ends."""
FEW = 10
"""Identities below which an interval over them is too narrow: one of 95 % held the truth in 75 to 86 of 100 drawn test
sets of five identities, in 40 to 51 of two (tests/retrieval/test_intervals.py draws such sets)."""
ALIKE = 1e-12
"""Spread of values, as a share of the largest and of 1, that is rounding and no spread."""


class Interval(NamedTuple):
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class ByIdentity:
    """Retrieval summed over the valid queries of each identity."""

    pids: Int[np.ndarray, " P"]
    queries: Int[np.ndarray, " P"]
    """Valid queries of each."""
    sums: Mapping[str, Float[np.ndarray, " P"]]
    """By measure, such as ``mAP``: sum of the number over those queries."""

    def __post_init__(self) -> None:
        shapes = {np.shape(each) for each in (self.pids, self.queries, *self.sums.values())}
        if len(shapes) != 1 or len(shapes.copy().pop()) != 1:
            raise ValueError(f"expected arrays of one number an identity, found shapes {sorted(shapes)}")
        if (self.queries < 1).any() or not all(np.isfinite(each).all() for each in self.sums.values()):
            raise ValueError("expected a query or more of each identity, and finite numbers")
        if len(np.unique(self.pids)) < len(self.pids):
            raise ValueError("expected each identity once: what is resampled is whole identities")

    def __sub__(self, other: "ByIdentity") -> "ByIdentity":
        """Returns the difference of two models on the same queries.

        Raises:
            ValueError: They were measured on other identities, or on others of their queries.
        """
        _check_same_queries(self, other)
        return replace(self, sums={name: self.sums[name] - other.sums[name] for name in _in_all([self, other])})

    def interval(self, measure: str, *, confidence: float = 0.95, seed: int = 0) -> Interval:
        """Returns the mean over queries of a measure, with its interval: see `over_identities`."""
        return over_identities(self.sums[measure], self.queries, confidence=confidence, seed=seed)

    def to_json(self, digits: int = 6) -> dict[str, Any]:
        """Returns it in plain lists, sums to so many decimals."""
        sums = {name: [round(float(value), digits) for value in values] for name, values in self.sums.items()}
        return {"pids": self.pids.tolist(), "queries": self.queries.tolist(), "sums": sums}

    @classmethod
    def from_json(cls, stored: Any) -> "ByIdentity":
        """Returns what `to_json` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            sums = {str(name): np.asarray(values, np.float64) for name, values in stored["sums"].items()}
            return cls(np.asarray(stored["pids"], np.int64), np.asarray(stored["queries"], np.int64), sums)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"no results by identity: {error!r}") from error


Sums = Mapping[str, ByIdentity]
"""Results by identity of each embedding, ``embedding`` and ``pooled``."""


def sum_by_identity(report: Report, pids: Int[np.ndarray, " q"], measures: Sequence[str] = MEASURES) -> ByIdentity:
    """Sums an evaluation over the queries of each identity.

    Args:
        report: What `evaluate` found.
        pids: Identity of each query.
        measures: Names of `Report.metrics`.
    """
    valid = report.first_hit > 0
    known, row = np.unique(pids[valid], return_inverse=True)
    sums = {
        name: np.bincount(row, weights=report.per_query(name)[valid], minlength=len(known)).astype(np.float64)
        for name in measures
    }
    return ByIdentity(known, np.bincount(row, minlength=len(known)), sums)


def report_intervals(report: Report, pids: Int[np.ndarray, " q"], confidence: float = 0.95) -> dict[str, Interval]:
    """Returns every number of `Report.metrics` with its interval over identities.

    Args:
        report: What `evaluate` found.
        pids: Identity of each query.
        confidence: Share of such intervals that hold the true value.
    """
    sums = sum_by_identity(report, pids, tuple(report.metrics()))
    return {name: sums.interval(name, confidence=confidence) for name in sums.sums}


def report_differences(
    first: Report, second: Report, pids: Int[np.ndarray, " q"], confidence: float = 0.95
) -> dict[str, Interval]:
    """Returns every number of `Report.metrics` of one report less that of another, with its interval over identities.

    Both are measured on the same resampled identities: what makes people hard for both does not widen the interval, as
    it does those of the two numbers by themselves.

    Args:
        first: What `evaluate` found.
        second: What it found by another embedding, distance or re-ranking of the same queries.
        pids: Identity of each query.
        confidence: Share of such intervals that hold the true value.

    Raises:
        ValueError: They are not of the same queries.
    """
    if not np.array_equal(first.first_hit > 0, second.first_hit > 0):
        raise ValueError("the two were not measured on the same queries")
    names = tuple(first.metrics())
    less = sum_by_identity(first, pids, names) - sum_by_identity(second, pids, names)
    return {name: less.interval(name, confidence=confidence) for name in names}


def caution(people: int) -> str:
    """Returns what to say of intervals over so many identities; nothing where there are enough."""
    return f"of {people} people an interval is too narrow; it takes {FEW} or more" if people < FEW else ""


def mean_over_runs(runs: Sequence[ByIdentity]) -> ByIdentity:
    """Returns the mean of several models, such as those of several seeds, on the same queries.

    Of the measures that all of them have: an older version may have kept fewer.

    Raises:
        ValueError: They were not measured on the same queries.
    """
    for other in runs[1:]:
        _check_same_queries(runs[0], other)
    return replace(runs[0], sums={name: np.mean([run.sums[name] for run in runs], axis=0) for name in _in_all(runs)})


def _in_all(runs: Sequence[ByIdentity]) -> list[str]:
    """Returns the measures that all have, in the order of the first."""
    return [name for name in runs[0].sums if all(name in run.sums for run in runs)]


def _check_same_queries(first: ByIdentity, second: ByIdentity) -> None:
    if not (np.array_equal(first.pids, second.pids) and np.array_equal(first.queries, second.queries)):
        raise ValueError("the two were not measured on the same queries")


def over_identities(
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
        The mean and its interval, in the unit of the sums. The ends are NaN for one identity, which says nothing of
        others. Where all identities have one value, such as 100 %, the interval has no width: there is nothing to
        resample, which is not to say that the next identity would have that value too. See `FEW`.

    Raises:
        ValueError: No identity.
    """
    if not len(sums):
        raise ValueError("no identity with a valid query: there is nothing to average")
    value = float(sums.sum() / queries.sum())
    if len(sums) < 2:
        return Interval(value, float("nan"), float("nan"))
    means = sums / queries
    # Rounding would do as a spread, of which the correction for bias makes NaN or ends out of order.
    if np.ptp(means) <= ALIKE * max(1.0, np.abs(means).max()):
        return Interval(value, value, value)
    from scipy import stats  # takes half a second to import

    bootstrap = stats.bootstrap(
        (sums, queries),
        _mean_over_queries,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        batch=250,
        rng=np.random.default_rng(seed),
    )
    return Interval(value, *map(float, bootstrap.confidence_interval))


def over_seeds(differences: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Computes the mean of paired differences, one a seed, with Student's t interval.

    Returns:
        Mean and interval; the interval of a single seed is NaN, as one says nothing about the others.

    Raises:
        ValueError: No difference, or one that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if not len(values):
        raise ValueError("no seed: there is nothing to average")
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite differences, found {values.tolist()}")
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    from scipy import stats

    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def _mean_over_queries(
    sums: Float[np.ndarray, "... P"], queries: Int[np.ndarray, "... P"], axis: int = -1
) -> Float[np.ndarray, "..."]:
    return sums.sum(axis=axis) / queries.sum(axis=axis)
