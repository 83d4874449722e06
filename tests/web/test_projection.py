"""The map, against a singular value decomposition."""

import numpy as np
import pytest

from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.web.panel import evaluated_panel, own_panel
from svdnet_jax.web.projection import project


@pytest.fixture(scope="module")
def sides():
    random = np.random.default_rng(0)
    wide = random.normal(size=(60, 5)) * [1, 9, 4, 2, 1] + 50
    pids = np.arange(60) % 7 - 1
    return [Embeddings(wide[part], pids[part], np.arange(60)[part] % 2) for part in (slice(20), slice(20, 60))]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_it_is_the_first_two_principal_components_of_all_but_junk(sides, metric):
    query, gallery = sides
    found = project(evaluated_panel(query, gallery, metric, False))
    assert found.rows.tolist() == [row for row, pid in enumerate(gallery.pids) if pid >= 0]
    features = np.concatenate([query.features, gallery.features[found.rows]]).astype(np.float64)
    if metric == "cosine":
        features /= np.sqrt((features**2).sum(axis=1, keepdims=True))
    centered = features - features.mean(axis=0)
    _, s, rotated = np.linalg.svd(centered, full_matrices=False)
    expected = centered @ rotated[:2].T
    signs = np.sign((expected * found.xy).sum(axis=0))
    np.testing.assert_allclose(found.xy * signs, expected, rtol=0, atol=1e-4 * abs(expected).max())
    np.testing.assert_allclose(found.share, s[:2] ** 2 / (s**2).sum(), rtol=1e-4)
    assert found.queries == 20


def test_one_dimension_and_equal_features_have_a_map_too(sides):
    line = Embeddings(np.arange(6.0)[:, None], [1, 2, 3] * 2, [1] * 3 + [2] * 3)
    found = project(evaluated_panel(line, line, "euclidean", True))
    assert (found.xy[:, 1] == 0).all()
    assert np.ptp(found.xy[:, 0]) == pytest.approx(5)
    assert found.share.tolist() == [pytest.approx(1), 0]
    equal = Embeddings(np.ones((4, 3)), [1, 2, 1, 2], [1, 1, 2, 2])
    found = project(evaluated_panel(equal, equal, "euclidean", True))
    assert np.isfinite(found.xy).all()
    assert found.share.tolist() == [0, 0]


def test_of_unknown_people_all_are_shown(sides):
    test = evaluated_panel(*sides, "euclidean", False)
    gallery = Embeddings(sides[1].features, [-1] * 40, [0] * 40)
    found = project(own_panel(gallery, test))
    assert (found.queries, len(found.rows), found.xy.shape) == (0, 40, (40, 2))
