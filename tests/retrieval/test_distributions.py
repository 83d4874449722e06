"""Distributions of distances against all pairs in Python loops, hand-made cases, and laws of thresholds."""

import json
import math

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import assume, given, settings
from scipy.stats import mannwhitneyu

from svdnet_jax.eigenlayer import decorrelate
from svdnet_jax.retrieval import distributions
from svdnet_jax.retrieval.distributions import distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings

# Rates and areas are quotients of the same integers on both sides, summed in another order.
SUMS = 1e-12


def line(at, pids, cameras=None):
    """Images on a line, where distances can be read off."""
    cameras = np.zeros(len(pids), int) if cameras is None else cameras
    return Embeddings(np.array(at, np.float32)[:, None], np.array(pids), np.array(cameras))


def one_query(positives, negatives):
    """A problem with these distances."""
    gallery = line([*positives, *negatives], [1] * len(positives) + [2] * len(negatives))
    return distance_distributions(line([0], [1]), gallery, cross_camera=False)


def pairs(query, gallery, cross_camera, metric="euclidean"):
    """All distances that the protocol compares, each rounded to float32 once: of positives, of negatives."""
    matrix = reference.distances(query.features, gallery.features, metric).astype(np.float32).astype(float)
    sides = [], []
    for i in range(len(query.pids)):
        for j in range(len(gallery.pids)):
            if query.pids[i] < 0 or gallery.pids[j] < 0:
                continue
            same = query.pids[i] == gallery.pids[j]
            if cross_camera and same and query.cameras[i] == gallery.cameras[j]:
                continue
            sides[0 if same else 1].append(matrix[i, j])
    return sides


def up_to(distances, edges):
    """How many distances are at most each edge."""
    return np.searchsorted(np.sort(distances), edges, side="right")


def step(found):
    return found.edges[1] - found.edges[0]


@st.composite
def problems(draw):
    """Points of a grid: squared distances are integers, many of them equal. Few shapes, as each is a program."""

    def images(n):
        at = draw(hnp.arrays(np.float32, (n, 2), elements=st.integers(-9, 9)))
        pids = draw(hnp.arrays(np.int64, n, elements=st.sampled_from([-1, 0, 1, 2])))
        return Embeddings(at, pids, draw(hnp.arrays(np.int64, n, elements=st.integers(1, 3))))

    query, gallery = images(6), images(draw(st.sampled_from([4, 20])))
    cross_camera = draw(st.booleans())
    assume(all(pairs(query, gallery, cross_camera)))
    return query, gallery, cross_camera


@settings(deadline=None, max_examples=80)
@given(problems(), st.sampled_from([2, 4, 256]))
def test_rates_at_every_edge_are_exact_counts(problem, block):
    query, gallery, cross_camera = problem
    found = distance_distributions(query, gallery, cross_camera=cross_camera, block=block)
    positives, negatives = pairs(*problem)
    np.testing.assert_array_equal(np.cumsum(found.positives), up_to(positives, found.edges))
    np.testing.assert_array_equal(np.cumsum(found.negatives), up_to(negatives, found.edges))
    np.testing.assert_array_equal(found.edges.astype(np.float32), found.edges)
    false, true = found.roc()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    np.testing.assert_array_equal(false, up_to(negatives, found.edges) / len(negatives))
    np.testing.assert_array_equal(true, up_to(positives, found.edges) / len(positives))


@settings(deadline=None, max_examples=40)
@given(problems(), st.sampled_from([1.0, 0.5, 4.0]))
def test_cosine_counts_are_exact_too(problem, scale):
    # 16 entries of +-1, from the bits of a number, have length 4 and so exact unit vectors, also when scaled by 2^k.
    def bits(e, scale):
        signs = 2 * (e.features[:, :1].astype(int) + 9 >> np.arange(16) % 5 & 1) - 1
        return Embeddings((scale * signs).astype(np.float32), e.pids, e.cameras)

    query, gallery, cross_camera = bits(problem[0], 1), bits(problem[1], scale), problem[2]
    found = distance_distributions(query, gallery, "cosine", cross_camera)
    positives, negatives = pairs(query, gallery, cross_camera, "cosine")
    np.testing.assert_array_equal(np.cumsum(found.positives), up_to(positives, found.edges))
    np.testing.assert_array_equal(np.cumsum(found.negatives), up_to(negatives, found.edges))


@settings(deadline=None, max_examples=60)
@given(problems(), st.sampled_from([0, 0.05, 0.1, 0.29, 0.5, 1]))
def test_a_threshold_is_the_last_that_keeps_the_rate(problem, asked):
    query, gallery, cross_camera = problem
    found = distance_distributions(query, gallery, cross_camera=cross_camera)
    positives, negatives = pairs(*problem)
    distance, false, true = found.threshold(asked)
    assert false == sum(d <= distance for d in negatives) / len(negatives) <= asked
    assert true == sum(d <= distance for d in positives) / len(positives)
    assert distance == found.edges[-1] or sum(d <= distance + step(found) for d in negatives) > asked * len(negatives)
    # No other distance serves better.
    for other in [*positives, *negatives]:
        if sum(d <= other for d in negatives) <= asked * len(negatives):
            assert sum(d <= other for d in positives) / len(positives) <= true


@settings(deadline=None, max_examples=60)
@given(problems())
def test_summaries_equal_those_of_all_pairs(problem):
    query, gallery, cross_camera = problem
    found = distance_distributions(query, gallery, cross_camera=cross_camera)
    positives, negatives = pairs(*problem)
    for side, distances in ((found.of_positives(), positives), (found.of_negatives(), negatives)):
        assert side.pairs == len(distances)
        assert side.mean == pytest.approx(np.mean(distances), abs=step(found) / 2 + SUMS)
        assert side.std == pytest.approx(np.std(distances), abs=step(found) / 2 + SUMS)
    # Mann and Whitney's statistic. Distances that differ lie in different bins here, so it is exact.
    nearer = [(p < n) + (p == n) / 2 for p in positives for n in negatives]
    assert found.auc == pytest.approx(sum(nearer) / len(nearer), abs=SUMS)
    assert found.eer == pytest.approx(equal_error_rate(positives, negatives), abs=SUMS)


def equal_error_rate(positives, negatives):
    """Walks up the distances until no fewer negatives are accepted than positives missed."""
    false, missed = 0.0, 1.0
    for distance in sorted({*positives, *negatives}):
        new_false = sum(d <= distance for d in negatives) / len(negatives)
        new_missed = sum(d > distance for d in positives) / len(positives)
        if new_false >= new_missed:
            share = (missed - false) / ((missed - false) + (new_false - new_missed))
            return false + share * (new_false - false)
        false, missed = new_false, new_missed
    raise AssertionError("at the largest distance all are accepted")


def test_equal_error_rates_that_can_be_seen():
    assert one_query([1, 2, 3, 6], [4, 5, 7, 8]).eer == 0.25  # up to 4: one of four, and one of four
    assert one_query([1, 3], [2]).eer == 0.5  # half the positives missed before and after the only negative
    assert one_query([1, 2], [2, 3]).eer == 0.25  # at 2 from (0, 1/2) to (1/2, 0)
    assert one_query([1, 2], [3, 4]).eer == 0
    assert one_query([3, 4], [1, 2]).eer == 1


def test_who_is_compared_with_whom():
    query = line([0, 0, 0], [5, 0, -1], [1, 1, 1])
    gallery = line([1, 2, 3, 4, 5, 6], [5, 5, 0, 0, 7, -1], [1, 2, 1, 2, 1, 2])
    found = distance_distributions(query, gallery)
    # Query 5: own camera's image at 1 left out. Query 0: that at 3. Junk meets nobody, junk in the gallery neither.
    assert distances_of(found, found.positives) == [2, 4]
    assert distances_of(found, found.negatives) == [1, 2, 3, 4, 5, 5]
    found = distance_distributions(query, gallery, cross_camera=False)
    assert distances_of(found, found.positives) == [1, 2, 3, 4]
    assert distances_of(found, found.negatives) == [1, 2, 3, 4, 5, 5]


def distances_of(found, counts):
    """The distances back from their counts; each of them is an edge here."""
    return list(np.repeat(found.edges, counts))


def test_a_query_without_a_right_answer_still_meets_its_negatives():
    found = distance_distributions(line([0, 10], [1, 3]), line([1, 2], [1, 2]), cross_camera=False)
    assert distances_of(found, found.negatives) == [2, 8, 9]


def clusters(seed, n_query=40, n_gallery=300, d=24):
    """Noisy clusters of people with junk and distractors, at real-valued places."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(14, d))

    def images(n, lowest):
        pids = random.integers(lowest, 13, n)
        return Embeddings(centers[pids] + 1.1 * random.normal(size=(n, d)), pids, random.integers(0, 4, n))

    return images(n_query, 1), images(n_gallery, -1)


def assert_equal_up_to_one_edge(found, positives, negatives):
    """Distances that differ in a few last digits of float32 may move to the next bin, not further."""
    for counts, distances in ((found.positives, positives), (found.negatives, negatives)):
        up = np.cumsum(counts)
        assert np.all(up_to(distances, found.edges[:-2]) <= up[1:-1])
        assert np.all(up[1:-1] <= up_to(distances, found.edges[2:]))


@pytest.mark.parametrize(("metric", "offset"), [("euclidean", 0.0), ("euclidean", 30.0), ("cosine", 0.0)])
def test_real_valued_features(metric, offset):
    query, gallery = (Embeddings(e.features + offset, e.pids, e.cameras) for e in clusters(1))
    found = distance_distributions(query, gallery, metric, block=16)
    positives, negatives = pairs(query, gallery, True, metric)
    assert_equal_up_to_one_edge(found, positives, negatives)
    in_one_bin = (found.positives * found.negatives).sum() / (len(positives) * len(negatives))
    # Half of this is the bound that the module states; the rest is for distances that changed bins.
    nearer = mannwhitneyu(negatives, positives).statistic / (len(positives) * len(negatives))
    assert found.auc == pytest.approx(nearer, abs=in_one_bin)
    spread = math.sqrt((np.var(positives) + np.var(negatives)) / 2)
    # Distances lie anywhere in their bins, so over thousands of them the middles are right.
    assert found.of_negatives().mean == pytest.approx(np.mean(negatives), abs=step(found) / 10)
    # At worst, means and deviations are half a step off each.
    assert found.separation == pytest.approx(
        (np.mean(negatives) - np.mean(positives)) / spread, abs=3 * step(found) / spread
    )
    occupied = np.flatnonzero(found.positives + found.negatives)
    assert occupied[-1] > 2**13, "the grid is fine where the distances are"


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_block_size_does_not_change_the_counts(block, monkeypatch):
    query, gallery = (Embeddings(np.rint(4 * e.features), e.pids, e.cameras) for e in clusters(2))
    expected, found = distance_distributions(query, gallery), distance_distributions(query, gallery, block=block)
    np.testing.assert_array_equal(found.positives, expected.positives)
    np.testing.assert_array_equal(found.negatives, expected.negatives)
    monkeypatch.setattr(distributions, "MAX_BLOCK_ELEMENTS", 5 * 300)
    np.testing.assert_array_equal(distance_distributions(query, gallery).negatives, expected.negatives)


def test_all_blocks_share_one_program_and_shrink_for_large_galleries(monkeypatch):
    query, gallery = clusters(3)
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(distributions._bins.__wrapped__, n=1)
    monkeypatch.setattr(distributions, "_bins", jax.jit(counted, static_argnames="metric"))
    distance_distributions(query, gallery, block=7)
    monkeypatch.setattr(distributions, "MAX_BLOCK_ELEMENTS", 7 * int((gallery.pids >= 0).sum()))
    distance_distributions(query, gallery, block=256)
    with pytest.raises(AssertionError, match="traced"):  # the count does count
        distance_distributions(query, gallery, block=6)


@pytest.mark.parametrize("power", [-20, 3])
def test_thresholds_scale_with_the_distances(power):
    query, gallery = clusters(4)
    factor = 2.0**power
    found = distance_distributions(query, gallery)
    scaled = distance_distributions(
        *(Embeddings(e.features * np.float32(factor), e.pids, e.cameras) for e in (query, gallery))
    )
    np.testing.assert_array_equal(scaled.edges, factor * found.edges)
    np.testing.assert_array_equal(scaled.positives, found.positives)
    np.testing.assert_array_equal(scaled.negatives, found.negatives)
    assert scaled.threshold(0.01).distance == factor * found.threshold(0.01).distance


def test_the_replacement_of_w_by_us_leaves_distances_and_so_the_rates():
    query, gallery = clusters(5)
    W = jax.numpy.asarray(np.random.default_rng(0).normal(size=(24, 12)), np.float32)

    def by(matrix):
        return [Embeddings(e.features @ np.asarray(matrix), e.pids, e.cameras) for e in (query, gallery)]

    found = distance_distributions(*by(decorrelate(W, "us")))
    assert_equal_up_to_one_edge(found, *pairs(*by(W), True))
    other = distance_distributions(*by(decorrelate(W, "u")))
    assert abs(other.auc - found.auc) > 1e-3  # it does look at W


def test_a_negative_at_no_distance_leaves_no_threshold_for_none():
    found = one_query([0, 1], [0, 2])
    assert found.threshold(0) == (-step(found), 0, 0)
    assert found.threshold(0.5).true_match_rate == 1
    assert found.threshold(0.5).distance == pytest.approx(2 - step(found))
    assert one_query([1], [2, 2]).threshold(0).true_match_rate == 1


def test_images_all_alike():
    found = one_query([3, 3], [3])
    assert (found.auc, found.eer) == (0.5, 0.5)
    same = distance_distributions(line([1, 1], [1, 2]), line([1, 1], [1, 2]), cross_camera=False)
    assert same.auc == 0.5
    assert same.of_negatives().mean == 0


def test_rates_that_would_be_chance_are_not_named():
    assert list(one_query([1], np.arange(2, 1001)).thresholds()) == []  # 999 negatives
    assert list(one_query([1], np.arange(2, 1002)).thresholds()) == [0.01]
    text = str(one_query([1], np.arange(2, 1002)))
    assert "not measured, fewer than 10 false matches: 0.1 %, 0.01 %, 0.001 %" in text
    assert "not measured" not in str(one_query([1], np.tile(np.arange(2, 1002), 1000)))


def test_the_text_says_what_was_found():
    random = np.random.default_rng(0)
    found = one_query(np.rint(random.normal(900, 50, 80)), np.rint(random.normal(1200, 50, 20_000)))
    text = str(found)
    assert "euclidean distance, all cameras kept" in text
    rows = [line.split() for line in text.splitlines()]
    for name, side in (("of one identity", found.of_positives()), ("of two", found.of_negatives())):
        assert f"{name} {side.pairs} {side.mean:.5g} {side.std:.4g}".split() in rows
    assert f"separation d' {found.separation:.3f}, AUC {100 * found.auc:.3f} %" in text
    assert f"equal error rate {100 * found.eer:.2f} %" in text
    for rate, name in ((0.01, "1"), (0.001, "0.1")):
        threshold = found.threshold(rate)
        numbers = f"{100 * threshold.false_match_rate:.3g} % {threshold.distance:.5g}"
        assert f"{name} % {numbers} {100 * threshold.true_match_rate:.2f} %".split() in rows
    assert "these cameras only" in text
    assert "camera left out" in str(distance_distributions(*clusters(1)))


def test_the_summary_is_plain_json():
    found = distance_distributions(*clusters(6))
    summary = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert summary["positives"] == found.of_positives()._asdict()
    assert summary["negatives"]["pairs"] == int(found.negatives.sum())
    assert (summary["auc"], summary["eer"], summary["separation"]) == (found.auc, found.eer, found.separation)
    assert summary["thresholds"] == [{"asked": x, **found.threshold(x)._asdict()} for x in (0.01, 0.001)]
    assert (summary["metric"], summary["cross_camera"]) == ("euclidean", True)
    sharp = one_query([1], [2])
    assert sharp.separation == math.inf
    assert json.loads(json.dumps(sharp.to_json(), allow_nan=False))["separation"] is None


def test_a_problem_without_positives_is_explained_as_evaluate_does():
    with pytest.raises(ValueError, match="no query has a right answer in the gallery") as error:
        distance_distributions(line([0], [5], [1]), line([1, 2], [5, 6], [1, 1]))
    assert "`cross_camera` False" in str(error.value)


def test_a_problem_without_negatives_is_explained():
    query, gallery = line([0, 1, 2], [5, 5, -1]), line([1, 2], [5, -1])
    with pytest.raises(ValueError, match="all 2 queries and 1 gallery images have the pid 5"):
        distance_distributions(query, gallery, cross_camera=False)


def test_impossible_requests_are_refused():
    query, gallery = clusters(7)
    with pytest.raises(ValueError, match="block must be at least 1; found 0"):
        distance_distributions(query, gallery, block=0)
    with pytest.raises(ValueError, match="metric must be euclidean or cosine; found 'l1'"):
        distance_distributions(query, gallery, "l1")
    found = distance_distributions(query, gallery)
    for rate in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="a false-match rate is between 0 and 1; found"):
            found.threshold(rate)
