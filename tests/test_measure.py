"""Embedding many images, and what is measured of a model."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax import correlation, evaluate, spectrum
from svdnet_jax.config import Eval, Model
from svdnet_jax.data.splits import labels
from svdnet_jax.models.resnet import MiniResNet
from svdnet_jax.models.svdnet import build
from svdnet_jax.retrieval.embed import embed
from svdnet_jax.training.measure import _fit, embeddings, measure
from svdnet_jax.training.state import create
from svdnet_jax.training.step import make_infer

SIZE = (16, 8)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 27])
def test_chunks_give_what_all_images_at_once_give(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 3), np.uint8)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def infer(chunk):
        assert chunk.shape == (4, 3, 2, 3)
        return {"sum": chunk.astype(jnp.float32).sum(axis=(1, 2, 3)), "first": chunk[:, 0, 0]}

    chex.clear_trace_counter()
    found = embed(infer, images, 4)
    np.testing.assert_array_equal(found["sum"], images.sum(axis=(1, 2, 3)).astype(np.float32))
    np.testing.assert_array_equal(found["first"], images[:, 0, 0])


def test_fit_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 5
    loss, accuracy = _fit(logits, np.array([0, 1]))
    # Logits are float32.
    assert loss == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2, rel=1e-6)
    assert accuracy == 0.5
    assert _fit(np.array([[1e4, -1e4]], np.float32), np.array([1]))[0] == pytest.approx(2e4)


def test_a_measurement_is_made_of_its_parts(dataset):
    model = build(Model(backbone="micro", dim=6), 12, {"micro": lambda config: MiniResNet(widths=(4, 8), channels=8)})
    state = create(model, SIZE, seed=3)
    infer = make_infer(model, SIZE)
    settings = Eval(metric="cosine", cross_camera=False, batch_size=32, train_images=10)
    found = measure(state, infer=infer, dataset=dataset, settings=settings)
    query, gallery = (
        embeddings(partial(infer, state.variables), s, settings) for s in (dataset.query, dataset.gallery)
    )
    for name in ("embedding", "pooled"):
        expected = evaluate(query[name], gallery[name], "cosine", cross_camera=False)
        assert getattr(found, name).metrics() == expected.metrics()
        assert getattr(found, name).cross_camera is False
    some = np.linspace(0, len(dataset.train) - 1, 10).astype(int)
    logits = np.asarray(infer(state.variables, jnp.asarray(dataset.train.images[some])).logits)
    # Ten images at once are summed in another order than 32.
    assert found.loss == pytest.approx(_fit(logits, labels(dataset.train.pids)[0][some])[0], rel=1e-4)
    assert found.correlation == pytest.approx(float(correlation(state.eigenlayer)))
    np.testing.assert_array_equal(found.spectrum, np.asarray(spectrum(state.eigenlayer)))
