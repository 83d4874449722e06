"""Differences of runs with 95 % intervals: over seeds, and over the identities of the test set.

Two questions. How far would the difference move with other seeds of training? Student's t of the differences seed by
seed says it. How far with other people in the test set? Whole identities are resampled, the same ones for both runs.
Neither interval holds the other's chance.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from svdnet_jax.reporting.log import Record
from svdnet_jax.retrieval.intervals import ByIdentity, Interval, Sums, mean_over_runs, over_seeds

WHAT = (
    "95 % intervals: the first over seeds (Student's t of the difference seed by seed), the second over the identities "
    "of the test set, resampled"
)


OVER_SEEDS = (
    "95 % intervals over seeds (Student's t of the difference seed by seed); results by identity are not in these "
    "lines, so there is none over the identities of the test set"
)
OVER_PEOPLE = (
    "95 % intervals over the identities of the test set, resampled; of one seed, so they do not hold what another seed "
    "of training would change"
)


class Difference(NamedTuple):
    """One number of runs less that of their controls, in per cent."""

    seeds: Interval
    """Without ends where there is one seed only."""
    people: Interval | None
    """None where results by identity are not known."""

    def __str__(self) -> str:
        parts = [f"{self.seeds.value:+.1f}", *(ends(each) for each in (self.seeds, self.people) if each)]
        return " ".join(part for part in parts if part)


def difference(
    pair: tuple[np.ndarray, np.ndarray], sums: tuple[Sums, Sums] | None, name: str, measure: str
) -> Difference:
    """Computes the difference of a number, one value a seed, with its intervals.

    Args:
        pair: The number in per cent, of each seed; and the same of the controls.
        sums: Results by identity of both, the mean over the seeds; None where they are not known.
        name: Embedding, ``embedding`` or ``pooled``.
        measure: Such as ``mAP``.
    """
    people = None
    if sums and measure in sums[0][name].sums:
        found = (sums[0][name] - sums[1][name]).interval(measure)
        people = Interval(*(100 * end for end in found))
    return Difference(over_seeds(pair[0] - pair[1]), people)


def about(found: Iterable[Difference]) -> str:
    """Returns what the brackets of differences are: with one seed the only ones are over identities."""
    seeds = people = False
    for each in found:
        seeds |= bool(ends(each.seeds))
        people |= bool(each.people and ends(each.people))
    if people and seeds:
        return WHAT
    none = "no intervals: results by identity are not in these lines, and there are not several seeds"
    return OVER_PEOPLE if people else OVER_SEEDS if seeds else none


def ends(interval: Interval) -> str:
    """Returns the ends of an interval as text; nothing where it has none."""
    return "" if np.isnan(interval.low) else f"[{interval.low:+.1f}, {interval.high:+.1f}]"


def mean_sums(runs: Sequence[Sums | None]) -> Sums | None:
    """Returns results by identity as the mean over runs; None if those of one are not known.

    Raises:
        ValueError: They were not measured on the same queries.
    """
    known = [run for run in runs if run]
    if not known or len(known) < len(runs):
        return None
    return {name: mean_over_runs([run[name] for run in known]) for name in known[0]}


def mean_identities(lines: Sequence[Record], *names: str) -> list[Record]:
    """Returns lines without their results by identity, and after them a line with the mean of those that are alike.

    Args:
        lines: Each with ``identities``, as `ByIdentity.to_json` gives them.
        names: Fields in which lines are alike, of different seeds.
    """
    alike: dict[tuple[object, ...], list[ByIdentity]] = {}
    for line in lines:
        found = ByIdentity.from_json(line["identities"])
        alike.setdefault(tuple(line[name] for name in names), []).append(found)
    kept: list[Record] = [{key: value for key, value in line.items() if key != "identities"} for line in lines]
    means: list[Record] = [
        {
            "event": "identities",
            **dict(zip(names, values, strict=True)),
            "seed": None,
            "embedding": mean_over_runs(runs).to_json(digits=3),
        }
        for values, runs in alike.items()
    ]
    return [*kept, *means]
