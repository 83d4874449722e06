"""k-reciprocal re-ranking against a dense literal reference, and its laws."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import reference_metrics as metrics
import reference_rerank as reference
from test_metrics import clusters

from svdnet_jax.retrieval import rerank as module
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.rerank import Rerank, reciprocal


def expected(query, gallery, settings, cosine=False):
    """Metrics of the reference's distances, with every image's distance as its only feature."""
    q, g = query.features, gallery.features
    if cosine:
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
    distances = reference.final_distances(q, g, settings.k1, settings.k2, settings.weight)
    aps = []
    for i in range(len(q)):
        kept = (gallery.pids >= 0) & ~((gallery.pids == query.pids[i]) & (gallery.cameras == query.cameras[i]))
        order = np.argsort(distances[i, kept], kind="stable")
        right = list(gallery.pids[kept][order] == query.pids[i])
        if any(right) and query.pids[i] >= 0:
            aps.append((metrics.plain(right)[1], right.index(True) == 0))
    each, first = zip(*aps, strict=True)
    return SimpleNamespace(mAP=np.mean(each), rank1=np.mean(first), aps=list(each))


SETTINGS = [
    Rerank(),
    Rerank(k1=20, k2=1),
    Rerank(k1=5, k2=3, weight=0.5),  # half of 5 is 2: numpy rounds to even
    Rerank(k1=7, k2=6, weight=0.05),
    Rerank(k1=1, k2=2),
    Rerank(k1=40, k2=50),
    Rerank(weight=1.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.k1}-{s.k2}-{s.weight}")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equals_the_dense_reference(settings, metric):
    query, gallery = clusters(10, n_query=30, n_gallery=150, people=8)
    found = evaluate(query, gallery, metric, rerank=settings, block=16)
    want = expected(query, gallery, settings, metric == "cosine")
    # Equal rankings give equal sums. Nothing here is so near that float32 and float64 rank it differently.
    assert found.mAP == pytest.approx(want.mAP, abs=1e-12)
    assert found.rank(1) == pytest.approx(want.rank1, abs=1e-12)
    assert found.ap[found.first_hit > 0] == pytest.approx(want.aps, abs=1e-12)


def test_fewer_images_than_neighbors():
    query, gallery = clusters(11, n_query=8, n_gallery=20, people=4)
    want = expected(query, gallery, Rerank(k1=40))
    assert evaluate(query, gallery, rerank=Rerank(k1=40)).mAP == pytest.approx(want.mAP, abs=1e-12)


def test_it_changes_and_improves_the_ranking_of_clusters():
    query, gallery = clusters(10, n_query=60, n_gallery=400)
    before, after = evaluate(query, gallery), evaluate(query, gallery, rerank=Rerank(k1=15))
    assert after.mAP > before.mAP + 0.02
    assert (after.rerank, before.rerank) == (Rerank(k1=15), None)
    assert "re-ranked (k1 15, k2 6, lambda 0.3)" in str(after)
    assert "re-ranked" not in str(before)


def test_weight_one_is_the_original_ranking():
    query, gallery = clusters(12)
    np.testing.assert_array_equal(evaluate(query, gallery, rerank=Rerank(weight=1.0)).ap, evaluate(query, gallery).ap)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_do_not_change_the_result(block, monkeypatch):
    query, gallery = clusters(13)
    expected = evaluate(query, gallery, rerank=Rerank()).ap
    for name, of in (("BLOCK", 900), ("PAIRS", 3)):
        monkeypatch.setattr(module, name, of)
    np.testing.assert_array_equal(evaluate(query, gallery, rerank=Rerank(), block=block).ap, expected)


def test_a_jax_of_float64_gives_the_same():
    query, gallery = clusters(17)
    expected = evaluate(query, gallery, rerank=Rerank())
    with jax.enable_x64(True):  # under conftest's strict promotion: one float64 among the float32 is an error
        found = evaluate(query, gallery, rerank=Rerank())
    np.testing.assert_array_equal(found.ap, expected.ap)


@pytest.mark.parametrize("scale", [3e18, 3e-18])
def test_scale_does_not_matter(scale):
    query, gallery = clusters(14)
    expected = evaluate(query, gallery, rerank=Rerank()).ap
    moved = (replace(e, features=e.features * np.float32(scale)) for e in (query, gallery))
    # A power of ten is no power of two, so features round; distances here differ by far more.
    np.testing.assert_array_equal(evaluate(*moved, rerank=Rerank()).ap, expected)


def test_vectors_are_shares_over_mutual_neighbors():
    query, gallery = clusters(15, n_query=20, n_gallery=100)
    vectors, farthest = reciprocal(query, gallery, "euclidean", Rerank(k1=6, k2=1))
    x = np.concatenate([query.features, gallery.features])
    squared = reference.squared_distances(x)
    np.testing.assert_allclose(farthest, squared.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(vectors.sum(axis=1), 1, rtol=1e-6)
    ranking = np.argsort(squared, axis=1, kind="stable")
    for i in (0, 50, 119):
        held = set(vectors[[i]].indices)
        assert held >= set(reference.mutual(ranking, i, 6))
        assert i in held


def test_junk_takes_part_as_in_the_authors_code():
    query, gallery = clusters(16)
    without = gallery.pids >= 0
    alone = Embeddings(gallery.features[without], gallery.pids[without], gallery.cameras[without])
    kept, dropped = (evaluate(query, g, rerank=Rerank()) for g in (gallery, alone))
    assert kept.mAP != dropped.mAP
    assert evaluate(query, gallery).mAP == evaluate(query, alone).mAP


def test_images_that_are_all_alike_have_a_ranking():
    same = Embeddings(np.ones((6, 3)), [1, 2, 1, 2, 1, 2], [1, 1, 2, 2, 3, 3])
    assert evaluate(same, same, rerank=Rerank(k1=3)).valid_queries == 6


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"weight": 1.5}, {"weight": float("nan")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="found"):
        Rerank(**wrong)
