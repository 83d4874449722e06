"""Exact nearest neighbours, on the host and on the device, against a full stable sort."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from svdnet_jax.retrieval import all_pairs, neighbors
from svdnet_jax.retrieval.distances import points
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.neighbors import nearest, on_device, on_host, packed, unpacked


def ready(query, gallery):
    sets = (Embeddings(x, np.zeros(len(x), int), np.zeros(len(x), int)) for x in (query, gallery))
    q, g = sets
    return points(q, np.arange(len(query)), g, np.arange(len(gallery)), "euclidean")


def by_sorting(p, k):
    offset = p.query.astype(np.float64) @ p.gallery.T.astype(np.float64)
    rows = np.argsort(offset, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(offset, rows, 1), offset.max(axis=1)


def assert_equal(found, expected):
    rows, offsets, farthest = expected
    np.testing.assert_array_equal(found.rows, rows)
    # Sums of at most 2^24 multiples of one power of two: exact on every side.
    np.testing.assert_array_equal(found.offsets, offsets)
    np.testing.assert_array_equal(found.farthest, farthest)


@st.composite
def problems(draw):
    """Integer features, full of ties, and exact."""
    query, gallery = (
        draw(hnp.arrays(np.float32, (n, 2), elements=st.integers(-4, 4)))
        for n in (7, draw(st.sampled_from([1, 63, 64, 200])))
    )
    return ready(query, gallery), draw(st.sampled_from([k for k in (1, 2, 5, 60) if k <= len(gallery)]))


@settings(deadline=None, max_examples=60)
@given(problems(), st.sampled_from([16, 48, 8192]), st.sampled_from([64, 2**25]))
def test_the_host_equals_a_sort_with_ties(problem, step, elements):
    p, k = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "HOST_STEP", step)
        patch.setattr(neighbors, "HOST_ELEMENTS", elements)
        assert_equal(on_host(p.query, p.gallery, k, farthest=True), by_sorting(p, k))


@settings(deadline=None, max_examples=30)
@given(problems(), st.sampled_from([2, 64]))
def test_the_device_equals_a_sort_with_ties(problem, group):
    p, k = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "DEVICE_GROUP", group)
        neighbors._select.clear_cache()  # the size of groups is written into the program
        assert_equal(on_device(p.query, p.gallery, k, farthest=True), by_sorting(p, k))
    neighbors._select.clear_cache()


@pytest.mark.parametrize("look", [on_host, on_device])
@pytest.mark.parametrize("order", ["as drawn", "nearest last", "all alike"])
def test_many_blocks_in_any_order(look, order, monkeypatch):
    rng = np.random.default_rng(0)
    gallery = rng.integers(-9, 10, (3000, 6)).astype(np.float32)
    if order == "nearest last":  # every image is nearer than all before it
        gallery = gallery[np.argsort(-np.square(gallery).sum(1), kind="stable")]
    elif order == "all alike":
        gallery = np.ones_like(gallery)
    p = ready(np.zeros((50, 6), np.float32) + rng.integers(-1, 2, (50, 6)), gallery)
    monkeypatch.setattr(neighbors, "HOST_STEP", 256)
    monkeypatch.setattr(neighbors, "HOST_ELEMENTS", 256 * 20)
    monkeypatch.setattr(neighbors, "DEVICE_ELEMENTS", 3008 * 20)
    assert_equal(look(p.query, p.gallery, 13, farthest=True), by_sorting(p, 13))


@pytest.mark.parametrize("look", [on_host, on_device])
def test_real_valued_features(look):
    rng = np.random.default_rng(1)
    p = ready(rng.normal(size=(40, 32)), rng.normal(size=(900, 32)))
    rows, offsets, farthest = by_sorting(p, 20)
    found = look(p.query, p.gallery, 20, farthest=True)
    np.testing.assert_array_equal(found.rows, rows)
    # float32: sums of 33 products of size about 1, each to 6e-8.
    np.testing.assert_allclose(found.offsets, offsets, atol=2e-6)
    np.testing.assert_allclose(found.farthest, farthest, atol=2e-6)


def test_the_platform_decides_who_looks(monkeypatch):
    p = ready(np.zeros((2, 3)), np.arange(300, dtype=float).reshape(100, 3))
    asked = []

    def device(*arguments):
        asked.append(arguments[-1])

    monkeypatch.setattr(neighbors, "on_device", device)
    assert nearest(p.query, p.gallery, 2, recall=0.9).rows.tolist() == [[0, 1]] * 2
    for platform in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        nearest(p.query, p.gallery, 2, recall=0.9)
    assert asked == [1.0, 0.9]  # approximate where there is hardware for it only


def test_an_approximate_search_finds_most():
    rng = np.random.default_rng(2)
    p = ready(rng.normal(size=(20, 8)), rng.normal(size=(2000, 8)))
    found, (rows, _, _) = on_device(p.query, p.gallery, 10, recall=0.5), by_sorting(p, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(found.rows, rows, strict=True)]
    assert np.mean(shared) >= 5
    assert np.isnan(found.farthest).all()


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.float32, (90, 2), elements=st.integers(-4, 4)), st.sampled_from([1, 2]), st.sampled_from([32, 90]))
def test_all_pairs_equal_a_sort_with_ties(features, k, block):
    p = ready(features, features)
    rows, offsets, farthest = by_sorting(p, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "BLOCK", block)
        found = all_pairs.nearest_of_all(p.gallery, k)
    own = p.query_squared
    assert_equal(found, (rows, offsets + own[:, None], farthest + own))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_all_pairs_of_many_blocks_or_many_neighbors(backend, monkeypatch):
    features = np.random.default_rng(3).integers(-3, 4, (700, 4)).astype(np.float32)
    p = ready(features, features)
    monkeypatch.setattr(all_pairs, "BLOCK", 100)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for k in (1, 6, 7, 40, 700):  # beyond 6 a block has no k groups
        rows, offsets, farthest = by_sorting(p, k)
        own = p.query_squared
        assert_equal(all_pairs.nearest_of_all(p.gallery, k), (rows, offsets + own[:, None], farthest + own))
    with pytest.raises(ValueError, match="between 1 and the 700 images; found 701"):
        all_pairs.nearest_of_all(p.gallery, 701)


@given(hnp.arrays(np.float32, 8, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)))
def test_packing_keeps_the_order_and_the_numbers(values):
    rows = np.arange(8)[::-1]
    keys = packed(values, rows)
    np.testing.assert_array_equal(np.argsort(keys), np.lexsort((rows, values)))
    np.testing.assert_array_equal(unpacked(keys)[0], rows)
    np.testing.assert_array_equal(unpacked(keys)[1], values)


def test_no_queries_and_impossible_k():
    p = ready(np.zeros((2, 3)), np.ones((5, 3)))
    assert nearest(p.query[:0], p.gallery, 3).rows.shape == (0, 3)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"between 1 and the gallery's 5 images; found {k}"):
            nearest(p.query, p.gallery, k)
