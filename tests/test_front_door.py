"""What a researcher imports: these names and no others, imported when they are used; misuse is told its remedy."""

import subprocess
import sys
from functools import partial
from importlib import import_module

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from svdnet_jax import decorrelate
from svdnet_jax.config.schema import Phase
from svdnet_jax.errors import ConfigError
from svdnet_jax.models import SVDNet, create_backbone
from svdnet_jax.runs import load_run, train
from svdnet_jax.training import (
    AugmentConfig,
    Batch,
    begin_phase,
    decorrelate_state,
    embed,
    init_state,
    make_optimizer,
    make_preprocess,
    train_step,
)

pytestmark = [pytest.mark.unoptimized, pytest.mark.usefixtures("as_user")]

NAMES = {
    "svdnet_jax": "__version__ correlation data decorrelate gram match_columns models retrieval runs spectrum training",
    "svdnet_jax.models": "Outputs SVDNet create_backbone load_pretrained with_pretrained",
    "svdnet_jax.training": "AugmentConfig Batch TrainState begin_phase decorrelate_state embed init_state make_eval_fn "
    "make_loss_fn make_optimizer make_preprocess softmax_loss train_step with_learning_rate",
    "svdnet_jax.data": "Dataset Split load_dataset pk_batches shuffle_batches",
    "svdnet_jax.retrieval": "Embeddings Index Metric Report Rerank build_index evaluate evaluate_single_shot search",
    "svdnet_jax.runs": "Config PRESETS TrainedRun load_run train",
}
SIZE = (16, 8)
IMAGES = np.zeros((4, *SIZE, 3), np.uint8)
LABELS = np.arange(4) % 2


class Plain(nn.Module):
    """A backbone of one's own: features, no map."""

    channels: int = 6

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.channels)(x.reshape(len(x), -1))


@pytest.mark.parametrize("package", NAMES)
def test_the_public_names_are_these(package):
    module = import_module(package)
    assert sorted(module.__all__) == NAMES[package].split()
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_the_package_does_not_import_jax():
    program = (
        "import sys, svdnet_jax, svdnet_jax.training, svdnet_jax.runs, svdnet_jax.data; print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def mine():
    model = SVDNet(backbone=Plain(), embedding_dim=4, num_classes=2)
    return model, init_state(model, SIZE, seed=0)


def step_of(model, optimizer, **options):
    return partial(
        train_step, model=model, optimizer=optimizer, preprocess=make_preprocess(AugmentConfig(SIZE)), **options
    )


def test_a_loss_that_is_no_scalar_is_refused(mine):
    model, state = mine
    optimizer = make_optimizer(state.params)
    step = step_of(model, optimizer, loss_fn=lambda outputs, labels, params, maps: outputs.logits.sum(axis=1))
    with pytest.raises(ValueError, match=r"loss_fn returned float32 of shape \(4,\); expected one float: take"):
        jax.eval_shape(step, begin_phase(state, optimizer, 0.1), Batch(IMAGES, LABELS))


def test_a_backbone_without_train_is_refused():
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x

    with pytest.raises(ValueError, match="Bare.__call__ takes no argument train; a backbone is called as"):
        init_state(SVDNet(backbone=Bare(), embedding_dim=2, num_classes=2), SIZE, seed=0)


def test_no_images_are_refused(mine):
    with pytest.raises(ValueError, match="expected one image or more and batch_size 1 or more, found 0 and 256"):
        embed(*mine, IMAGES[:0], SIZE)


@pytest.mark.parametrize("shape", ["(len(x),)", "(3, 2)", "(len(x), 2, 2)"])
def test_a_backbone_that_gives_something_else_is_refused(shape):
    class Strange(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return jnp.zeros(eval(shape))

    with pytest.raises(ValueError, match="the backbone returned the shape .*expected a feature map"):
        init_state(SVDNet(backbone=Strange(), embedding_dim=2, num_classes=2), SIZE, seed=0)


def test_a_stack_of_states_is_trained_and_decorrelated_like_each_by_itself(mine):
    model, _ = mine
    states = [init_state(model, SIZE, seed=seed) for seed in range(3)]
    optimizer = make_optimizer(states[0].params)
    states = [begin_phase(state, optimizer, 0.1) for state in states]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    step = step_of(model, optimizer)
    together, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(stacked, Batch(IMAGES, LABELS))
    replaced = decorrelate_state(together).eigenlayer
    for number, state in enumerate(states):
        alone, _ = jax.jit(step)(state, Batch(IMAGES, LABELS))
        np.testing.assert_allclose(together.eigenlayer[number], alone.eigenlayer, atol=1e-6)
        np.testing.assert_array_equal(replaced[number], decorrelate(together.eigenlayer[number], match=True))


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_decorrelate_says_what_to_do_where_it_is_traced(transform):
    with pytest.raises(ValueError, match=r"W is traced.*outside of jit, grad, vmap and pmap; for many.*stack"):
        transform(decorrelate)(jnp.ones((2, 4, 2)) if transform is jax.vmap else jnp.ones((4, 2)))


def test_backbones_by_name():
    assert create_backbone("resnet18", last_stride=1).channels == 512
    with pytest.raises(ConfigError, match="no backbone 'vgg'; choose one of mini, resnet18"):
        create_backbone("vgg")


def test_a_run_trains_arrays_and_a_network_of_ones_own_and_reads_them_back(tiny, dataset, tmp_path):
    """With checkpoints, log and report; the network is not one of ours, so it is given again to read the run."""
    from dataclasses import replace

    rri = replace(tiny.rri, rounds=1, restraint=Phase(2, freeze=("eigenlayer/*",)), relaxation=Phase(2))
    config = replace(tiny, base=Phase(4), rri=rri, log_every=2, checkpoint_every=2, out=tmp_path / "mine")
    model = SVDNet(backbone=Plain(), embedding_dim=4, num_classes=12)
    folder = train(config, Console(quiet=True), dataset=dataset, model=model)
    assert (folder / "report.html").exists()
    run = load_run(folder, model=model)
    features = run.embed(dataset.query.images)
    assert features.shape == (len(dataset.query), 4)
    np.testing.assert_array_equal(features, embed(model, run.state, dataset.query.images, (32, 16)))
    with pytest.raises(ValueError, match="expected 'embedding' or 'pooled'"):
        run.embed(dataset.query.images, name="logits")
    with pytest.raises(ConfigError, match="model has 3 classes; expected 12, one for each training identity"):
        train(replace(config, out=tmp_path / "other"), dataset=dataset, model=model.clone(num_classes=3))
