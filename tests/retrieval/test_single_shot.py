"""Repeated single-shot evaluation against a literal reference, against its exact expectation, and by its laws."""

from types import SimpleNamespace
from unittest import mock

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import assume, given, settings
from test_metrics import clusters, has_answer, line

from svdnet_jax.retrieval import single_shot
from svdnet_jax.retrieval.draws import random_orders
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.self_out import is_one_set, leave_self_out
from svdnet_jax.retrieval.single_shot import evaluate_single_shot

# Means of shares and of reciprocals of the same integers on both sides: only the order of sums differs.
SUMS = 1e-12


def from_reference(query, gallery, metric="euclidean", cross_camera=True, repeats=3, seed=0):
    """Means and deviations over the draws of the slow ranks."""
    orders = list(random_orders(int(sum(gallery.pids >= 0)), repeats, seed))
    ranks = reference.single_shot(query, gallery, orders, metric, cross_camera)
    ranks = ranks[:, ranks[0] > 0]
    shown = len(set(gallery.pids[gallery.pids > 0])) + sum(gallery.pids == 0)
    cmc = np.array([[np.mean(row <= k) for k in range(1, shown + 1)] for row in ranks])
    ap = [np.mean([1 / rank for rank in row]) for row in ranks]
    return SimpleNamespace(
        cmc=cmc.mean(axis=0),
        cmc_std=cmc.std(axis=0, ddof=1),
        mAP=np.mean(ap),
        mAP_std=np.std(ap, ddof=1),
        valid_queries=ranks.shape[1],
    )


def assert_equal_to_reference(found, expected):
    for name in ("cmc", "cmc_std", "mAP", "mAP_std", "valid_queries"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=SUMS, err_msg=name)


@st.composite
def problems(draw):
    """As in test_metrics, with the same people in every gallery: who is shown sets the shape of the program."""
    elements = st.integers(-3, 3)

    def images(pids):
        features = draw(hnp.arrays(np.float32, (len(pids), 2), elements=elements))
        return Embeddings(features, pids, draw(hnp.arrays(np.int64, len(pids), elements=st.integers(1, 3))))

    people = draw(st.sampled_from([[-1, 0, 0, 1, 1, 1, 1, 2, 2, 2, 7, 7], [1, 1, 1, 2, 2], [0, 0, 0]]))
    query = images(draw(hnp.arrays(np.int64, 6, elements=st.sampled_from([-1, 0, 1, 2, 7]))))
    return query, images(draw(st.permutations(people)))


@settings(deadline=None, max_examples=25)
@given(problems(), st.booleans(), st.integers(0, 99))
def test_equals_the_reference_with_ties_junk_and_distractors(problem, cross_camera, seed):
    query, gallery = problem
    assume(has_answer(query, gallery, cross_camera))
    found = evaluate_single_shot(query, gallery, "euclidean", cross_camera, repeats=3, seed=seed)
    assert_equal_to_reference(found, from_reference(query, gallery, cross_camera=cross_camera, seed=seed))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("cross_camera", [True, False])
def test_equals_the_reference_on_real_valued_features(metric, cross_camera):
    query, gallery = clusters(3)
    gallery = Embeddings(gallery.features + 30, gallery.pids, gallery.cameras)
    query = Embeddings(query.features + 30, query.pids, query.cameras)
    found = evaluate_single_shot(query, gallery, metric, cross_camera, repeats=3, seed=5, block=16)
    assert_equal_to_reference(found, from_reference(query, gallery, metric, cross_camera, seed=5))
    assert 0.3 < found.rank(1) < 1.0  # neither trivial nor noise
    assert found.distractors > 0


def expected_metrics(query, gallery, cross_camera):
    """CMC and mean of 1 / rank that the draws scatter about, exactly.

    Which image shows one person has nothing to do with which shows another, so how many are ahead of a right answer
    is a sum of independent events; its distribution is the convolution of theirs.
    """
    matrix = reference.distances(query.features, gallery.features, "euclidean")
    shown = len(set(gallery.pids[gallery.pids > 0])) + sum(gallery.pids == 0)
    curves = []
    for i, (pid, camera) in enumerate(zip(query.pids, query.cameras, strict=True)):
        good = np.flatnonzero((gallery.pids == pid) & ~(cross_camera & (gallery.cameras == camera)))
        for answer in good:
            ahead = matrix[i] < matrix[i, answer]
            chance = np.ones(1)
            for other in set(gallery.pids[gallery.pids > 0]) - {pid}:
                share = ahead[gallery.pids == other].mean()
                chance = np.convolve(chance, [1 - share, share])
            at = np.zeros(shown)
            at[: len(chance)] = chance / len(good)
            curves.append((i, np.roll(at, ahead[gallery.pids == 0].sum())))  # distractors are there in every draw
    asking = len({i for i, _ in curves})
    chance = sum(at for _, at in curves) / asking
    return np.cumsum(chance), np.sum(chance / np.arange(1, shown + 1))


@pytest.mark.parametrize("cross_camera", [True, False])
def test_the_mean_over_many_draws_is_the_exact_expectation(cross_camera):
    query, gallery = clusters(14, n_query=15, n_gallery=60, people=8)
    repeats = 2000
    found = evaluate_single_shot(query, gallery, cross_camera=cross_camera, repeats=repeats, seed=1)
    cmc, ap = expected_metrics(query, gallery, cross_camera)
    # Five standard errors: by chance, one in a million numbers is farther off, and the seed is fixed. SUMS where no
    # draw differs.
    error = 5 * found.cmc_std / np.sqrt(repeats) + SUMS
    assert error.max() < 0.02  # a right answer drawn by another law would not pass
    assert np.all(np.abs(found.cmc - cmc) < error)
    assert abs(found.mAP - ap) < 5 * found.mAP_std / np.sqrt(repeats)


def test_the_own_identity_is_in_the_ranking_once():
    # All four images of person 5 are in one place, nearer than person 6: whichever is drawn, nothing is ahead of the
    # right answer. Images of the query's camera come first in the gallery and would win the tie.
    query = line([0], [5], [1])
    gallery = line([1, 1, 1, 1, 2], [5, 5, 5, 5, 6], [1, 2, 1, 3, 2])
    found = evaluate_single_shot(query, gallery, repeats=50)
    assert found.cmc.tolist() == [1.0, 1.0]
    assert found.mAP == 1.0
    assert found.mAP_std == 0.0


def test_a_tie_goes_to_the_image_first_in_the_gallery():
    # Person 6 has the first and the last image, so wins the tie in half of the draws.
    found = evaluate_single_shot(line([0], [5], [1]), line([1, 1, -1], [6, 5, 6], [2, 2, 2]), repeats=200)
    assert 0.35 < found.rank(1) < 0.65
    assert found.rank(2) == 1.0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_image_per_identity_leaves_nothing_to_chance(metric):
    query, gallery = clusters(4)
    _, first = np.unique(gallery.pids, return_index=True)
    rows = np.sort(np.concatenate([first[1:], np.flatnonzero(gallery.pids == 0)[1:]]))
    alone = Embeddings(gallery.features[rows], gallery.pids[rows], gallery.cameras[rows])
    found, expected = evaluate_single_shot(query, alone, metric, repeats=4), evaluate(query, alone, metric)
    np.testing.assert_allclose(found.cmc, expected.cmc, atol=SUMS)
    assert found.mAP == pytest.approx(expected.mAP, abs=SUMS)
    np.testing.assert_allclose(found.cmc_std, 0, atol=SUMS)
    assert (found.valid_queries, found.identities, found.distractors) == (expected.valid_queries, 12, len(rows) - 12)


def test_distractors_stay_in_every_draw_and_a_query_of_pid_zero_is_one_of_an_identity():
    gallery = line([1, 2, 3, 9], [0, 0, 0, 5], [2, 2, 2, 2])
    found = evaluate_single_shot(line([0], [5], [1]), gallery, repeats=20)
    assert found.cmc.tolist() == [0, 0, 0, 1]
    # To a query of pid 0 the others of pid 0 are not wrong answers: person 5 alone can be ahead.
    found = evaluate_single_shot(line([9], [0], [1]), gallery, repeats=20)
    assert found.cmc.tolist() == [0, 1, 1, 1]


def test_valid_queries_are_those_of_evaluate():
    query, gallery = clusters(5, n_gallery=40)
    query = Embeddings(query.features, np.where(np.arange(40) < 5, -1, query.pids), query.cameras)
    found = evaluate_single_shot(query, gallery)
    assert found.valid_queries == evaluate(query, gallery).valid_queries < found.queries == 40


def test_a_seed_makes_its_draws_and_few_are_the_first_of_many():
    query, gallery = clusters(6)
    one, same, other = (evaluate_single_shot(query, gallery, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.cmc, same.cmc)
    assert one.mAP != other.mAP
    few, many = (np.array(list(random_orders(50, repeats, 3))) for repeats in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    assert sorted(few[0]) == list(range(50))
    assert not np.array_equal(few[0], few[1])


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_block_size_does_not_change_the_result(block):
    query, gallery = clusters(7)
    expected, found = evaluate_single_shot(query, gallery), evaluate_single_shot(query, gallery, block=block)
    np.testing.assert_array_equal(found.cmc, expected.cmc)
    assert found.mAP == expected.mAP


def test_blocks_shrink_so_that_memory_stays_bounded(monkeypatch):
    query, gallery = clusters(8)
    with mock.patch.object(single_shot, "drawn_ranks", wraps=single_shot.drawn_ranks) as ranked:
        expected = evaluate_single_shot(query, gallery, repeats=2)
        (shape,) = {call.args[3].shape for call in ranked.call_args_list}
        assert shape[0] < sum(gallery.pids >= 0)  # what no draw shows is not multiplied
        ranked.reset_mock()
        monkeypatch.setattr(single_shot, "MAX_BLOCK_ELEMENTS", 5 * shape[0] + 1)
        found = evaluate_single_shot(query, gallery, repeats=2)
    assert {call.args[0].shape[0] for call in ranked.call_args_list} == {5}
    np.testing.assert_array_equal(found.cmc, expected.cmc)


def test_all_blocks_and_draws_share_one_program(monkeypatch):
    query, gallery = clusters(9)
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(single_shot.drawn_ranks.__wrapped__, n=1)
    monkeypatch.setattr(single_shot, "drawn_ranks", jax.jit(counted, static_argnames="distractors"))
    evaluate_single_shot(query, gallery, block=7)
    with pytest.raises(AssertionError, match="traced"):  # the count does count
        evaluate_single_shot(query, gallery, block=9)


def test_metrics_and_ranks():
    query, gallery = clusters(10)
    found = evaluate_single_shot(query, gallery)
    assert list(found.metrics()) == ["rank1", "rank5", "rank10", "rank20", "mAP"]
    assert all(type(value) is float and 0 < value <= 1 for value in found.metrics().values())
    assert found.metrics()["rank5"] == found.cmc[4]
    assert found.rank(10**6) == 1.0
    with pytest.raises(ValueError, match="start at 1; found 0"):
        found.rank(0)


def test_text_names_the_protocol_the_draws_and_their_spread():
    query, gallery = clusters(11)
    found = evaluate_single_shot(query, gallery, "cosine", repeats=4, seed=8)
    text = str(found)
    assert "cosine distance, images of the query's identity and camera left out" in text
    assert "mean ± standard deviation of 4 draws (seed 8)" in text
    assert f"{found.valid_queries} of 40 queries" in text
    assert f"one image of each of 12 identities and all {found.distractors} distractors" in text
    assert f"  rank1      {100 * found.rank(1):6.2f} ± {100 * found.cmc_std[0]:.2f} %" in text
    assert f"  mAP        {100 * found.mAP:6.2f} ± {100 * found.mAP_std:.2f} %" in text
    assert "all cameras kept" in str(evaluate_single_shot(query, gallery, cross_camera=False))


def test_a_single_draw_has_no_spread():
    found = evaluate_single_shot(*clusters(12), repeats=1)
    assert np.isnan(found.cmc_std).all()
    assert np.isnan(found.mAP_std)
    assert "±" not in str(found)
    assert "nan" not in str(found)


def test_impossible_requests_are_refused():
    query, gallery = clusters(13)
    short = Embeddings(query.features[:, :20], query.pids, query.cameras)
    with pytest.raises(ValueError, match="repeats must be at least 1 and at most 10000; found 0"):
        evaluate_single_shot(query, gallery, repeats=0)
    with pytest.raises(ValueError, match="seed must be at least 0; found -1"):
        evaluate_single_shot(query, gallery, seed=-1)
    with pytest.raises(ValueError, match="block must be at least 1; found 0"):
        evaluate_single_shot(query, gallery, block=0)
    with pytest.raises(ValueError, match="metric must be euclidean or cosine; found 'l1'"):
        evaluate_single_shot(query, gallery, "l1")
    with pytest.raises(ValueError, match="query features have 20 dimensions and gallery features 24"):
        evaluate_single_shot(short, gallery)
    with pytest.raises(ValueError, match="no query has a right answer.*\n.*1 have some but all from their own camera"):
        evaluate_single_shot(line([0], [5]), line([0], [5]))
    with pytest.raises(ValueError, match=r"the feature of gallery row 1 \(1\) is zero"):
        evaluate_single_shot(line([1], [5], [1]), line([1, 0], [5, 6], [2, 2]), "cosine")


def test_ids_and_cameras_may_be_any_integers():
    far = 2**62
    query = Embeddings([[0.0]], [far], [-far])
    gallery = Embeddings([[1.0], [2.0], [3.0]], [far, far - 1, far], [-far, 0, 7])
    assert evaluate_single_shot(query, gallery).cmc.tolist() == [0, 1]


def test_where_query_set_and_gallery_are_one_the_gallery_is_drawn_and_the_rest_asks():
    """VehicleID's protocol, by hand: one image of each identity is a draw's gallery, the others are its queries."""
    random = np.random.default_rng(4)
    pids = np.array([1, 1, 2, 2, 2, 3, 3, 3, 3, 5])
    every = Embeddings(random.normal(size=(10, 3)), pids, [1] * 10)
    own = leave_self_out(every, every, "row")
    assert is_one_set(own.query, own.gallery)
    assert not is_one_set(every, every)
    found = evaluate_single_shot(own.query, own.gallery, repeats=7, seed=3, one_set=True)
    first, inverse = [], []
    for order in random_orders(10, 7, 3):
        shown = {pid: next(i for i in order if pids[i] == pid) for pid in set(pids.tolist())}
        ranks = []
        for q in set(range(9)) - set(shown.values()):  # the last image is alone: it shows, and never asks
            distance = {pid: np.linalg.norm(every.features[q] - every.features[i]) for pid, i in shown.items()}
            ranks.append(1 + sum(far < distance[pids[q]] for far in distance.values()))
        assert len(ranks) == 10 - 4
        first.append(np.mean(np.array(ranks) == 1))
        inverse.append(np.mean(1 / np.array(ranks)))
    assert found.rank(1) == pytest.approx(np.mean(first))
    assert found.mAP == pytest.approx(np.mean(inverse))
    assert found.identities == 4
