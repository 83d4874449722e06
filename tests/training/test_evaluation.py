"""Embedding many images, and what is measured of a model."""

import dataclasses
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax import correlation
from svdnet_jax.config.schema import Config, Data, Eval, Model
from svdnet_jax.data.types import labels
from svdnet_jax.distributed.mesh import create_mesh
from svdnet_jax.errors import TrainingDiverged
from svdnet_jax.models.resnet import MiniResNet
from svdnet_jax.models.svdnet import Outputs, create_model
from svdnet_jax.retrieval import evaluate
from svdnet_jax.retrieval.embed import apply_in_batches
from svdnet_jax.training.embedding import make_eval_fn
from svdnet_jax.training.evaluation import _fit, embed_split, evaluate_model
from svdnet_jax.training.fingerprint import fingerprints, model_fingerprint
from svdnet_jax.training.state import decorrelate_state, init_state

pytestmark = pytest.mark.unoptimized

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
    found = apply_in_batches(infer, images, 4)
    np.testing.assert_array_equal(found["sum"], images.sum(axis=(1, 2, 3)).astype(np.float32))
    np.testing.assert_array_equal(found["first"], images[:, 0, 0])


@pytest.mark.parametrize("mode", ["auto", "pmap"])
@pytest.mark.parametrize("count", [3, 8, 27])
def test_devices_share_images_that_do_not_divide_among_them(mode, count, dataset):
    devices = create_mesh(Config(parallel=mode))
    model = create_model(
        Model(backbone="micro", embedding_dim=6), 12, {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
    )
    state = init_state(model, SIZE, seed=3)
    images = dataset.train.images[:count]
    expected = apply_in_batches(partial(make_eval_fn(model, SIZE), state.variables), images, 8)
    found = apply_in_batches(partial(make_eval_fn(model, SIZE, devices), devices.replicate(state.variables)), images, 8)
    assert len(found.embedding) == count
    # One image on a device or eight: the same sums in another order.
    chex.assert_trees_all_close(found, expected, atol=1e-5)


def test_fit_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)) + 5
    loss, accuracy = _fit(logits, np.array([0, 1]))
    # Logits are float32.
    assert loss == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2, rel=1e-6)
    assert accuracy == 0.5
    assert _fit(np.array([[1e4, -1e4]], np.float32), np.array([1]))[0] == pytest.approx(2e4)


def test_a_measurement_is_made_of_its_parts(dataset):
    model = create_model(
        Model(backbone="micro", embedding_dim=6), 12, {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
    )
    state = init_state(model, SIZE, seed=3)
    infer = make_eval_fn(model, SIZE)
    settings = Eval(metric="cosine", cross_camera=False, batch_size=32, train_images=10)
    found = evaluate_model(state, infer=infer, dataset=dataset, settings=settings)
    query, gallery = (
        embed_split(partial(infer, state.variables), s, settings) for s in (dataset.query, dataset.gallery)
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


@pytest.mark.parametrize(("value", "said"), [(np.inf, "finite"), (0.0, "cosine")])
def test_features_that_cannot_be_ranked_are_divergence(value, said, dataset):
    """A study then takes another rate, in place of an end with a traceback."""

    def infer(variables, images):
        features = np.ones((len(images), 6), np.float32)
        return Outputs(features, features, features * value, np.ones((len(images), 12), np.float32))

    model = create_model(
        Model(backbone="micro", embedding_dim=6), 12, {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
    )
    settings = Eval(metric="cosine", cross_camera=False, batch_size=32, train_images=10)
    with pytest.raises(TrainingDiverged, match=f"(?s)after step 0 the network gives .*{said}"):
        evaluate_model(init_state(model, SIZE, seed=3), infer=infer, dataset=dataset, settings=settings)


def test_another_eigenlayer_is_measured_from_the_features_at_hand(dataset):
    """As by the network, and without embedding any image."""
    model = create_model(
        Model(backbone="micro", embedding_dim=6), 12, {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
    )
    state = init_state(model, SIZE, seed=3)
    state = state.with_classifier(jax.random.normal(jax.random.key(1), (6, 12)))
    infer, settings = make_eval_fn(model, SIZE), Eval(batch_size=32, train_images=10)
    measure = partial(evaluate_model, dataset=dataset, settings=settings)
    before = measure(state, infer=infer)
    changed = decorrelate_state(state, "qd").with_classifier(jax.random.normal(jax.random.key(2), (6, 12)))

    def refuse(*_):
        raise AssertionError("an image was embedded")

    found, expected = measure(changed, infer=refuse, before=before), measure(changed, infer=infer)
    assert found.embedding.metrics() == pytest.approx(expected.embedding.metrics(), abs=0.02)
    assert found.embedding.metrics() != before.embedding.metrics()
    assert found.pooled is before.pooled
    assert (found.loss, found.correlation) == pytest.approx((expected.loss, expected.correlation), rel=1e-4)
    for name in ("embedding", "pooled"):
        for side in ("query", "gallery"):
            sides = (getattr(each.features, side)[name].features for each in (found, expected))
            chex.assert_trees_all_close(*sides, rtol=1e-4, atol=1e-6)


def variables():
    model = create_model(
        Model(backbone="micro", embedding_dim=6), 12, {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
    )
    return init_state(model, SIZE, seed=3).variables


def test_a_fingerprint_is_of_every_number_that_an_embedding_depends_on():
    tree, config = variables(), Config()
    known = fingerprints(tree, config)
    assert re.fullmatch("[0-9a-f]{16}-embedding", known["embedding"])
    assert re.fullmatch("[0-9a-f]{16}-pooled", known["pooled"])
    leaves, structure = jax.tree.flatten(tree)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    for i, path in enumerate(paths):
        changed = np.array(leaves[i])
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        found = fingerprints(jax.tree.unflatten(structure, [*leaves[:i], changed, *leaves[i + 1 :]]), config)
        differs = {kind for kind in known if found[kind] != known[kind]}
        unused = {"classifier": {"embedding", "pooled"}, "eigenlayer": {"pooled"}}
        expected = set(known) - next((kinds for name, kinds in unused.items() if name in path), set())
        assert differs == expected, path
    assert sum("batch_stats" in path or "pixels" in path for path in paths) > 4


def test_a_fingerprint_is_of_the_numbers_wherever_they_lie():
    tree, config = variables(), Config()
    known = model_fingerprint(tree, "embedding", config)
    on_host = {name: jax.device_get(tree[name]) for name in reversed(tree)}
    elsewhere = jax.device_put(tree, jax.devices()[1])
    assert model_fingerprint(on_host, "embedding", config) == known
    assert model_fingerprint(elsewhere, "embedding", config) == known
    same_bytes = {**tree, "pixels": jax.tree.map(lambda leaf: np.asarray(leaf).view(np.int32), tree["pixels"])}
    assert model_fingerprint(same_bytes, "embedding", config) != known


@pytest.mark.parametrize(
    "change",
    [
        {"data": Data(height=128)},
        {"model": Model(layout="torchvision")},
        {"model": Model(last_stride=1)},
        {"model": Model(backbone="resnet18")},
    ],
)
def test_a_fingerprint_is_of_the_graph_too(change):
    tree = {"params": {"backbone": {"kernel": np.ones(3, np.float32)}}}
    known = fingerprints(tree, Config())
    found = fingerprints(tree, dataclasses.replace(Config(), **change))
    assert all(found[kind] != known[kind] for kind in known)


def test_embeddings_that_are_kept_carry_the_fingerprint(dataset):
    def apply(images):
        sums = images.astype(jnp.float32).sum(axis=(1, 2))
        return Outputs(sums, sums, sums, sums)

    kept = {"models": {"pooled": "12ab-pooled"}, "people": {int(dataset.query.pids[0]): "anna"}}
    found = embed_split(apply, dataset.query, Eval(batch_size=64), **kept)
    assert (found["pooled"].model, found["embedding"].model) == ("12ab-pooled", "")
    assert found["pooled"].person(0) == "anna"
