"""CMC, both mAPs and mINP against a slow literal reference, hand-made cases, and laws of ranking."""

from unittest import mock

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import assume, given, settings

from svdnet_jax.retrieval import ranking
from svdnet_jax.retrieval.distances import offsets
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate, ranked_list

# Metrics are sums in float64 of quotients of the same integers on both sides: only the order of sums differs.
SUMS = 1e-12


def line(at, pids, cameras=None):
    """Images on a line, where distances can be read off."""
    cameras = np.zeros(len(pids), int) if cameras is None else cameras
    return Embeddings(np.array(at, np.float32)[:, None], np.array(pids), np.array(cameras))


def assert_equal_to_reference(report, expected):
    np.testing.assert_allclose(report.cmc, expected["cmc"], atol=SUMS)
    for name in ("mAP", "mAP_market", "mINP"):
        assert getattr(report, name) == pytest.approx(expected[name], abs=SUMS), name
    assert report.valid_queries == expected["valid_queries"]
    for i, (ap, first) in enumerate(zip(expected["ap"], expected["first_hit"], strict=True)):
        assert report.first_hit[i] == (first or 0)
        assert np.isnan(report.ap[i]) if ap is None else report.ap[i] == pytest.approx(ap, abs=SUMS)


@st.composite
def problems(draw, elements=None):
    """Small problems full of ties: integer features make distances exact, so ties are ties on both sides.

    Few shapes, as each is a program to compile.
    """
    elements = st.integers(-3, 3) if elements is None else elements
    people = st.sampled_from([-1, 0, 1, 2, 7])

    def images(n):
        features = draw(hnp.arrays(np.float32, (n, 2), elements=elements))
        pids = draw(hnp.arrays(np.int64, n, elements=people))
        return Embeddings(features, pids, draw(hnp.arrays(np.int64, n, elements=st.integers(1, 3))))

    return images(6), images(draw(st.sampled_from([4, 20])))


def has_answer(query, gallery, cross_camera):
    right = (query.pids[:, None] == gallery.pids[None]) & (query.pids[:, None] >= 0)
    return (right & ~(cross_camera & (query.cameras[:, None] == gallery.cameras[None]))).any()


@settings(deadline=None, max_examples=40)
@given(problems(), st.booleans(), st.sampled_from([2, 256]))
def test_equals_the_reference_with_ties_junk_and_distractors(problem, cross_camera, block):
    query, gallery = problem
    assume(has_answer(query, gallery, cross_camera))
    expected = reference.evaluate(query, gallery, cross_camera=cross_camera)
    assert_equal_to_reference(evaluate(query, gallery, cross_camera=cross_camera, block=block), expected)


@settings(deadline=None, max_examples=15)
@given(problems(elements=st.sampled_from([-1, 1])), st.sampled_from([1.0, 0.5, 4.0]))
def test_cosine_equals_the_reference(problem, scale):
    # Four entries of +-1 have length 2 and so exact unit vectors, also when rows differ in scale by 2^k.
    query, gallery = (
        Embeddings(np.tile(e.features[:, :1], 4) * [1, 1, 1, x], e.pids, e.cameras)
        for e, x in zip(problem, (1, -1), strict=True)
    )
    gallery = Embeddings(gallery.features * np.float32(scale), gallery.pids, gallery.cameras)
    assume(has_answer(query, gallery, True))
    expected = reference.evaluate(query, gallery, "cosine")
    assert_equal_to_reference(evaluate(query, gallery, "cosine"), expected)


def clusters(seed, n_query=40, n_gallery=300, d=24, people=12):
    """Noisy clusters of people with junk and distractors, distances without ties."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(people + 2, d))

    def images(n, lowest):
        pids = rng.integers(lowest, people + 1, n)
        features = centers[pids] + 1.1 * rng.normal(size=(n, d))
        return Embeddings(features, pids, rng.integers(0, 4, n))

    return images(n_query, 1), images(n_gallery, -1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_equals_the_reference_on_real_valued_features(metric, offset):
    # With an offset of 30 spreads, distances from uncentred float32 features already rank differently.
    query, gallery = (Embeddings(e.features + offset, e.pids, e.cameras) for e in clusters(3))
    report = evaluate(query, gallery, metric, block=16)
    assert_equal_to_reference(report, reference.evaluate(query, gallery, metric))
    assert 0.3 < report.rank(1) < 1.0  # neither trivial nor noise


def test_one_hit_at_rank_two():
    report = evaluate(line([0], [5]), line([2, 1], [5, 6]), cross_camera=False)
    assert report.mAP == 0.5
    assert report.mAP_market == 0.25
    assert report.mINP == 0.5
    np.testing.assert_array_equal(report.cmc, [0.0, 1.0])


def test_hits_at_ranks_one_and_three():
    report = evaluate(line([0], [5]), line([3, 1, 2, 4], [5, 5, 6, 6]), cross_camera=False)
    assert report.mAP == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert report.mAP_market == pytest.approx(((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert report.mINP == pytest.approx(2 / 3)


def test_a_tie_goes_to_the_image_first_in_the_gallery():
    wrong_first, right_first = line([1, -1], [6, 5]), line([1, -1], [5, 6])
    assert evaluate(line([0], [5]), wrong_first, cross_camera=False).rank(1) == 0.0
    assert evaluate(line([0], [5]), right_first, cross_camera=False).rank(1) == 1.0


def test_protocol_and_counts():
    query = line([0, 0, 0, 0], [5, 5, 8, -1], [1, 2, 1, 1])
    gallery = line([0, 1, 2, 3, 4], [-1, 0, 5, 5, 6], [1, 1, 1, 2, 1])
    report = evaluate(query, gallery)
    # Camera 1's query: distractor, own camera left out, hit. Camera 2's: distractor, hit, own left out.
    np.testing.assert_array_equal(report.first_hit, [2, 2, 0, 0])
    np.testing.assert_array_equal(report.ap, [0.5, 0.5, np.nan, np.nan])
    assert (report.queries, report.valid_queries) == (4, 2)
    assert (report.gallery, report.distractors, report.junk) == (4, 1, 1)
    assert len(report.cmc) == 4
    # Without the rule both queries find two: distractor, hit, hit.
    np.testing.assert_allclose(evaluate(query, gallery, cross_camera=False).ap[:2], (1 / 2 + 2 / 3) / 2)


def test_a_query_of_pid_zero_is_an_identity_like_any_other():
    report = evaluate(line([0], [0], [1]), line([1, 2], [3, 0], [2, 2]))
    assert report.first_hit.tolist() == [2]


def test_metrics_has_the_keys_that_other_programs_read():
    query, gallery = clusters(0)
    report = evaluate(query, gallery)
    found = report.metrics()
    assert list(found) == ["rank1", "rank5", "rank10", "rank20", "mAP", "mAP_market", "mINP"]
    assert all(type(value) is float and 0 <= value <= 1 for value in found.values())
    assert found["rank5"] == report.cmc[4]
    assert found["mAP_market"] == report.mAP_market < report.mAP == found["mAP"]


def test_rank_beyond_the_gallery_is_one_and_below_one_is_refused():
    report = evaluate(line([0], [5]), line([2, 1], [5, 6]), cross_camera=False)
    assert report.rank(20) == 1.0
    with pytest.raises(ValueError, match="start at 1; found 0"):
        report.rank(0)


def test_text_names_the_protocol_and_the_counts():
    query, gallery = clusters(1)
    report = evaluate(query, gallery, "cosine", cross_camera=False)
    text = str(report)
    assert "cosine distance, all cameras kept" in text
    assert f"{report.valid_queries} of {len(query.pids)} queries" in text
    assert f"{100 * report.mAP_market:.2f} %  trapezoid" in text
    assert "camera left out" in str(evaluate(query, gallery))


def test_gallery_order_and_query_order_do_not_matter_without_ties():
    query, gallery = clusters(4)
    rng = np.random.default_rng(0)

    def shuffled(images):
        order = rng.permutation(len(images.pids))
        return Embeddings(images.features[order], images.pids[order], images.cameras[order]), order

    (moved, order), (shuffled_gallery, _) = shuffled(query), shuffled(gallery)
    before, after = evaluate(query, gallery), evaluate(moved, shuffled_gallery)
    np.testing.assert_array_equal(after.first_hit, before.first_hit[order])
    np.testing.assert_array_equal(after.ap, before.ap[order])


@pytest.mark.parametrize("change", ["scale up", "scale down", "rotate", "shift"])
def test_euclidean_ranking_does_not_change_under_similarities(change):
    query, gallery = clusters(5)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))
    change = {
        "scale up": lambda x: x * np.float32(3e30),  # squares of these overflow float32
        "scale down": lambda x: x * np.float32(3e-30),  # and of these vanish
        "rotate": lambda x: x @ rotation,
        "shift": lambda x: x + np.linspace(-50, 50, 24),
    }[change]
    moved = (Embeddings(change(e.features), e.pids, e.cameras) for e in (query, gallery))
    # Equal, not close: right and wrong answers differ here by 5e-6 of the squared lengths, ten times what
    # float32 loses.
    np.testing.assert_array_equal(evaluate(*moved).ap, evaluate(query, gallery).ap)


def test_products_keep_float32_on_accelerators():
    # A CPU cannot show it: by default GPUs multiply in TF32 and TPUs in bfloat16, and then ranks change.
    shapes = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32)
    assert "Precision.HIGHEST" in str(jax.make_jaxpr(offsets)(*shapes))


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_block_size_does_not_change_the_result(block):
    query, gallery = clusters(6)
    expected, found = evaluate(query, gallery), evaluate(query, gallery, block=block)
    np.testing.assert_array_equal(found.ap, expected.ap)
    np.testing.assert_array_equal(found.cmc, expected.cmc)


def test_blocks_shrink_so_that_memory_stays_bounded(monkeypatch):
    query, gallery = clusters(7)
    expected = evaluate(query, gallery)
    monkeypatch.setattr(ranking, "MAX_BLOCK_ELEMENTS", 5 * expected.gallery + 1)
    with mock.patch.object(ranking, "positive_ranks", wraps=ranking.positive_ranks) as ranked:
        found = evaluate(query, gallery)
    assert {call.args[0].shape[0] for call in ranked.call_args_list} == {5}
    np.testing.assert_array_equal(found.ap, expected.ap)


def test_all_blocks_share_one_program(monkeypatch):
    query, gallery = clusters(8)
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(ranking.positive_ranks.__wrapped__, n=1)
    monkeypatch.setattr(ranking, "positive_ranks", jax.jit(counted))
    evaluate(query, gallery, block=7)
    evaluate(query, gallery, block=7)
    with pytest.raises(AssertionError, match="traced"):  # the count does count
        evaluate(query, gallery, block=9)


def test_ranks_are_exact_positions_in_a_full_sort():
    # Also guards that a right answer is compared with the very numbers it came from: else ranks could repeat.
    query, gallery = clusters(9, n_gallery=700)
    report = evaluate(query, gallery)
    for i in range(len(query.pids)):
        rows, right, distance = ranked_list(query, gallery, i, k=len(gallery.pids))
        assert np.all(np.diff(distance) >= 0)
        assert report.first_hit[i] == (np.argmax(right) + 1 if right.any() else 0)
        if right.any():
            assert report.ap[i] == pytest.approx(reference.plain(list(right))[1], abs=SUMS)
        assert np.all(gallery.pids[rows] >= 0)


@pytest.mark.parametrize(("metric", "expected"), [("euclidean", [5, 10]), ("cosine", [0, 0.2])])
def test_ranked_list_gives_rows_of_the_gallery_as_given(metric, expected):
    query = Embeddings([[100, 0], [3, 4]], [9, 5], [1, 1])
    gallery = Embeddings([[3, 4], [-3, 4], [3, 4], [6, 8], [3, 14]], [-1, 6, 5, 5, 7], [2, 2, 1, 3, 2])
    rows, right, distances = ranked_list(query, gallery, 1, k=2, metric=metric)
    if metric == "euclidean":  # row 0 is junk, row 2 of the same camera; row 3 is 5 away, row 1 is 6
        np.testing.assert_array_equal(rows, [3, 1])
        np.testing.assert_allclose(distances, [5, 6], rtol=1e-6)
        np.testing.assert_array_equal(right, [True, False])
    else:
        cosines = [1.0, (9 + 56) / (5 * np.sqrt(9 + 14**2))]
        np.testing.assert_array_equal(rows, [3, 4])
        np.testing.assert_allclose(distances, 1 - np.array(cosines), atol=1e-6)
    everything, _, _ = ranked_list(query, gallery, 1, k=50, metric=metric, cross_camera=False)
    assert sorted(everything) == [1, 2, 3, 4]


def test_when_no_query_counts_the_error_says_why():
    query = line([0, 1, 2], [5, 8, -1], [1, 1, 1])
    gallery = line([0, 1, 2], [5, 6, -1], [1, 1, 1])
    with pytest.raises(ValueError) as error:
        evaluate(query, gallery)
    text = str(error.value)
    assert "Of 3 queries, 1 have no gallery image of their identity at all, 1 have some but all" in text
    assert "1 are junk themselves" in text
    assert "2 images after leaving out 1 of junk" in text
    assert "`cross_camera` False" in text
    assert "query pids: 2 different, 5 to 8; gallery pids: 2 different, 5 to 6" in text


def test_the_error_does_not_blame_cameras_that_are_not_at_fault():
    with pytest.raises(ValueError, match="1 have no gallery image of their identity") as error:
        evaluate(line([0], [5]), line([0], [6]))
    assert "`cross_camera` False" not in str(error.value)


@pytest.mark.parametrize("empty", ["query", "gallery", "both"])
def test_empty_sets_are_explained(empty):
    none, some = Embeddings(np.zeros((0, 1)), [], []), line([0], [5])
    sets = {"query": (none, some), "gallery": (some, none), "both": (none, none)}[empty]
    with pytest.raises(ValueError, match="pids: none"):
        evaluate(*sets)


def test_impossible_requests_are_refused():
    query, gallery = clusters(2)
    junk = Embeddings(query.features, np.full(40, -1), query.cameras)
    short = Embeddings(query.features[:, :20], query.pids, query.cameras)
    with pytest.raises(ValueError, match="query features have 20 dimensions and gallery features 24"):
        evaluate(short, gallery)
    with pytest.raises(ValueError, match="metric must be euclidean or cosine; found 'l1'"):
        evaluate(query, gallery, "l1")
    with pytest.raises(ValueError, match="block must be at least 1; found 0"):
        evaluate(query, gallery, block=0)
    with pytest.raises(ValueError, match="k must be at least 1"):
        ranked_list(query, gallery, 0, k=0)
    with pytest.raises(ValueError, match="index must be below the 40 queries; found 40"):
        ranked_list(query, gallery, 40, k=1)
    with pytest.raises(ValueError, match="nothing to rank: 40 images, all of them junk"):
        ranked_list(query, junk, 0, k=1)


def test_a_zero_feature_has_no_cosine_but_a_distance():
    query, gallery = line([1], [5], [1]), line([3, 0, 0, 2], [6, -1, 5, 6], [2, 2, 2, 2])
    with pytest.raises(ValueError, match=r"the feature of gallery row 2 \(2\) is zero"):
        evaluate(query, gallery, "cosine")
    assert evaluate(query, gallery).first_hit.tolist() == [1]


def test_ids_and_cameras_may_be_any_integers():
    far = 2**62
    query = Embeddings([[0.0]], [far], [-far])
    gallery = Embeddings([[1.0], [2.0], [3.0]], [far, far - 1, far], [-far, 0, 7])
    assert evaluate(query, gallery).first_hit.tolist() == [2]
