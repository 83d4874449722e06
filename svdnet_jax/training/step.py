"""The training step, and the network at rest, as pure functions of the state."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree, UInt8

from svdnet_jax.config import Run
from svdnet_jax.data.pipeline import Batch, normalise, random_flip
from svdnet_jax.models.svdnet import Outputs, SVDNet
from svdnet_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Infer = Callable[[PyTree[Array], UInt8[Array, "N H W 3"]], Outputs]


class Inputs(NamedTuple):
    """What happens to images before the network; compiled into the step."""

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool


def inputs_of(config: Run) -> Inputs:
    """The part of the settings that `Inputs` holds."""
    data = config.data
    return Inputs((data.height, data.width), config.model.mean, config.model.std, data.flip)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: SVDNet,
    optimizer: optax.GradientTransformation,
    inputs: Inputs,
) -> tuple[TrainState, Metrics]:
    """One optimiser step on the softmax loss (paper, section 3.1).

    Returns:
        The state after it, and loss and accuracy of the batch before it.
    """
    flip_key, dropout_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    images = random_flip(flip_key, batch.images) if inputs.flip else batch.images
    x = normalise(images, inputs.size, inputs.mean, inputs.std)

    def loss_fn(params: PyTree[Array]) -> tuple[Float[Array, ""], tuple[PyTree[Array], Outputs]]:
        outputs, updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch.labels).mean()
        return loss, (updates.get("batch_stats", {}), outputs)

    (loss, (batch_stats, outputs)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    correct = jnp.argmax(outputs.logits, axis=-1) == batch.labels
    after = state.replace(
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        step=state.step + 1,
        cursor=state.cursor.replace(step=state.cursor.step + 1),
    )
    return after, {"loss": loss, "accuracy": correct.astype(jnp.float32).mean()}


def make_train_step(model: SVDNet, optimizer: optax.GradientTransformation, inputs: Inputs) -> TrainStep:
    """`train_step` jitted, its state donated: use the one that comes back."""
    step = partial(train_step, model=model, optimizer=optimizer, inputs=inputs)
    return jax.jit(step, donate_argnums=0)


def make_infer(model: SVDNet, inputs: Inputs) -> Infer:
    """The jitted network without dropout and augmentation, from variables and bytes to `Outputs`."""

    def infer(variables: PyTree[Array], images: UInt8[Array, "N H W 3"]) -> Outputs:
        x = normalise(images, inputs.size, inputs.mean, inputs.std)
        return cast(Outputs, model.apply(variables, x, train=False))

    return jax.jit(infer)
