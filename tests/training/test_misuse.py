"""What a training loop of one's own can get wrong is refused with the remedy, before anything is trained."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svdnet_jax.config.schema import Model, Optimizer
from svdnet_jax.data.batches import Batch
from svdnet_jax.distributed.mesh import AXIS
from svdnet_jax.models.svdnet import create_model, with_sync_batch_norm
from svdnet_jax.training.embedding import make_eval_fn
from svdnet_jax.training.losses import softmax
from svdnet_jax.training.optimizer import make_optimizer, with_learning_rate
from svdnet_jax.training.preprocess import AugmentConfig, make_preprocess
from svdnet_jax.training.state import begin_phase, init_state
from svdnet_jax.training.step import train_step

pytestmark = pytest.mark.usefixtures("as_user")
SIZE, CLASSES, RATE = (8, 8), 3, 0.1
PREPROCESS = make_preprocess(AugmentConfig(SIZE))
SETTINGS = Optimizer()


class Mine(nn.Module):
    """A backbone of one's own, with a BatchNorm that may know of the axis."""

    heeds: bool = True
    frozen: bool = False
    axis_name: str | None = None
    channels: int = 4

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(self.channels, (3, 3), strides=4, use_bias=False)(x)
        norm = nn.BatchNorm(axis_name=self.axis_name if self.heeds else None, name="norm")
        return norm(x, use_running_average=self.frozen or not train)


def network(**options):
    return create_model(
        Model(backbone="mine", embedding_dim=2, dropout=0.0), CLASSES, {"mine": lambda config: Mine(**options)}
    )


MODEL = network()
FRESH = init_state(MODEL, SIZE, 0)


def optimizer_of(**phase):
    return make_optimizer(FRESH.params, settings=SETTINGS, **phase)


OPTIMIZER = optimizer_of()
STATE = begin_phase(FRESH, OPTIMIZER, RATE, phase=0, correlation=0.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)
BATCH = Batch(jnp.asarray(IMAGES), jnp.array([0, 1, 2, 0], jnp.int32))


def shaped(state, batch=BATCH, model=MODEL, optimizer=OPTIMIZER, **options):
    """The step followed through its shapes, which is all that its refusals look at."""
    step = partial(train_step, model=model, optimizer=optimizer, preprocess=PREPROCESS, **options)
    return jax.eval_shape(step, state, batch)


def test_a_begun_phase_trains_at_its_rate():
    after, metrics = jax.jit(partial(train_step, model=MODEL, optimizer=OPTIMIZER, preprocess=PREPROCESS))(STATE, BATCH)
    moved = jnp.abs(after.params["classifier"]["kernel"] - STATE.params["classifier"]["kernel"]).max()
    assert float(moved) > 1e-5
    assert bool(jnp.isfinite(metrics["loss"]))
    assert float(after.opt_state.hyperparams["learning_rate"]) == np.float32(RATE)


def test_a_begun_state_has_the_types_of_the_next_one():
    """So that a loop compiles once, whether or not it sets the rate itself."""
    chex.assert_trees_all_equal_shapes_and_dtypes(shaped(STATE)[0].opt_state, STATE.opt_state)
    rated = STATE.replace(opt_state=with_learning_rate(STATE.opt_state, 0.5))
    chex.assert_trees_all_equal_shapes_and_dtypes(rated.opt_state, STATE.opt_state)


def test_a_phase_that_was_not_begun_is_refused():
    with pytest.raises(ValueError, match="the phase was not begun. Start each phase with .*begin"):
        shaped(FRESH)
    with pytest.raises(ValueError, match=r"no learning rate yet. Start the phase .*learning_rate=0.1"):
        shaped(FRESH.replace(opt_state=OPTIMIZER.init(FRESH.params)))
    with pytest.raises(ValueError, match="no learning rate yet"):
        OPTIMIZER.update(FRESH.params, OPTIMIZER.init(FRESH.params), FRESH.params)
    with pytest.raises(TypeError, match="learning_rate"):
        begin_phase(FRESH, OPTIMIZER)


def test_the_state_of_another_optimizer_is_refused():
    for other in (optimizer_of(freeze=("eigenlayer/*",)), optimizer_of(lr_multipliers=(("classifier/*", 2.0),))):
        with pytest.raises(ValueError, match="of another phase or network"):
            shaped(STATE, optimizer=other)
    wider = create_model(
        Model(backbone="mine", embedding_dim=2, dropout=0.0), CLASSES + 1, {"mine": lambda config: Mine()}
    )
    with pytest.raises(ValueError, match="of another phase or network"):
        shaped(jax.eval_shape(lambda: init_state(wider, SIZE, 0)).replace(opt_state=STATE.opt_state), model=wider)


def test_an_optimizer_of_ones_own_needs_no_rate():
    mine = optax.sgd(0.1)
    assert shaped(begin_phase(FRESH, mine, 0.0, phase=0, correlation=0.0), optimizer=mine)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / np.float32(255), r"uint8, RGB in 0 .. 255; found float32. .*multiplied by 255 and rounded"),
        (IMAGES.astype(np.int32), "uint8.*found int32"),
        (IMAGES.transpose(0, 3, 1, 2), r"channels first: give images.transpose\(0, 2, 3, 1\)"),
        (IMAGES[..., :1], "np.repeat"),
        (IMAGES[0], "expected images"),
    ],
)
def test_images_that_are_no_bytes_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        shaped(STATE, Batch(jnp.asarray(images), BATCH.labels))
    with pytest.raises(ValueError, match=message):
        make_eval_fn(MODEL, SIZE)(STATE.variables, images)


@pytest.mark.parametrize("labels", [np.zeros(4, np.float32), np.zeros(1, np.int32), np.zeros((4, 1), np.int32)])
def test_labels_that_are_no_labels_are_refused(labels):
    with pytest.raises(ValueError, match="expected labels as whole numbers 0 .. K-1, one for each of 4 images"):
        shaped(STATE, Batch(BATCH.images, jnp.asarray(labels)))


@pytest.mark.parametrize(("labels", "known"), [([0, 2], True), ([0, 3], False), ([-1, 0], False)])
def test_a_label_beyond_the_classes_shows_in_the_loss(labels, known):
    loss = softmax(jnp.zeros((2, CLASSES)), jnp.array(labels), 0.1)
    assert float(loss) == pytest.approx(np.log(CLASSES)) if known else np.isnan(loss)


def test_batches_that_have_no_parts_are_refused():
    for options, unit in (({"grad_accum_steps": 3}, 3), ({"grad_accum_steps": 2, "num_instances": 4}, 8)):
        with pytest.raises(ValueError, match=f"4 images cannot .* multiple of {unit}"):
            shaped(STATE, **options)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "multiplied by 255"),
        ((1.0, 2.0, 3.0), (1.0, 0.0, 1.0), "1 or more"),
        ((1.0, 2.0), (1.0, 1.0, 1.0), r"shape \(2,\)"),
        (np.zeros((4, 8, 3)), (1.0, 1.0, 1.0), r"input, \(8, 8, 3\)"),
    ],
)
def test_pixel_statistics_of_other_images_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        init_state(MODEL, SIZE, 0, mean, std)


def test_images_of_another_size_than_the_mean_image_are_refused():
    pixels = {"mean": jnp.zeros((*SIZE, 3)), "std": jnp.ones((1, 1, 3))}
    variables = FRESH.replace(pixels=pixels).variables
    for shape in ((2, 1, 8, 3), (2, 16, 8, 3)):
        with pytest.raises(ValueError, match=r"expected images \(N, 8, 8, 3\)"):
            jax.eval_shape(partial(MODEL.apply, train=False), variables, jnp.zeros(shape))
    # One channel would be spread to three by the mean colour.
    with pytest.raises(ValueError, match="expected images"):
        jax.eval_shape(partial(MODEL.apply, train=False), FRESH.variables, jnp.zeros((2, 8, 8, 1)))


def mapped(model):
    """The step that two devices take by themselves, followed through its shapes."""
    step = partial(train_step, model=model, optimizer=OPTIMIZER, preprocess=PREPROCESS, axis_name=AXIS)
    halves = jax.tree.map(lambda rows: rows.reshape(2, 2, *rows.shape[1:]), BATCH)
    return jax.eval_shape(jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None), STATE, halves)


def test_statistics_of_one_device_are_refused_under_pmap():
    heedless = network(heeds=False)
    for model, where in (
        (with_sync_batch_norm(heedless, AXIS), "backbone/norm"),
        (MODEL, "backbone/norm"),
        (with_sync_batch_norm(MODEL, "other"), "backbone/norm"),
    ):
        with pytest.raises(ValueError, match=f"BatchNorm {where} takes the statistics of one device.*with_sync_b"):
            mapped(model)
    assert mapped(with_sync_batch_norm(MODEL, AXIS))
    # Stored statistics are those of nobody in particular.
    assert mapped(network(heeds=False, frozen=True))
