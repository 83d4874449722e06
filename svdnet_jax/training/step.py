"""The training step, and the network at rest, as pure functions of the state."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from svdnet_jax.config import Loss, Run
from svdnet_jax.data.augment import random_crop, random_erase, random_flip
from svdnet_jax.data.pipeline import Batch, resize
from svdnet_jax.models.svdnet import Outputs, SVDNet
from svdnet_jax.training.losses import batch_hard_triplet, softmax
from svdnet_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Infer = Callable[[PyTree[Array], UInt8[Array, "N H W 3"]], Outputs]


class Inputs(NamedTuple):
    """What happens to images before the network; compiled into the step."""

    size: tuple[int, int]
    """Height and width that the network sees."""
    flip: bool = False
    crop_padding: int = 0
    erase: float = 0.0


def inputs_of(config: Run) -> Inputs:
    """The part of the settings that `Inputs` holds."""
    data = config.data
    return Inputs((data.height, data.width), data.flip, data.crop_padding, data.erase)


def augment(
    key: PRNGKeyArray, images: UInt8[Array, "N h w 3"], inputs: Inputs, fill: Float[Array, "#H #W 3"]
) -> Float[Array, "N H W 3"]:
    """Training images as the network sees them, in [0, 255]: flipped, resized, shifted, partly blotted out."""
    flip_key, crop_key, erase_key = jax.random.split(key, 3)
    x = resize(images, inputs.size)
    if inputs.flip:
        # As Caffe does: a mean image is subtracted where the camera saw the pixel, and mirrored with it.
        x = random_flip(flip_key, x - fill[None]) + fill[None] if fill.shape[1] > 1 else random_flip(flip_key, x)
    if inputs.crop_padding:
        x = random_crop(crop_key, x, inputs.crop_padding, fill)
    return random_erase(erase_key, x, inputs.erase, fill) if inputs.erase else x


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: SVDNet,
    optimizer: optax.GradientTransformation,
    inputs: Inputs,
    loss: Loss,
) -> tuple[TrainState, Metrics]:
    """One optimiser step on the softmax loss (paper, section 3.1), with a triplet loss if wanted.

    Returns:
        The state after it, and loss and accuracy of the batch before it.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    x = augment(augment_key, batch.images, inputs, state.pixels["mean"])

    def loss_fn(params: PyTree[Array]) -> tuple[Float[Array, ""], tuple[PyTree[Array], Outputs]]:
        outputs, updates = model.apply(
            {**state.variables, "params": params},
            x,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        total = softmax(outputs.logits, batch.labels, loss.smoothing)
        if loss.triplet != "none":
            margin = loss.margin if loss.triplet == "margin" else None
            total += batch_hard_triplet(outputs.features, batch.labels, margin)
        return total, (updates.get("batch_stats", {}), outputs)

    (value, (batch_stats, outputs)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    correct = jnp.argmax(outputs.logits, axis=-1) == batch.labels
    after = state.replace(
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        step=state.step + 1,
        cursor=state.cursor.replace(step=state.cursor.step + 1),
    )
    return after, {"loss": value, "accuracy": correct.astype(jnp.float32).mean()}


def make_train_step(model: SVDNet, optimizer: optax.GradientTransformation, inputs: Inputs, loss: Loss) -> TrainStep:
    """`train_step` jitted, its state donated: use the one that comes back."""
    step = partial(train_step, model=model, optimizer=optimizer, inputs=inputs, loss=loss)
    return jax.jit(step, donate_argnums=0)


def make_infer(model: SVDNet, size: tuple[int, int]) -> Infer:
    """The jitted network without dropout and augmentation, from variables and bytes to `Outputs`.

    Args:
        model: The network.
        size: Height and width that it sees.
    """

    def infer(variables: PyTree[Array], images: UInt8[Array, "N H W 3"]) -> Outputs:
        return cast(Outputs, model.apply(variables, resize(images, size), train=False))

    return jax.jit(infer)
