"""Distances that float32 squares would lose: far from zero, in groups far apart, between copies, in other types."""

import importlib.util
from dataclasses import replace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import reference_metrics as reference
from hypothesis import given, settings
from test_metrics import assert_equal_to_reference, clusters

from svdnet_jax.retrieval import distances
from svdnet_jax.retrieval.alike import first_alike, first_copies
from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.distributions import distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import build_index, load_index, save_index, search
from svdnet_jax.retrieval.metrics import evaluate, ranked_list
from svdnet_jax.retrieval.multi_query import multi_query
from svdnet_jax.retrieval.protocol import match
from svdnet_jax.retrieval.ranking import rank_blocks
from svdnet_jax.retrieval.rerank import Rerank
from svdnet_jax.retrieval.single_shot import evaluate_single_shot

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss-cpu is not installed")
KINDS = ["exact", *(pytest.param(kind, marks=needs_faiss) for kind in ("flat", "hnsw", "ivf"))]
FAR = [1e3, 3e5, -7e8]


def changed(change, pair):
    return [replace(images, features=change(images.features)) for images in pair]


def apart(pair, by=1e5):
    """The same features in two groups far from each other, by camera; no mean is near both."""
    return [replace(e, features=e.features + by * (1 - 2 * (e.cameras[:, None] % 2))) for e in pair]


def everything(query, gallery, metric="euclidean"):
    """All that the protocol measures, as numbers."""
    pair, euclidean = (query, gallery), metric == "euclidean"
    shot = evaluate_single_shot(*pair, metric, repeats=2)
    pooled = multi_query(query, metric)
    spread = distance_distributions(*pair, metric)
    return {
        "ranks": evaluate(*pair, metric).right.ranks,
        "re-ranked": evaluate(*pair, metric, rerank=Rerank(5, 3)).right.ranks,
        "multi-query": evaluate(pooled, gallery, metric).right.ranks if euclidean else 0,
        "single shot": shot.cmc,
        "moments": [spread.of_positives().mean, spread.of_negatives().mean, spread.auc],
        "listed": ranked_list(*pair, 0, 9, metric)[0],
        "distances": ranked_list(*pair, 0, 9, metric)[2],
        "found": search(build_index(gallery, "exact", metric), query, 9).rows,
    }


def assert_same(found, expected, rtol=1e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("offset", FAR)
def test_a_common_offset_changes_nothing(offset):
    pair = clusters(3)
    moved = changed(lambda x: x + offset, pair)
    assert all(each.features.dtype == np.float64 for each in moved)
    assert_same(everything(*moved), everything(*pair), 1e-4)


@pytest.mark.parametrize("offset", FAR)
def test_float32_features_are_ranked_as_exactly_as_they_are_given(offset):
    pair = changed(lambda x: np.float32(x * abs(offset) / 1e3 + offset), clusters(3))
    assert_equal_to_reference(evaluate(*pair), reference.evaluate(*pair))
    found = search(build_index(pair[1]), pair[0], 5)
    true = np.sort(reference.distances(pair[0].features, pair[1].features, "euclidean"), axis=1)
    np.testing.assert_allclose(found.distances, true[:, :5], rtol=1e-6)


def test_scale_and_rotation_change_nothing():
    pair = clusters(5)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))
    plain = everything(*pair)
    for change, factor in ((lambda x: 3e5 + x @ turn, 1), (lambda x: 1e-9 * x, 1e-9), (lambda x: 7e30 * x, 7e30)):
        found = everything(*changed(change, pair))
        for name in ("distances", "moments"):
            found[name] = np.array(found[name]) / ([factor, factor, 1] if name == "moments" else factor)
        assert_same(found, plain, 1e-4)


def test_groups_far_apart_are_ranked_as_in_float64():
    pair = apart(clusters(3))
    expected = reference.evaluate(*pair, cross_camera=False)
    found = evaluate(*pair, cross_camera=False)
    # Right answers in the query's own group. Of those in the other, 1e6 away, float32 tells what it can.
    own = np.array(expected["first_hit"]) < 100
    assert own.sum() > 35
    np.testing.assert_array_equal(found.first_hit[own], np.array(expected["first_hit"])[own])
    matrix = reference.distances(*(e.features for e in pair), "euclidean")
    for k in (1, 7):
        found = search(build_index(pair[1]), pair[0], k)
        np.testing.assert_array_equal(found.rows, np.argsort(matrix, axis=1, kind="stable")[:, :k])


def test_groups_far_apart_are_drawn_and_reranked_as_in_float64():
    """By groups of their own, in which float32 is enough."""
    pair = clusters(3)
    far = apart(pair)
    for camera in (0, 1):
        some = [e.cameras % 2 == camera for e in pair]
        near, moved = (
            [Embeddings(e.features[s], e.pids[s], 0 * e.cameras[s]) for e, s in zip(both, some, strict=True)]
            for both in (pair, far)
        )
        options = {"cross_camera": False}
        shots = [evaluate_single_shot(*each, repeats=3, **options).cmc for each in (near, moved)]
        np.testing.assert_array_equal(*shots)
        ranks = [evaluate(*each, rerank=Rerank(5, 3), **options).right.ranks for each in (near, moved)]
        np.testing.assert_array_equal(*ranks)


@pytest.mark.parametrize("offset", [0.0, 3e5])
def test_cosine_is_that_of_float64(offset):
    pair = changed(lambda x: x + offset, clusters(3))
    matrix = exact_cosine(*pair)
    found = search(build_index(pair[1], metric="cosine"), pair[0], 6)
    order = np.argsort(matrix, axis=1, kind="stable")[:, :6]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(matrix, order, 1), rtol=1e-3 if offset else 1e-9)
    first = evaluate(*pair, "cosine", cross_camera=False).first_hit
    right = pair[0].pids[:, None] == pair[1].pids
    ranked = np.argsort(np.where(pair[1].pids < 0, np.inf, matrix), axis=1, kind="stable")
    np.testing.assert_array_equal(first, np.take_along_axis(right, ranked, 1).argmax(axis=1) + 1)


def exact_cosine(query, gallery):
    """1 - cos by the sine, which does not cancel: of the part of one feature that is across the other."""
    q, g = (e.features / np.linalg.norm(e.features, axis=1, keepdims=True) for e in (query, gallery))
    return np.square(q[:, None] - g).sum(axis=2) / 2


def copies(seed=0, d=37, n=211, groups=40):
    """A gallery most of whose features occur several times, and queries that are among them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(groups, d)).astype(np.float32) + np.float32(30)
    of = rng.integers(0, groups, n)
    gallery = Embeddings(features[of], rng.integers(0, 9, n), rng.integers(0, 2, n))
    return Embeddings(features[:23], rng.integers(1, 9, 23), rng.integers(0, 2, 23)), gallery


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_copies_are_at_no_distance_and_tie(metric):
    query, gallery = copies()
    found = search(build_index(gallery, metric=metric), query, 30)
    matrix = reference.distances(query.features, gallery.features, metric)
    matrix[np.abs(matrix) < 1e-12] = 0
    np.testing.assert_array_equal(found.rows, np.argsort(matrix, axis=1, kind="stable")[:, :30])
    same = (query.features[:, None] == gallery.features[found.rows]).all(axis=2)
    assert same[:, 0].all()
    np.testing.assert_array_equal(found.distances == 0, same)
    report = evaluate(query, gallery, metric, block=7)
    assert_equal_to_reference(report, reference.evaluate(query, gallery, metric))
    spread = distance_distributions(query, gallery, metric, cross_camera=False)
    assert spread.edges[1] == 0
    pairs = (matrix == 0) & (gallery.pids >= 0)
    assert spread.positives[1] + spread.negatives[1] == pairs.sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_found_at_no_distance_by_every_kind(kind):
    features = np.random.default_rng(2).normal(size=(700, 8)) + 50
    gallery = Embeddings(features, [-1] * 700, [0] * 700)
    for metric in ("euclidean", "cosine"):
        found = search(build_index(gallery, kind, metric), gallery, 3)
        np.testing.assert_array_equal(found.rows[:, 0], np.arange(700))
        np.testing.assert_array_equal(found.distances[:, 0], 0)
        assert (found.distances[:, 1] > 0).all()


@needs_faiss
def test_an_index_saved_with_a_rounder_center_is_read(tmp_path):
    """As indexes were made before: the centre in float32, the vectors moved by it, no map of the clusters."""
    import faiss

    rng = np.random.default_rng(0)
    gallery, query = (Embeddings(rng.normal(size=(n, 8)) + 3, [-1] * n, [0] * n) for n in (50, 5))
    index = build_index(gallery, "flat")
    center = np.float32(np.rint(64 * (index.ready.scale * gallery.features).mean(axis=0)) / 64)
    old = faiss.IndexFlatL2(8)
    old.add(np.float32(index.ready.scale * gallery.features) - center)
    save_index(replace(index, faiss=old, ready=index.ready._replace(center=center)), tmp_path / "i.npz")
    arrays = dict(np.load(tmp_path / "i.npz"))
    with (tmp_path / "i.npz").open("wb") as file:
        np.savez(file, **arrays | {"centre": center})
    found, expected = search(load_index(tmp_path / "i.npz"), query, 4), search(index, query, 4)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5)


def test_a_query_beyond_any_measure_of_the_gallery_is_refused():
    gallery = Embeddings(np.array([[1.0, 0], [0, 1], [1, 1]]) * 1e-20, [1, 2, 3], [1] * 3)
    query = Embeddings([[1e25, 0], [0, 1e25]], [1, 2], [2] * 2)
    for look in (evaluate, distance_distributions, lambda q, g: search(build_index(g), q, 1)):
        with pytest.raises(ValueError, match="query row 0 .0. is over 1e18 times as large as those of the gallery"):
            look(query, gallery)


def test_a_far_image_does_not_spoil_the_others():
    pair = clusters(3)
    gallery = pair[1].features.copy()
    gallery[-1] = 1e20
    pair = pair[0], replace(pair[1], features=gallery, pids=np.append(pair[1].pids[:-1], 0))
    assert_equal_to_reference(evaluate(*pair), reference.evaluate(*pair))


def test_ordinary_features_are_not_done_again(monkeypatch):
    from svdnet_jax.retrieval import metrics

    kinds = []
    points = metrics.points
    monkeypatch.setattr(metrics, "points", lambda *a: kinds.append(a[5:]) or points(*a))
    evaluate(*clusters(3))
    evaluate(*changed(lambda x: x + 3e5, clusters(3)))
    assert kinds == [(), ()]


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.sampled_from([1, 3, 20])), elements=st.integers(-1, 1)))
def test_equal_rows_are_found(features):
    features[:, 0] = np.where(features[:, 0] == 0, np.float32(-0.0), features[:, 0])
    first = [min(i for i in range(len(features)) if (features[i] == row).all()) for row in features]
    found = first_alike(features)
    assert (found is None) == (first == list(range(len(features))))
    if found is not None:
        assert found.tolist() == first


def test_listed_copies_are_the_first():
    alike = np.array([0, 1, 0, 1, 4, 0], np.int32)
    rows = np.array([[5, 4, 3, 0], [3, 1, 2, 4]])
    assert first_copies(rows, alike).tolist() == [[0, 4, 1, 2], [1, 3, 0, 4]]


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 3e30])
def test_direct_distances_neither_overflow_nor_vanish(scale):
    features = scale * np.array([[3.0, 4.0], [0.0, 0.0], [-6.0, -8.0]])
    if scale > 1e-40:
        features = np.float32(features)
    found = between(features[:1], features, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(found, [[0, 5 * scale, 15 * scale]], rtol=1e-6)
    assert between(features[:1], features[::2], np.array([[0, 1]]), True)[0] == pytest.approx([0, 2])


def test_the_center_keeps_small_integers_exact():
    rng = np.random.default_rng(0)
    for offset in (0, 2**20):
        features = np.float32(rng.integers(0, 16, (100, 5)) + offset)
        both = Embeddings(features, [1] * 100, [1] * 100)
        rows = np.arange(100)
        p = distances.points(both, rows, both, rows, "euclidean")
        squared = np.asarray(distances.offsets(p.query, p.gallery)) + p.query_squared[:, None]
        true = np.square(features[:, None] - features).sum(axis=2)
        np.testing.assert_array_equal(squared / p.scale**2, true)


@pytest.mark.parametrize("k", [1, 9, 20])
def test_copies_tie_whatever_a_product_makes_of_them(k):
    """BLAS multiplies the last few rows in another order than the others."""
    rng = np.random.default_rng(0)
    for n in (5, 13, 50):
        for d in (38, 130):
            gallery = Embeddings(np.float32(rng.normal(size=(4, d)))[rng.integers(0, 4, n)], [1] * n, [1] * n)
            query = Embeddings(np.float32(rng.normal(size=(3, d))), [1] * 3, [2] * 3)
            matrix = reference.distances(query.features, gallery.features, "euclidean")
            rows = search(build_index(gallery), query, min(k, n)).rows
            np.testing.assert_array_equal(rows, np.argsort(matrix, axis=1, kind="stable")[:, :k])


def test_copies_share_a_rank_order_on_any_device():
    query, gallery = copies()
    plain = match(query, gallery, cross_camera=False)
    valid = np.flatnonzero(plain.count)
    ready = distances.points(query, valid, gallery, plain.kept, "euclidean")
    # As a device may round that multiplies every second image otherwise.
    ready.gallery[::2, -2] *= np.float32(1 + 2e-7)
    expected = reference.evaluate(query, gallery, cross_camera=False)
    first = np.zeros(len(query.pids), int)
    for block in rank_blocks(ready, plain, valid, 100):
        first[block.queries] = block.ranks[:, 0]
    np.testing.assert_array_equal(first[valid], [rank for rank in expected["first_hit"] if rank is not None])
