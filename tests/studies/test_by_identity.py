"""Differences of what is of no round: features, cut layers, W replaced once; over seeds, and over identities."""

import numpy as np
import pytest

from svdnet_jax.retrieval.intervals import ByIdentity, Interval, over_identities, over_seeds
from svdnet_jax.studies import summary
from svdnet_jax.studies.differences import mean_identities

QUERIES = np.array([2, 1, 4, 3, 2])


def line(rng, rank, seed):
    """A line as a study computes it: the number of all queries, and its sums by identity."""
    found = ByIdentity(np.arange(1, 6), QUERIES, {"mAP": rng.uniform(0, QUERIES)})
    value = found.sums["mAP"].sum() / QUERIES.sum()
    fields = {"event": "cut", "variant": "us", "rank": rank, "seed": seed}
    return {**fields, "embedding": {"mAP": value}, "identities": found.to_json(digits=6)}


@pytest.fixture
def lines(rng):
    return [line(rng, rank, seed) for rank in (4, 0) for seed in (0, 1, 2)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sums(lines, rank):
    """Sums by identity of a rank, one row a seed."""
    return np.array([each["identities"]["sums"]["mAP"] for each in lines if each["rank"] == rank])


def test_lines_lose_their_identities_and_a_mean_stands_for_each_group(lines):
    kept = mean_identities(lines, "variant", "rank")
    assert kept[:6] == [{k: v for k, v in each.items() if k != "identities"} for each in lines]
    assert [(each["event"], each["rank"], each["seed"]) for each in kept[6:]] == [
        ("identities", 4, None),
        ("identities", 0, None),
    ]
    np.testing.assert_allclose(kept[6]["embedding"]["sums"]["mAP"], sums(lines, 4).mean(0), atol=1e-3)


def test_a_difference_has_an_interval_over_seeds_and_one_over_identities(lines):
    (cell,) = summary.unlike(mean_identities(lines, "variant", "rank"), {"rank": 4}, {"rank": 0}, ["mAP"])
    change = sums(lines, 4) - sums(lines, 0)
    seeds = over_seeds(100 * change.sum(1) / QUERIES.sum())
    # The lines have the means to three decimals.
    means = [sums(lines, rank).mean(0).round(3) for rank in (4, 0)]
    people = over_identities(means[0] - means[1], QUERIES)
    people = Interval(*(100 * each for each in people))
    ends = "".join(f" [{each.low:+.1f}, {each.high:+.1f}]" for each in (seeds, people))
    assert cell == f"  {seeds.value:+.1f}{ends}"
    assert seeds.high - seeds.low != pytest.approx(people.high - people.low, abs=1)


def test_without_results_by_identity_only_the_seeds_tell(lines):
    plain = [{k: v for k, v in each.items() if k != "identities"} for each in lines]
    (cell,) = summary.unlike(plain, {"rank": 4}, {"rank": 0}, ["mAP"])
    assert cell.count("[") == 1
    (cell,) = summary.unlike([plain[0], plain[3]], {"rank": 4}, {"rank": 0}, ["mAP"])
    assert cell.count("[") == 0
