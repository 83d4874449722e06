"""Mean features per identity and camera against a loop over them, and what does not change by averaging one image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import clusters, line, problems

from svdnet_jax.retrieval import multi_query as module
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.multi_query import multi_query


def looped(images, metric):
    """Rows of (pid, camera, name, mean feature in float64)."""
    groups = {}
    for feature, pid, camera, name in zip(images.features, images.pids, images.cameras, images.names, strict=True):
        if pid >= 0:
            feature = feature.astype(np.float64)
            if metric == "cosine":
                feature = feature / np.sqrt(sum(feature**2))
            groups.setdefault((pid, camera), (name, []))[1].append(feature)
    return [(*key, name, sum(features) / len(features)) for key, (name, features) in groups.items()]


def assert_equal_to_loop(images, metric):
    found, expected = multi_query(images, metric), looped(images, metric)
    assert list(zip(found.pids, found.cameras, found.names, strict=True)) == [row[:3] for row in expected]
    for feature, row in zip(found.features, expected, strict=True):
        np.testing.assert_allclose(feature, row[3], rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(problems(), st.sampled_from(["euclidean", "cosine"]))
def test_equals_a_loop(problem, metric):
    for images in problem:
        shifted = Embeddings(images.features + np.float32(3.5), images.pids, images.cameras)  # none is zero
        assert_equal_to_loop(shifted, metric)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equals_a_loop_in_several_blocks_of_columns(metric, monkeypatch):
    monkeypatch.setattr(module, "COLUMNS", 7)  # of 24: the last block is short
    assert_equal_to_loop(clusters(1)[1], metric)


def test_by_hand():
    images = Embeddings(
        [[3, 4], [9, 9], [0, 2], [0, 0], [0, 0.5], [6, 8]],
        [5, -1, 0, 7, 0, 5],
        [1, 1, 2, 2, 2, 1],
        list("abcdef"),
        "net",
    )
    found = multi_query(images)
    assert found.pids.tolist() == [5, 0, 7]
    assert found.cameras.tolist() == [1, 2, 2]
    assert found.names.tolist() == ["a", "c", "d"]
    assert found.model == "net"
    np.testing.assert_array_equal(found.features, [[4.5, 6], [0, 1.25], [0, 0]])
    kept = Embeddings(images.features[[0, 2, 5]] * [[1], [9], [-7]], [5, 5, 5], [1, 1, 1])
    scaled = [(0.6 + 0 - 0.6) / 3, (0.8 + 1 - 0.8) / 3]  # whatever its length, an image counts once
    np.testing.assert_allclose(multi_query(kept, "cosine").features, [scaled], atol=1e-7)


def test_sums_are_exact_where_float32_would_lose_digits():
    # 2^24 + 1 is no float32: summed there, the ones would vanish.
    images = Embeddings([[2.0**24]] + 3 * [[1.0]] + [[-(2.0**24)]], 5 * [5], 5 * [1])
    np.testing.assert_array_equal(multi_query(images).features, [[3 / 5]])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_image_per_identity_and_camera_gives_the_metrics_of_single_queries(metric):
    query, gallery = clusters(2)
    _, first = np.unique(np.stack([query.pids, query.cameras]), axis=1, return_index=True)
    first = np.sort(first)
    single = Embeddings(query.features[first], query.pids[first], query.cameras[first], query.names[first])
    averaged = multi_query(single, metric)
    assert averaged.names.tolist() == single.names.tolist()
    expected, found = evaluate(single, gallery, metric), evaluate(averaged, gallery, metric)
    # Equal, not close: no two distances here are as near each other as the rounding of a length.
    np.testing.assert_array_equal(found.ap, expected.ap)
    assert found.metrics() == expected.metrics()
    if metric == "euclidean":
        np.testing.assert_array_equal(averaged.features, single.features)


def test_many_noisy_images_of_a_person_ask_better_than_one():
    query, gallery = clusters(3, n_query=400, people=12)
    assert evaluate(multi_query(query), gallery).mAP > evaluate(query, gallery).mAP + 0.1


def test_nothing_but_junk_leaves_nothing():
    junk = line([1, 2], [-1, -1])
    assert multi_query(junk).features.shape == (0, 1)
    assert multi_query(junk, "cosine").names.tolist() == []


def test_ids_and_cameras_may_be_any_integers():
    far = 2**62
    found = multi_query(line([1, 2, 3], [far, far - 1, far], [-far, -far, far]))
    assert found.pids.tolist() == [far, far - 1, far]
    assert found.features.tolist() == [[1], [2], [3]]


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="metric must be euclidean or cosine; found 'l1'"):
        multi_query(line([1], [5]), "l1")
    images = line([0, 3, 0], [-1, 5, 5])
    with pytest.raises(ValueError, match=r"the feature of row 2 \(2\) of the images to average is zero, so it has no"):
        multi_query(images, "cosine")
    assert multi_query(images).features.tolist() == [[1.5]]
