"""The network's shape, names and modes."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest

from svdnet_jax.config.schema import Model
from svdnet_jax.models.resnet import MiniResNet
from svdnet_jax.models.svdnet import create_model, parameter_paths

pytestmark = pytest.mark.unoptimized


def micro(config):
    return MiniResNet(widths=(4,), channels=8, frozen_statistics=config.batch_norm == "frozen")


BACKBONES = {"micro": micro, "mini": lambda config: MiniResNet()}
SHAPE = (5, 16, 8, 3)
CONFIG = Model(backbone="micro", embedding_dim=6)


@functools.cache
def initial(backbone, dim):
    model = create_model(Model(backbone=backbone, embedding_dim=dim), 7, BACKBONES)
    return jax.jit(lambda key: model.lazy_init(key, jnp.zeros(SHAPE), train=False))(jax.random.key(0))


def make(config):
    """A network and its first variables, which no mode of the network changes."""
    return create_model(config, 7, BACKBONES), initial(config.backbone, config.embedding_dim)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), SHAPE)


def test_outputs_have_their_shapes_and_the_embedding_is_h_times_w(images):
    model, variables = make(CONFIG)
    outputs = jax.jit(partial(model.apply, train=False))(variables, images)
    chex.assert_shape(outputs.pooled, (5, 8))
    chex.assert_shape(outputs.embedding, (5, 6))
    chex.assert_shape(outputs.logits, (5, 7))
    W = variables["params"]["eigenlayer"]["kernel"]
    chex.assert_trees_all_close(outputs.pooled @ W, outputs.embedding, rtol=1e-5)
    classifier = variables["params"]["classifier"]
    chex.assert_trees_all_close(
        outputs.embedding @ classifier["kernel"] + classifier["bias"][None, :], outputs.logits, rtol=1e-5
    )


def test_the_eigenlayer_has_no_bias_and_the_authors_initial_values():
    _, variables = make(Model())
    paths = parameter_paths(variables["params"])
    assert [path for path in paths if path.startswith("eigenlayer")] == ["eigenlayer/kernel"]
    for path in ("eigenlayer/kernel", "classifier/kernel"):
        # The standard deviation of n normal numbers is known to 1 / sqrt(2 n); here n > 800.
        assert float(jnp.std(paths[path])) == pytest.approx(0.01, rel=0.1)
    assert float(jnp.abs(paths["classifier/bias"]).max()) == 0


def test_the_small_backbone_has_a_few_hundred_thousand_weights():
    _, variables = make(Model())
    assert 200_000 < sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) < 600_000


def test_dropout_works_in_training_only_and_between_embedding_and_classifier(images):
    model, variables = make(CONFIG)
    apply = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    one, two = (apply(variables, images, rngs={"dropout": jax.random.key(seed)})[0] for seed in (0, 1))
    chex.assert_trees_all_equal(one.embedding, two.embedding)
    assert float(jnp.abs(one.logits - two.logits).max()) > 0


@pytest.mark.parametrize("mode", ["batch", "frozen"])
def test_batch_norm_modes(images, mode):
    model, variables = make(Model(backbone="micro", embedding_dim=6, batch_norm=mode, dropout=0.0))
    trained, updates = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(variables, images)
    resting = jax.jit(partial(model.apply, train=False))(variables, images)
    if mode == "frozen":
        chex.assert_trees_all_equal(updates["batch_stats"], variables["batch_stats"])
        chex.assert_trees_all_equal(trained, resting)
    else:
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), updates["batch_stats"], variables["batch_stats"])
        assert min(jax.tree.leaves(moved)) > 0
        assert float(jnp.abs(trained.pooled - resting.pooled).max()) > 0
