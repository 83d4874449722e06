"""Differences of what is of no round: features, cut layers, W replaced once; over seeds, and over identities."""

import numpy as np
import pytest

from svdnet_jax.errors import LogError
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
    assert str(cell) == f"{seeds.value:+.1f}{ends}"
    assert seeds.high - seeds.low != pytest.approx(people.high - people.low, abs=1)


def test_without_results_by_identity_only_the_seeds_tell(lines):
    plain = [{k: v for k, v in each.items() if k != "identities"} for each in lines]
    (cell,) = summary.unlike(plain, {"rank": 4}, {"rank": 0}, ["mAP"])
    assert str(cell).count("[") == 1
    (cell,) = summary.unlike([plain[0], plain[3]], {"rank": 4}, {"rank": 0}, ["mAP"])
    assert str(cell).count("[") == 0


def rounds(variant, seeds, gain):
    """Lines of a variant after round 1; a seed moves both variants by ten points, and all differ by the gain."""
    numbers = {seed: 0.3 + gain + 0.1 * seed for seed in seeds}
    return [
        {"event": "phase", "phase": phase, "round": number, "variant": variant, "seed": seed}
        | {key: {"rank1": numbers[seed], "mAP": numbers[seed]} for key in ("embedding", "pooled")}
        for seed in seeds
        for phase, number in (("base", 0), ("relaxation", 1))
    ]


def people(variant):
    kept = ByIdentity(np.arange(1, 6), QUERIES, dict.fromkeys(("rank1", "mAP"), 0.1 * QUERIES)).to_json()
    return {"event": "identities", "variant": variant, "seed": None, "round": 1, "embedding": kept, "pooled": kept}


def test_seeds_are_paired_by_their_numbers_and_not_by_their_places():
    found = summary.differences(rounds("us", (2, 0, 1), 0.01) + rounds("none", (0, 1, 2), 0), {"": ("us", "none")}, 1)
    assert [str(each) for each in found[""]] == ["+1.0 [+1.0, +1.0]"] * 3
    groups = [{"variant": "us", "phase": "relaxation"}, {"variant": "none", "phase": "relaxation"}]
    lines = rounds("us", (2, 0, 1), 0.01) + rounds("none", (0, 1, 2), 0)
    assert str(summary.unlike(lines, *groups, ["mAP"])[0]) == "+1.0 [+1.0, +1.0]"


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 3), (0, 1, 2, 3)])
def test_seeds_that_one_side_lacks_are_refused(seeds):
    """One value beside three would even be subtracted from each of them."""
    lines = rounds("us", seeds, 0.01) + rounds("none", (0, 1, 2), 0)
    with pytest.raises(LogError, match=f"us has the seeds {', '.join(map(str, seeds))} and none 0, 1, 2"):
        summary.differences(lines, {"": ("us", "none")}, 1)


def test_a_seed_that_is_there_twice_is_refused():
    lines = rounds("us", (0, 1), 0.01) + rounds("none", (0, 1), 0)
    with pytest.raises(LogError, match="twice"):
        summary.differences([*lines, *rounds("us", (1,), 0.02)], {"": ("us", "none")}, 1)


@pytest.mark.parametrize(
    ("seeds", "known", "said"),
    [
        ((0, 1), True, "the first over seeds"),
        ((0, 1), False, "there is none over the identities"),
        ((0,), True, "of one seed"),
        ((0,), False, "no intervals"),
    ],
)
def test_a_caption_says_what_the_brackets_are(seeds, known, said):
    lines = rounds("us", seeds, 0.01) + rounds("none", seeds, 0) + [people(name) for name in ("us", "none") if known]
    table = summary.difference_table(lines, {"us": ("us", "none")}, 1, "Difference")
    assert said in str(table.caption)
    (cell, *_) = table.columns[1].cells
    assert cell.count("[") == (len(seeds) > 1) + known


def chosen(what, variant, **more):
    return {"event": "choice", "what": what, "variant": variant, "seed": None} | more


def test_choices_say_what_was_chosen_and_where_the_grid_ended():
    lines = rounds("us", (0,), 0)
    weight = chosen("weight", "none-soft", rates=[1.0, 10.0], mAP=[0.5, 0.6], chosen=10.0)
    said = summary.choices([*lines, weight])
    assert "Learning rates" not in said, "of one factor nothing was chosen"
    assert "Weights, each chosen on held-out training identities" in said
    assert "none-soft 10 (an end of 1 to 10)" in said
    rate = chosen("rate", "us", rates=[0.01, 0.02, 0.04], mAP=[0.5, 0.6, None], chosen=0.02)
    assert "us 0.02 (0.01 to 0.04; 0.04 diverged). Weights, likewise" in summary.choices([*lines, rate, weight])
