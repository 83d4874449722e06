"""One training step against the same step written out, and where its randomness comes from."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax.baselines.orthogonality import feature_spectral_difference, penalty
from svdnet_jax.config.schema import Config, Loss, Model, Optimizer, Penalty
from svdnet_jax.data.batches import Batch
from svdnet_jax.models.resnet import MiniResNet
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.training.compile import step_config
from svdnet_jax.training.losses import batch_hard_triplet, make_loss_fn
from svdnet_jax.training.optimizer import make_optimizer
from svdnet_jax.training.preprocess import AugmentConfig, augment, make_preprocess
from svdnet_jax.training.state import begin_phase, init_state
from svdnet_jax.training.step import train_step

pytestmark = pytest.mark.unoptimized

BACKBONES = {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
SIZE, MEAN, STD = (16, 8), (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
RATE = 0.1


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return Batch(jnp.asarray(rng.integers(0, 256, (6, 16, 8, 3), np.uint8)), jnp.arange(6, dtype=jnp.int32) % 5)


PLAIN = Loss()


def prepare(dropout, loss=PLAIN, **inputs):
    """A network, the state before its first step, and its step."""
    model = create_model(Model(backbone="micro", embedding_dim=6, dropout=dropout), 5, BACKBONES)
    fresh = init_state(model, SIZE, 0, MEAN, STD)
    settings = Optimizer(momentum=0.9, weight_decay=0.01)
    optimizer = make_optimizer(fresh.params, settings=settings)
    state = begin_phase(fresh, optimizer, RATE, phase=0, correlation=0.0)
    preprocess, loss_fn = make_preprocess(AugmentConfig(SIZE, **inputs)), make_loss_fn(loss)
    step = partial(train_step, model=model, optimizer=optimizer, preprocess=preprocess, loss_fn=loss_fn)
    return model, state, jax.jit(step)


def test_a_step_equals_the_step_written_out(batch):
    model, state, step = prepare(dropout=0.0)
    after, metrics = step(state, batch)
    x = batch.images.astype(jnp.float32)

    def loss_fn(params):
        outputs, updates = model.apply({**state.variables, "params": params}, x, train=True, mutable=["batch_stats"])
        chances = jax.nn.softmax(outputs.logits)[jnp.arange(6), batch.labels]
        return -jnp.mean(jnp.log(chances)), (outputs.logits, updates["batch_stats"])

    (loss, (logits, batch_stats)), gradients = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(state.params)

    def moved(path, weight, gradient):
        decay = 0.0 if path[-1].key == "bias" else 0.01
        return weight - RATE * (gradient + decay * weight)

    expected = jax.tree_util.tree_map_with_path(moved, state.params, gradients)
    # The same sums in float32, in another order: some roundings of numbers up to one.
    chex.assert_trees_all_close(after.params, expected, atol=1e-6)
    chex.assert_trees_all_close(after.batch_stats, batch_stats, atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["accuracy"]) == float(jnp.mean(jnp.argmax(logits, axis=1) == batch.labels))
    assert (int(after.step), int(after.cursor.step), int(after.cursor.phase)) == (1, 1, 0)


def gradient(step, state, batch):
    """What one step of a fresh momentum tells of the gradients."""
    after, metrics = step(state, batch)
    return jax.tree.map(lambda old, new: (old - new) / RATE, state.params, after.params), metrics


def test_penalties_are_added_to_the_loss(batch):
    settings = Penalty(kind="soft", weight=0.3, scale="columns", features=0.01)
    model, state, step = prepare(dropout=0.0, loss=Loss(penalty=settings))
    plain = gradient(prepare(dropout=0.0)[2], state, batch)
    found = gradient(step, state, batch)
    W = state.params["eigenlayer"]["kernel"]

    @jax.jit
    def maps(params):
        variables = {**state.variables, "params": params}
        collections = ["batch_stats", "intermediates"]
        images = batch.images.astype(jnp.float32)
        return model.apply(variables, images, train=True, mutable=collections)[1]["intermediates"]["maps"][0]

    on_weight, on_maps = penalty(W, "soft", "columns"), feature_spectral_difference(maps(state.params))
    assert on_weight > 0
    assert on_maps > 0
    assert float(found[1]["loss"] - plain[1]["loss"]) == pytest.approx(0.3 * float(on_weight) + 0.01 * float(on_maps))
    moved = jax.tree.map(lambda a, b: a - b, found[0], plain[0])
    expected = jax.grad(lambda W: 0.3 * penalty(W, "soft", "columns"))(W)
    chex.assert_trees_all_close(moved["eigenlayer"]["kernel"], expected, atol=2e-5 * float(jnp.abs(expected).max()))
    expected = jax.jit(jax.grad(lambda params: 0.01 * feature_spectral_difference(maps(params))))(state.params)
    expected = expected["backbone"]
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(moved["backbone"], expected, atol=1e-3 * largest)
    assert not any(jnp.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves(moved["classifier"]))


def test_a_penalty_may_begin_in_the_rounds():
    late = Config(loss=Loss(penalty=Penalty(kind="soft", weight=0.3, begin="rounds")))
    assert step_config(late, "base") == step_config(Config(), "base")
    assert step_config(late, "relaxation").loss == late.loss
    early = dataclasses.replace(late, loss=Loss(penalty=Penalty(kind="soft", weight=0.3)))
    assert step_config(early, "base").loss == early.loss


def test_a_mean_image_is_mirrored_with_its_picture_and_a_mean_color_is_not(batch):
    key, inputs = jax.random.key(3), AugmentConfig(SIZE, flip=True)
    image = jnp.asarray(np.random.default_rng(1).uniform(90, 160, (*SIZE, 3)), jnp.float32)
    color = image[:1, :1]
    x = batch.images.astype(jnp.float32)
    seen = {}
    for name, fill in (("image", image), ("colour", color)):
        centerd = x - fill[None]
        found = augment(key, batch.images, fill, config=inputs) - fill[None]
        as_it_is = jnp.abs(found - centerd).max(axis=(1, 2, 3)) < 1e-3
        turned = jnp.abs(found - centerd[:, :, ::-1]).max(axis=(1, 2, 3)) < 1e-3
        assert bool((as_it_is ^ turned).all())
        seen[name] = turned.tolist()
    assert seen["image"] == seen["colour"]
    assert len(set(seen["image"])) == 2


def test_a_triplet_loss_is_added_on_the_features_before_the_neck(batch):
    model, state, plain = prepare(0.0)
    batch = batch._replace(labels=jnp.array([0, 0, 1, 1, 2, 2], jnp.int32))
    x = batch.images.astype(jnp.float32)
    outputs, _ = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(state.variables, x)
    softmax = float(plain(state, batch)[1]["loss"])
    for kind, margin in (("soft", None), ("margin", 0.7)):
        _, _, step = prepare(0.0, Loss(triplet=kind, margin=0.7))
        expected = softmax + float(batch_hard_triplet(outputs.features, batch.labels, margin))
        assert float(step(state, batch)[1]["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("dropout", "inputs"),
    [(0.5, {}), (0.0, {"flip": True}), (0.0, {"crop_padding": 3}), (0.0, {"erase_prob": 0.9})],
    ids=["dropout", "flip", "crop", "erase"],
)
def test_randomness_is_a_function_of_the_run_and_the_step(batch, dropout, inputs):
    _, state, step = prepare(dropout, **inputs)
    # Large classifier weights, so that what dropout and flips change shows in the loss.
    state = state.replace(
        params={**state.params, "classifier": jax.tree.map(lambda x: x * 1e3, state.params["classifier"])}
    )
    loss = {
        name: float(step(changed, batch)[1]["loss"])
        for name, changed in {
            "this": state,
            "again": state,
            "next step": state.replace(step=state.step + 1),
            "another run": state.replace(rng=jax.random.key(9)),
        }.items()
    }
    assert loss["this"] == loss["again"]
    assert len({loss["this"], loss["next step"], loss["another run"]}) == 3
