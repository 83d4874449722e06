"""Figures of an evaluation: what is drawn is what was found."""

import numpy as np
import pytest
from test_metrics import clusters, line

from svdnet_jax.reporting.figures.retrieval import camera_pairs, cmc
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.retrieval import camera_pairs as pairs
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.rerank import Rerank


def test_cmc_draws_each_report(tmp_path):
    query, gallery = clusters(0)
    reports = {"plain": evaluate(query, gallery), "re-ranked": evaluate(query, gallery, rerank=Rerank())}
    figure = cmc(reports)
    axes = figure.axes[0]
    for drawn, (name, report) in zip(axes.get_lines(), reports.items(), strict=True):
        np.testing.assert_array_equal(drawn.get_xdata(), np.arange(1, 51))
        np.testing.assert_allclose(drawn.get_ydata(), 100 * report.cmc[:50])
        assert drawn.get_label() == f"{name}: rank-1 {100 * report.rank(1):.1f}, mAP {100 * report.mAP:.1f}"
    save(figure, tmp_path / "cmc.png")
    assert (tmp_path / "cmc.png").stat().st_size > 10_000


def test_cmc_of_a_small_gallery_ends_with_it():
    figure = cmc({"small": evaluate(line([0], [5]), line([2, 1], [5, 6]), cross_camera=False)})
    assert figure.axes[0].get_lines()[0].get_xdata().tolist() == [1, 2]
    assert figure.axes[0].get_xticks().tolist() == [1]


@pytest.mark.parametrize("cameras", [4, 30])
def test_camera_pairs_are_drawn_as_they_are(cameras, tmp_path):
    query, gallery = clusters(1, n_query=200, n_gallery=900)
    random = np.random.default_rng(0)
    query, gallery = (
        Embeddings(e.features, e.pids, random.integers(0, cameras, len(e.pids))) for e in (query, gallery)
    )
    found = pairs.camera_pairs(evaluate(query, gallery), query, gallery)
    figure = camera_pairs(found)
    for axes, values in zip(figure.axes[:2], (found.rank1, found.mAP), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array().filled(np.nan), 100 * values)
        written = [text.get_text() for text in axes.texts]
        shown = [f"{100 * value:.0f}" for value in values.ravel() if not np.isnan(value)]
        assert written == (shown if cameras <= 12 else [])
        assert axes.get_xticklabels()[1].get_text() == str(found.gallery_cameras[1 if cameras <= 12 else 3])
    save(figure, tmp_path / "pairs.png")
