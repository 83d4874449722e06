"""The training step, and the network at rest, as pure functions of the state."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from svdnet_jax.config.schema import Loss, Penalty, PhaseKind, Run
from svdnet_jax.data.augment import WHOLE, Share, random_crop, random_erase, random_flip
from svdnet_jax.data.loader import Batch, resize
from svdnet_jax.distributed.mesh import Devices
from svdnet_jax.models.svdnet import Outputs, SVDNet
from svdnet_jax.training.checks import check_images, check_labels, check_parts, synchronised_only
from svdnet_jax.training.losses import batch_hard_triplet, feature_penalty, softmax, weight_penalty
from svdnet_jax.training.optimizer import check_begun
from svdnet_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]
Infer = Callable[[PyTree[Array], UInt8[Array | np.ndarray, "N H W 3"]], Outputs]


class Inputs(NamedTuple):
    """What happens to images before the network; compiled into the step."""

    size: tuple[int, int]
    """Height and width that the network sees."""
    flip: bool = False
    crop_padding: int = 0
    erase: float = 0.0


class Recipe(NamedTuple):
    """What is compiled into the step beside network and optimiser."""

    inputs: Inputs
    loss: Loss = Loss()
    parts: int = 1
    """Parts in which the batch goes through the network."""
    together: int = 1
    """Images in a row that stay in one part: those of an identity."""


def inputs_of(config: Run) -> Inputs:
    """The part of the settings that `Inputs` holds."""
    data = config.data
    return Inputs((data.height, data.width), data.flip, data.crop_padding, data.erase)


def recipe_of(config: Run, kind: PhaseKind) -> Recipe:
    """The part of the settings that `Recipe` holds, for a kind of phase."""
    loss = config.loss
    if kind == "base" and loss.penalty.begin == "rounds":
        loss = replace(loss, penalty=Penalty())
    return Recipe(inputs_of(config), loss, config.optimizer.accumulate, max(config.data.per_identity, 1))


def augment(
    key: PRNGKeyArray,
    images: UInt8[Array, "N h w 3"],
    inputs: Inputs,
    fill: Float[Array, "#H #W 3"],
    share: Share = WHOLE,
) -> Float[Array, "N H W 3"]:
    """Training images as the network sees them, in [0, 255]: flipped, resized, shifted, partly blotted out."""
    flip_key, crop_key, erase_key = jax.random.split(key, 3)
    x = resize(images, inputs.size)
    if inputs.flip:
        # As Caffe does: a mean image is subtracted where the camera saw the pixel, and mirrored with it.
        back = fill[None] if fill.shape[1] > 1 else jnp.zeros((1, 1, 1, 1))
        x = random_flip(flip_key, x - back, share) + back
    if inputs.crop_padding:
        x = random_crop(crop_key, x, inputs.crop_padding, fill, share)
    return random_erase(erase_key, x, inputs.erase, fill, share) if inputs.erase else x


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: SVDNet,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    axis: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one optimiser step on the softmax loss (paper, section 3.1), with triplets and penalties if wanted.

    Args:
        state: Before it, its phase begun by `svdnet_jax.training.state.begin`.
        batch: All of its images; with an axis, those of this device.
        model: The network; with an axis, as `synchronised` over it.
        optimizer: Of the phase.
        recipe: What else is compiled in.
        axis: Name of the axis that `jax.pmap` maps the step over, which must be given there, as gradients are averaged
            along it; none where the compiler shares out the batch.

    Returns:
        The state after it, and loss and accuracy of the batch before it. The loss is NaN where a label is not of
        0 .. K-1.

    Raises:
        ValueError: Images are no bytes (N, H, W, 3), labels no whole numbers, the batch cannot be divided into parts,
            the phase was not begun with this optimiser, or a BatchNorm takes the statistics of one device only.
    """
    check_images(batch.images)
    check_labels(batch.labels, batch.images)
    check_parts(len(batch.labels), recipe.parts, recipe.together)
    check_begun(state.opt_state, optimizer, state.params)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    share = Share(jax.lax.axis_size(axis), jax.lax.axis_index(axis)) if axis else WHOLE
    x = augment(augment_key, batch.images, recipe.inputs, state.pixels["mean"], share)
    if axis:
        dropout_key = jax.random.fold_in(dropout_key, share.number)
    look = partial(_look, state, model=model, loss=recipe.loss, axis=axis)
    with synchronised_only(axis):
        batch_stats, found = _in_parts(look, state.batch_stats, Batch(x, batch.labels), dropout_key, recipe)
    gradients, metrics = jax.lax.pmean(found, axis) if axis else found
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    after = state.replace(
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        step=state.step + 1,
        cursor=state.cursor.replace(step=state.cursor.step + 1),
    )
    return after, metrics


Found = tuple[PyTree[Array], Metrics]
"""Gradients, and loss and accuracy."""


def _look(
    state: TrainState,
    batch_stats: PyTree[Array],
    batch: Batch,
    dropout_key: PRNGKeyArray,
    *,
    model: SVDNet,
    loss: Loss,
    axis: str | None,
) -> tuple[PyTree[Array], Found]:
    """Statistics after a look at augmented images, and what was found in them."""

    def loss_fn(params: PyTree[Array]) -> tuple[Float[Array, ""], tuple[PyTree[Array], Outputs]]:
        outputs, updates = model.apply(
            {**state.variables, "params": params, "batch_stats": batch_stats},
            batch.images,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats", "intermediates"] if loss.penalty.features else ["batch_stats"],
        )
        total = softmax(outputs.logits, batch.labels, loss.smoothing)
        if loss.triplet != "none":
            margin = loss.margin if loss.triplet == "margin" else None
            total += batch_hard_triplet(outputs.features, batch.labels, margin, axis)
        if loss.penalty.kind != "none":
            total += weight_penalty(params["eigenlayer"]["kernel"], loss.penalty)
        if loss.penalty.features:
            total += feature_penalty(updates["intermediates"]["maps"][0], loss.penalty)
        return total, (updates.get("batch_stats", {}), outputs)

    (value, (batch_stats, outputs)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    correct = jnp.argmax(outputs.logits, axis=-1) == batch.labels
    return batch_stats, (gradients, {"loss": value, "accuracy": correct.astype(jnp.float32).mean()})


def _in_parts(
    look: Callable[..., tuple[PyTree[Array], Found]],
    batch_stats: PyTree[Array],
    batch: Batch,
    key: PRNGKeyArray,
    recipe: Recipe,
) -> tuple[PyTree[Array], Found]:
    """What `_look` finds in a batch, looked at in parts; gradients, loss and accuracy are means over them."""
    parts = recipe.parts
    if parts == 1:
        return look(batch_stats, batch, key)

    def split(rows: Array) -> Array:
        # Taken in turn, so that each device has some of each part where they share the batch.
        groups = rows.reshape(-1, parts, recipe.together, *rows.shape[1:]).swapaxes(0, 1)
        return groups.reshape(parts, -1, *rows.shape[1:])

    def one(carry: Any, part: tuple[Array, Batch]) -> tuple[Any, None]:
        batch_stats, sums = carry
        number, images = part
        batch_stats, found = look(batch_stats, images, jax.random.fold_in(key, number))
        return (batch_stats, jax.tree.map(jnp.add, sums, found)), None

    numbered = jnp.arange(parts), jax.tree.map(split, batch)
    shapes = jax.eval_shape(look, batch_stats, jax.tree.map(lambda rows: rows[0], numbered[1]), key)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (batch_stats, sums), _ = looped(one, (batch_stats, zeros), numbered)
    return batch_stats, jax.tree.map(lambda total: total / parts, sums)


def looped(step: Callable[..., tuple[Any, Any]], carry: Any, over: Any) -> tuple[Any, Any]:
    """`jax.lax.scan`; written out on a CPU, where XLA's convolutions are twenty times as slow inside of a loop."""
    if jax.default_backend() != "cpu":
        return jax.lax.scan(step, carry, over)
    found = []
    for number in range(len(jax.tree.leaves(over)[0])):
        carry, out = step(carry, jax.tree.map(lambda rows: rows[number], over))  # noqa: B023
        found.append(out)
    return carry, jax.tree.map(lambda *rows: jnp.stack(rows), *found)


def make_infer(model: SVDNet, size: tuple[int, int], devices: Devices | None = None) -> Infer:
    """Returns the jitted network without dropout and augmentation, from variables and bytes to `Outputs`.

    It raises a ValueError where images are no bytes (N, H, W, 3).

    Args:
        model: The network.
        size: Height and width that it sees.
        devices: Share the images, a multiple of their number, among themselves, and each has all outputs. Not given:
            wherever the variables are.
    """

    def infer(variables: PyTree[Array], images: UInt8[Array, "N H W 3"]) -> Outputs:
        check_images(images)
        return cast(Outputs, model.apply(variables, resize(images, size), train=False))

    if devices is None:
        return jax.jit(infer)
    shared = jax.jit(infer, out_shardings=devices.everywhere)
    return lambda variables, images: shared(variables, devices.rows(np.asarray(images)))


def make_infer_resized(model: SVDNet) -> Callable[[PyTree[Array], Float[Array | np.ndarray, "N H W 3"]], Outputs]:
    """Returns the same for images that were brought to the network's size before: pixels in [0, 255], not rounded."""
    return jax.jit(lambda variables, pixels: cast(Outputs, model.apply(variables, pixels, train=False)))
