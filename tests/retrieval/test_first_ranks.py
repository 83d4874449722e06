"""The heads of all rankings at once are those of each ranking by itself."""

import numpy as np
import pytest
from test_metrics import clusters

from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.first_ranks import first_ranks
from svdnet_jax.retrieval.metrics import ranked_list


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("cross_camera", [True, False])
def test_they_are_the_ranked_lists(metric, cross_camera):
    query, gallery = clusters(3, n_gallery=120)
    assert (gallery.pids < 0).any()
    found = first_ranks(query, gallery, 7, metric, cross_camera)
    for index, (rows, distances) in enumerate(zip(found.rows, found.distances, strict=True)):
        expected, _, expected_distances = ranked_list(query, gallery, index, 7, metric, cross_camera)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(distances, expected_distances, rtol=1e-6, atol=1e-7)


def test_a_short_ranking_ends_with_nothing():
    """Three images, one of them junk, one left out for the first query by the rule about cameras."""
    query = Embeddings([[0.0], [0.0]], [5, 6], [1, 1])
    gallery = Embeddings([[1.0], [2.0], [3.0]], [5, -1, 6], [1, 1, 2])
    found = first_ranks(query, gallery, 5)
    assert found.rows.tolist() == [[2, -1], [0, 2]]
    assert found.distances[0, 0] == 3
    assert np.isnan(found.distances[0, 1])


def test_what_cannot_be_ranked_is_refused():
    query = Embeddings([[0.0]], [5], [1])
    with pytest.raises(ValueError, match="found 0 of 1"):
        first_ranks(query, query, 0)
    with pytest.raises(ValueError, match="found 3 of 0"):
        first_ranks(query, Embeddings([[0.0]], [-1], [1]), 3)
