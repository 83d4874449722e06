"""Pairs of a gallery that are nearer than a distance, beside all distances in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax.retrieval import duplicates
from svdnet_jax.retrieval.duplicates import near_pairs
from svdnet_jax.retrieval.embeddings import Embeddings


def images(features):
    return Embeddings(features, np.full(len(features), -1), np.zeros(len(features), int))


def brute_force(features, distance, metric):
    wide = features.astype(np.float64)
    if metric == "cosine":
        wide = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    apart = np.linalg.norm(wide[:, None] - wide[None], axis=2)
    apart = apart**2 / 2 if metric == "cosine" else apart
    return {(a, b): apart[a, b] for a in range(len(wide)) for b in range(a + 1, len(wide)) if apart[a, b] <= distance}


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([0.0, 3.0, 1e4]), st.floats(0, 1))
@settings(deadline=None, max_examples=25)
def test_pairs_are_those_of_all_distances(metric, seed, n, away, share):
    """Also where features gather far from their middle, so that float32 cannot tell what is near."""
    rng = np.random.default_rng(seed)
    features = np.float32(rng.normal(size=(n, 5)) + away * rng.choice([-1, 1], size=(n, 1)))
    features[n // 2 :] = features[: n - n // 2]  # copies
    every = brute_force(features, np.inf, metric)
    distance = float(np.quantile([*every.values()], share)) * (1 + 1e-6) + 1e-9
    found = near_pairs(images(features), distance, metric)
    expected = brute_force(features, distance, metric)
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == set(expected)
    np.testing.assert_allclose(found.distances, sorted(expected.values()), rtol=1e-6, atol=1e-7)


def test_only_equal_features_are_at_distance_zero_in_the_order_of_rows(monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    features = np.random.default_rng(0).normal(size=(11, 6)).astype(np.float32)
    features[[9, 3, 10]] = features[[0, 1, 0]]
    features[5] = np.nextafter(features[6], 9)
    found = near_pairs(images(features), 0)
    assert list(zip(*(each.tolist() for each in found), strict=True)) == [
        *((0, 9, 0.0), (0, 10, 0.0), (1, 3, 0.0), (9, 10, 0.0))
    ]
    assert len(near_pairs(images(features), 1e-5).first) == 5


def test_a_distance_that_most_pairs_are_within_is_refused(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST", 3)
    monkeypatch.setattr(duplicates, "BLOCK", 2)
    features = np.eye(6)[:, :3]
    assert len(near_pairs(images(features), 0).first) == 3
    for distance in (1.0, 1.5, 9.0):
        with pytest.raises(ValueError, match="more than 3 pairs are as near; give a smaller distance"):
            near_pairs(images(features), distance)
    for distance in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="must be a distance of 0 or more"):
            near_pairs(images(features), distance)
    assert not len(near_pairs(images(features[:1]), 9).first)
