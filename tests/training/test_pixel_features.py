"""Features of pixels: their mean is the embedding, of every kind of network, so that parts add up to distances."""

import jax
import numpy as np
import pytest

from svdnet_jax.config.schema import Model
from svdnet_jax.models.caffenet import CaffeNet
from svdnet_jax.models.resnet import MiniResNet
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.pixel_parts import pixel_parts
from svdnet_jax.training.embedding import make_eval_fn
from svdnet_jax.training.pixel_features import make_pixel_fn
from svdnet_jax.training.state import init_state

pytestmark = pytest.mark.unoptimized

SIZE = 32, 16
BACKBONES = {
    "micro": lambda config: MiniResNet(widths=(4, 8), channels=16),
    "half": lambda config: MiniResNet(widths=(4, 8), channels=16, dtype="bfloat16"),
}


def network(**settings):
    model = create_model(Model(**{"backbone": "micro", "embedding_dim": 6} | settings), 3, BACKBONES)
    variables = init_state(model, SIZE, 0).variables
    random = np.random.default_rng(0)
    # Statistics and scales as after training: a neck that shifts and scales each channel in its own way.
    moved = jax.tree.map(lambda x: x + random.uniform(0.1, 1, x.shape).astype(x.dtype), variables)
    images = random.integers(0, 256, (5, 40, 20, 3), np.uint8)
    return model, moved, images


@pytest.mark.parametrize("name", ["embedding", "pooled"])
@pytest.mark.parametrize("settings", [{}, {"neck": "batchnorm"}, {"embedding_dim": 0}, {"backbone": "half"}], ids=str)
def test_the_mean_over_pixels_is_the_embedding_and_parts_add_up(name, settings):
    model, variables, images = network(**settings)
    outputs = make_eval_fn(model, SIZE)(variables, images)
    pixels = np.asarray(make_pixel_fn(model, SIZE)(variables, images)[name])
    features = np.asarray(getattr(outputs, name))
    assert pixels.shape[1:3] == (8, 4)
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), features, rtol=2e-5, atol=2e-5 * np.abs(features).max())
    for metric in ("euclidean", "cosine"):
        (distances,) = between(features[:1], features, np.arange(1, 5)[None], metric == "cosine")
        for gallery, distance in zip(pixels[1:], distances, strict=True):
            parts = pixel_parts(pixels[0], gallery, metric)
            together = parts.apart_query.sum() + parts.apart_gallery.sum()
            assert together == pytest.approx(distance if metric == "cosine" else distance**2, rel=0.01)
            assert parts.alike_query.sum() == pytest.approx(parts.alike_gallery.sum())


def test_features_without_a_place_are_one_pixel():
    model = create_model(Model(backbone="flat", embedding_dim=6), 3, {"flat": lambda config: CaffeNet()})
    variables = jax.eval_shape(lambda: init_state(model, (227, 227), 0).variables)
    images = jax.ShapeDtypeStruct((1, 227, 227, 3), np.float32)
    assert jax.eval_shape(make_pixel_fn(model, (227, 227)), variables, images)["embedding"].shape == (1, 1, 1, 6)
