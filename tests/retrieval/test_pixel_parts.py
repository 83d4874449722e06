"""What pixels contribute adds up to the similarity and the distance of the evaluation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.pixel_parts import pixel_parts


def pair(seed, h=3, w=2, d=5, other=(3, 2)):
    random = np.random.default_rng(seed)
    return random.normal(1, 1, (h, w, d)).astype(np.float32), random.normal(1, 1, (*other, d)).astype(np.float32)


def embedded(features):
    return features.astype(np.float64).mean(axis=(0, 1))


@given(st.integers(0, 10**6), st.sampled_from(["euclidean", "cosine"]), st.booleans())
def test_the_parts_add_up(seed, metric, centered):
    query, gallery = pair(seed, other=(4, 1))  # pixels of both need not be as many
    m = np.random.default_rng(seed + 1).normal(size=5) if centered and metric == "euclidean" else None
    parts = pixel_parts(query, gallery, metric, m)
    f, g = embedded(query), embedded(gallery)
    (distance,) = between(f[None], g[None], np.array([[0]]), metric == "cosine")[0]
    if metric == "cosine":
        f, g = f / np.linalg.norm(f), g / np.linalg.norm(g)
    similarity = (f - (0 if m is None else m)) @ (g - (0 if m is None else m))
    assert parts.distance == pytest.approx(distance, rel=1e-9)
    assert parts.similarity == pytest.approx(similarity, rel=1e-9, abs=1e-12)
    for part in (parts.alike_query, parts.alike_gallery):
        assert part.sum() == pytest.approx(similarity, rel=1e-9, abs=1e-9)
    together = parts.apart_query.sum() + parts.apart_gallery.sum()
    assert together == pytest.approx(distance if metric == "cosine" else distance**2, rel=1e-9, abs=1e-12)
    assert parts.alike_query.shape == (3, 2)
    assert parts.alike_gallery.shape == (4, 1)


def test_the_distance_is_that_of_the_similarity_and_the_lengths():
    query, gallery = pair(0)
    m = np.full(5, 0.3)
    parts, f, g = pixel_parts(query, gallery, center=m), embedded(query) - m, embedded(gallery) - m
    assert parts.distance**2 == pytest.approx(f @ f + g @ g - 2 * parts.similarity)


def test_a_part_is_where_it_comes_from():
    """Two images that share one feature, at one pixel of each: that pixel makes them alike, the others do not."""
    query, gallery = np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 3), np.float32)
    query[0, 1, 0] = gallery[1, 0, 0] = 4.0
    query[1, 1, 1], gallery[0, 0, 2] = 8.0, 8.0  # what only one of them has
    parts = pixel_parts(query, gallery)
    assert parts.alike_query.tolist() == [[0, 1], [0, 0]]
    assert parts.alike_gallery.tolist() == [[0, 0], [1, 0]]
    assert parts.apart_query.tolist() == [[0, 0], [0, 4]]
    assert parts.apart_gallery.tolist() == [[4, 0], [0, 0]]


def test_nothing_sets_an_image_apart_from_itself():
    query, _ = pair(0)
    parts = pixel_parts(query, query)
    assert parts.distance == 0
    assert not parts.apart_query.any()


def test_what_cannot_be_split_is_refused():
    query, gallery = pair(0)
    with pytest.raises(ValueError, match="leave the center out"):
        pixel_parts(query, gallery, "cosine", np.zeros(5))
    with pytest.raises(ValueError, match="length zero"):
        pixel_parts(0 * query, gallery, "cosine")
    with pytest.raises(ValueError, match="not finite"):
        pixel_parts(np.nan * query, gallery)
