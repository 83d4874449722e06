"""Intervals by identities and over seeds: slow references, and that they hold the truth as often as they say."""

import numpy as np
import pytest

from svdnet_jax.retrieval import Embeddings, evaluate
from svdnet_jax.retrieval.intervals import (
    FEW,
    ByIdentity,
    mean_over_runs,
    over_identities,
    over_seeds,
    report_intervals,
    sum_by_identity,
)

# t of Student's table for two-sided 95 %.
T95 = {2: 12.706, 3: 4.303, 10: 2.262}


def drawn(rng, identities, spread=0.2, noise=0.2):
    """Values of queries that share much within an identity; their mean over all possible identities is 0.5."""
    queries = rng.integers(1, 7, identities)
    pids = np.repeat(np.arange(identities) + 1, queries)
    own = rng.normal(0.5, spread, identities)
    return own[pids - 1] + rng.normal(0, noise, len(pids)), pids


def interval(values, pids, **options):
    _, row = np.unique(pids, return_inverse=True)
    return over_identities(np.bincount(row, weights=values), np.bincount(row), **options)


@pytest.fixture(scope="module")
def evaluated():
    """A report and its queries, some of which have no right answer."""
    rng = np.random.default_rng(0)
    pids = rng.integers(1, 30, 90)
    gallery = Embeddings(rng.normal(size=(200, 6)), rng.integers(1, 26, 200), rng.integers(1, 4, 200))
    query = Embeddings(gallery.features[:90] + rng.normal(size=(90, 6)), pids, rng.integers(1, 4, 90))
    return evaluate(query, gallery), query


def test_sums_are_those_of_a_loop_over_valid_queries(evaluated):
    report, query = evaluated
    assert 0 < report.valid_queries < 90
    found = sum_by_identity(report, query.pids, tuple(report.metrics()))
    for i, pid in enumerate(found.pids):
        own = [q for q in range(90) if query.pids[q] == pid and report.first_hit[q] > 0]
        assert found.queries[i] == len(own) > 0
        assert found.sums["mAP"][i] == pytest.approx(sum(report.ap[q] for q in own))
        assert found.sums["rank5"][i] == sum(report.first_hit[q] <= 5 for q in own)
    assert found.queries.sum() == report.valid_queries


def test_every_number_of_a_report_is_within_its_interval(evaluated):
    report, query = evaluated
    found = report_intervals(report, query.pids)
    assert list(found) == list(report.metrics())
    for name, value in report.metrics().items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low < value < found[name].high


def test_results_by_identity_are_stored_and_subtracted(evaluated):
    report, query = evaluated
    found = sum_by_identity(report, query.pids)
    again = ByIdentity.from_json(found.to_json())
    np.testing.assert_allclose(again.sums["mAP"], found.sums["mAP"], atol=1e-6)
    assert (found - again).interval("mAP").value == pytest.approx(0, abs=1e-6)
    doubled = mean_over_runs([found, ByIdentity(found.pids, found.queries, {k: 3 * v for k, v in found.sums.items()})])
    np.testing.assert_allclose(doubled.sums["rank1"], 2 * found.sums["rank1"])
    older = ByIdentity(found.pids, found.queries, {"mAP": found.sums["mAP"]})
    for fewer in (mean_over_runs([found, older]), mean_over_runs([older, found]), found - older, older - found):
        assert list(fewer.sums) == ["mAP"]
    other = ByIdentity(found.pids + 1, found.queries, found.sums)
    for refused in (lambda: found - other, lambda: mean_over_runs([found, other])):
        with pytest.raises(ValueError, match="same queries"):
            refused()


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        [],
        None,
        {"pids": [1], "queries": [1], "sums": [1]},
        {"pids": [1], "queries": [0], "sums": {"mAP": [1.0]}},
        {"pids": [1], "queries": [1], "sums": {"mAP": [1.0, 2.0]}},
        {"pids": [1], "queries": [1], "sums": {"mAP": [float("nan")]}},
        {"pids": [10**30], "queries": [1], "sums": {"mAP": [1.0]}},
        {"pids": ["x"], "queries": [1], "sums": {"mAP": [1.0]}},
        {"pids": [1, 1], "queries": [1, 1], "sums": {"mAP": [1.0, 0.5]}},
    ],
)
def test_damaged_results_are_refused(damaged):
    with pytest.raises(ValueError):
        ByIdentity.from_json(damaged)


def test_an_interval_is_that_of_a_slow_bootstrap_of_whole_identities():
    values, pids = drawn(np.random.default_rng(1), 60)
    rng, means = np.random.default_rng(2), []
    groups = [values[pids == pid] for pid in np.unique(pids)]
    for _ in range(2000):
        sample = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        means.append(sample.mean())
    low, high = np.quantile(means, [0.025, 0.975])
    found = interval(values, pids)
    assert found.value == pytest.approx(values.mean())
    # Ends of two bootstraps of 2 000 samples differ by a few hundredths of the width; BCa moves both a little.
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.12 * (high - low))


def test_intervals_hold_the_truth_as_often_as_they_say_and_those_of_queries_do_not():
    """Of 200 drawn test sets; 0.95 +- 3.5 standard deviations of a count of 200, less what 40 identities cost."""
    rng = np.random.default_rng(3)
    held = held_by_queries = 0
    for number in range(200):
        values, pids = drawn(rng, 40)
        found = interval(values, pids, seed=number)
        held += found.low <= 0.5 <= found.high
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        held_by_queries += abs(values.mean() - 0.5) <= half
    assert 0.89 <= held / 200 <= 0.99
    assert held_by_queries / 200 < 0.89


def test_a_pair_is_measured_on_the_same_identities():
    """What both runs share, hard and easy people, does not widen the interval of their difference."""
    rng = np.random.default_rng(4)
    values, pids = drawn(rng, 60)
    better = values + 0.01 + rng.normal(0, 0.001, len(values))
    found = interval(better - values, pids)
    assert found.low > 0
    assert found.high - found.low < 0.01
    assert interval(values, pids).high - interval(values, pids).low > 0.05


def test_the_same_seed_gives_the_same_interval_and_more_confidence_a_wider_one():
    values, pids = drawn(np.random.default_rng(5), 30)
    assert interval(values, pids) == interval(values, pids)
    narrow, wide = interval(values, pids, confidence=0.5), interval(values, pids, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_what_has_no_interval():
    one = interval(np.array([0.2, 0.4]), np.array([7, 7]))
    assert one.value == pytest.approx(0.3)
    assert np.isnan([one.low, one.high]).all()
    assert interval(np.ones(6), np.array([1, 1, 2, 3, 3, 3])) == (1, 1, 1)
    with pytest.raises(ValueError, match="no identity"):
        interval(np.zeros(0), np.zeros(0, int))
    with pytest.raises(ValueError, match="no seed"):
        over_seeds([])
    assert np.isnan(over_seeds([1.0]).low)
    with pytest.raises(ValueError, match="finite"):
        over_seeds([1.0, np.nan])


def test_gains_that_differ_by_rounding_are_equal():
    """Rounding as a spread made NaN of the correction for bias, a warning of SciPy's, or ends out of order."""
    rng = np.random.default_rng(6)
    for number in range(300):
        queries = rng.integers(1, 7, rng.integers(2, 30))
        base, gain = rng.random(len(queries)) * queries, 0.1 * rng.random() * (number % 3)
        found = over_identities(base + gain * queries - base, queries)
        assert found.low == found.value == found.high == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_few_values_that_differ_give_finite_ends_around_the_mean(share):
    """Most identities are all right and some all wrong, as rank-1 often is: the resampled means are few, with ties."""
    rng = np.random.default_rng(7)
    for number in range(100):
        queries = rng.integers(1, 7, rng.integers(2, 30))
        found = over_identities((rng.random(len(queries)) < share) * queries.astype(float), queries, seed=number)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says():
    """Of 200 drawn test sets and two models, one 0.02 better on average, though not alike for all people."""
    rng, held = np.random.default_rng(8), 0
    for number in range(200):
        first, pids = drawn(rng, 40)
        second = first + rng.normal(0.02, 0.05, 41)[pids] + rng.normal(0, 0.1, len(pids))
        found = interval(second - first, pids, seed=number)
        held += found.low <= 0.02 <= found.high
    assert 0.89 <= held / 200 <= 0.99


@pytest.mark.parametrize(("identities", "least", "most"), [(2, 0.3, 0.6), (5, 0.65, 0.91), (FEW, 0.85, 0.99)])
def test_of_few_identities_an_interval_is_too_narrow(identities, least, most):
    rng, held = np.random.default_rng(9), 0
    for number in range(200):
        found = interval(*drawn(rng, identities), seed=number)
        held += found.low <= 0.5 <= found.high
    assert least <= held / 200 <= most


def test_the_interval_over_seeds_holds_the_truth_as_often_as_it_says():
    """Of 1000 times three seeds; 0.95 +- 3.5 standard deviations of a count of 1000."""
    rng, held = np.random.default_rng(10), 0
    for differences in rng.normal(1.0, 2.0, (1000, 3)):
        found = over_seeds(differences)
        held += found.low <= 1.0 <= found.high
    assert 0.926 <= held / 1000 <= 0.974


@pytest.mark.parametrize("n", sorted(T95))
def test_over_seeds_is_students_t(n):
    values = np.random.default_rng(n).normal(3, 1, n)
    found = over_seeds(values)
    half = T95[n] * values.std(ddof=1) / np.sqrt(n)
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=2e-3)
