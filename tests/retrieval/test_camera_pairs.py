"""The breakdown by pairs of cameras against a literal reference, Market-1501's definition by hand, and its laws."""

import json

import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_metrics import clusters, has_answer, line, problems

from svdnet_jax.retrieval.camera_pairs import METRICS, CameraPairs, camera_pairs
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.rerank import Rerank

# Metrics are sums in float64 of quotients of the same integers on both sides: only the order of sums differs.
SUMS = 1e-12


def assert_equal_to_reference(found, expected):
    entries = {(row["query_camera"], row["gallery_camera"]): row for row in found.to_json()}
    assert list(entries) == sorted(expected)
    for pair, values in expected.items():
        assert entries[pair]["queries"] == len(values)
        for name, mean in zip(METRICS, np.mean(values, axis=0), strict=True):
            assert entries[pair][name] == pytest.approx(mean, abs=SUMS), (pair, name)
    assert found.query_cameras.tolist() == sorted({a for a, _ in expected})
    assert found.gallery_cameras.tolist() == sorted({b for _, b in expected})


@settings(deadline=None, max_examples=25)
@given(problems(), st.booleans())
def test_equals_the_reference_with_ties_junk_and_distractors(problem, cross_camera):
    query, gallery = problem
    assume(has_answer(query, gallery, cross_camera))
    found = camera_pairs(evaluate(query, gallery, cross_camera=cross_camera), query, gallery)
    assert_equal_to_reference(found, reference.camera_pairs(query, gallery, cross_camera=cross_camera))


@pytest.mark.parametrize("cross_camera", [True, False])
def test_equals_the_reference_on_real_valued_features(cross_camera):
    query, gallery = clusters(3)
    found = camera_pairs(evaluate(query, gallery, "cosine", cross_camera), query, gallery)
    assert found.queries.shape == (4, 4)
    assert_equal_to_reference(found, reference.camera_pairs(query, gallery, "cosine", cross_camera))


def test_right_answers_of_other_cameras_are_left_out_and_wrong_answers_of_all_cameras_stay():
    query = line([0], [5], [1])
    # By distance: right of camera 2, wrong of camera 3, right of camera 3, right of camera 2, right of camera 3.
    gallery = line([1, 2, 3, 4, 5], [5, 6, 5, 5, 5], [2, 3, 3, 2, 3])
    found = camera_pairs(evaluate(query, gallery), query, gallery)
    np.testing.assert_array_equal(found.gallery_cameras, [2, 3])
    # Camera 2: right, wrong, right. Camera 3: wrong, right, right.
    np.testing.assert_array_equal(found.rank1, [[1, 0]])
    np.testing.assert_allclose(found.mAP, [[(1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2]])
    np.testing.assert_allclose(found.mINP, [[2 / 3, 2 / 3]])
    np.testing.assert_allclose(found.mAP_market[0, 0], (1 + (1 / 2 + 2 / 3) / 2) / 2)


def test_the_rule_about_cameras_empties_the_diagonal_and_changes_no_other_pair():
    query, gallery = clusters(5)
    with_rule, without = (camera_pairs(evaluate(query, gallery, cross_camera=x), query, gallery) for x in (True, False))
    assert not with_rule.queries.diagonal().any()
    assert np.isnan(with_rule.mAP.diagonal()).all()
    assert without.queries.diagonal().all()
    aside = ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(without.queries[aside], with_rule.queries[aside])
    for name in METRICS:
        np.testing.assert_array_equal(getattr(without, name)[aside], getattr(with_rule, name)[aside])


def test_one_gallery_camera_gives_the_metrics_of_the_whole():
    query, gallery = clusters(6)
    gallery = Embeddings(gallery.features, gallery.pids, np.full(300, 9))
    query = Embeddings(query.features, query.pids, np.full(40, 2))
    report = evaluate(query, gallery)
    (row,) = camera_pairs(report, query, gallery).to_json()
    assert row["queries"] == report.valid_queries
    assert {name: row[name] for name in METRICS} == pytest.approx({name: report.metrics()[name] for name in METRICS})


def test_the_ranks_of_a_re_ranked_report_are_broken_down():
    query, gallery = clusters(7)
    plain, again = evaluate(query, gallery), evaluate(query, gallery, rerank=Rerank(k1=10, k2=3))
    assert np.nanmax(np.abs(camera_pairs(again, query, gallery).mAP - camera_pairs(plain, query, gallery).mAP)) > 0.01


def test_json_has_plain_numbers_and_leaves_out_pairs_without_queries():
    query, gallery = line([0, 0], [5, 6], [1, 2]), line([1, 2, 3], [5, 6, 6], [2, 1, 7])
    rows = camera_pairs(evaluate(query, gallery), query, gallery).to_json()
    assert [(row["query_camera"], row["gallery_camera"]) for row in rows] == [(1, 2), (2, 1), (2, 7)]
    assert json.loads(json.dumps(rows)) == rows
    assert list(rows[0]) == ["query_camera", "gallery_camera", "queries", "rank1", "mAP", "mAP_market", "mINP"]


def test_text_is_two_tables():
    query, gallery = line([0, 0], [5, 6], [1, 2]), line([1, 2, 3], [5, 6, 6], [2, 1, 7])
    assert str(camera_pairs(evaluate(query, gallery), query, gallery)).splitlines() == [
        "3 pairs of a query camera and a gallery camera have queries; each number is a mean over those of its pair",
        "rank-1 in %, rows: query camera, columns: gallery camera",
        "             1       2       7",
        "     1       -  100.00       -",
        "     2    0.00       -    0.00",
        "mAP in %, rows: query camera, columns: gallery camera",
        "             1       2       7",
        "     1       -  100.00       -",
        "     2   50.00       -   50.00",
    ]


def many(a, b):
    values = np.linspace(0.2, 0.6, a * b).reshape(a, b)
    values[0, 0] = np.nan
    queries = np.where(np.isnan(values), 0, 3)
    return CameraPairs(np.arange(a), np.arange(100, 100 + b), queries, values, values / 2, values, values)


@pytest.mark.parametrize(("a", "b"), [(21, 2), (2, 21)])
def test_beyond_twenty_cameras_the_text_sums_up(a, b):
    found = many(a, b)
    text = str(found).splitlines()
    assert len(text) == 7
    assert text[0].startswith("41 pairs of a query camera")
    seen = 100 * found.rank1[~np.isnan(found.rank1)]
    assert text[1] == f"rank-1 of the pairs: mean {seen.mean():.2f} %, median {np.median(seen):.2f} %"
    second = (0, 101) if b > 1 else (1, 100)
    assert text[2] == f"  worst {seen.min():6.2f} %  query camera {second[0]}, gallery camera {second[1]}, queries: 3"
    assert text[3] == f"  best   60.00 %  query camera {a - 1}, gallery camera {99 + b}, queries: 3"
    assert text[4].startswith("mAP of the pairs")
    assert text[6].startswith("  best   30.00 %")


def test_twenty_cameras_are_still_a_table():
    assert len(str(many(20, 20)).splitlines()) == 1 + 2 * 22


def test_cameras_may_be_any_integers():
    far = 2**62
    query, gallery = line([0], [5], [-far]), line([1, 2], [5, 5], [far, 0])
    found = camera_pairs(evaluate(query, gallery), query, gallery)
    assert found.query_cameras.tolist() == [-far]
    assert found.gallery_cameras.tolist() == [0, far]
    assert str(far) in str(found)


def test_sets_that_the_report_is_not_of_are_refused():
    query, gallery = clusters(8)
    report = evaluate(query, gallery)
    turned = Embeddings(gallery.features, gallery.pids[::-1], gallery.cameras)
    for other in ((gallery, gallery), (query, query), (query, turned)):
        with pytest.raises(
            ValueError, match="the report is of 40 queries and 300 gallery images, and its right answers"
        ):
            camera_pairs(report, *other)
