"""The training step, a pure function of the state and a batch. Loss and preprocessing are injected."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from svdnet_jax.data.augment import WHOLE, Share
from svdnet_jax.data.batches import Batch
from svdnet_jax.models.svdnet import Outputs, SVDNet
from svdnet_jax.training.checks import check_grad_accum, check_images, check_labels, check_loss, require_sync_batch_norm
from svdnet_jax.training.losses import LossFn, softmax_loss
from svdnet_jax.training.optimizer import check_begun
from svdnet_jax.training.preprocess import Preprocess
from svdnet_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: SVDNet,
    optimizer: optax.GradientTransformation,
    preprocess: Preprocess,
    loss_fn: LossFn = softmax_loss,
    grad_accum_steps: int = 1,
    num_instances: int = 1,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one optimizer step (paper, section 3.1).

    Args:
        state: Before it, its phase begun by `svdnet_jax.training.begin_phase`.
        batch: All of its images; with an axis, those of this device.
        model: The network; with an axis, as `with_sync_batch_norm` makes it.
        optimizer: Of the phase.
        preprocess: Brings bytes to what the network sees, with augmentation; see `svdnet_jax.training.preprocess`.
        loss_fn: What is minimized; see `svdnet_jax.training.losses`.
        grad_accum_steps: Microbatches that the batch goes through the network in.
        num_instances: Images in a row that stay in one microbatch: those of an identity.
        axis_name: Axis that `jax.pmap` maps the step over, which must be given there, as gradients are averaged along
            it; none where the compiler shares out the batch.

    Returns:
        The state after it, and loss and accuracy of the batch before it. The loss is NaN where a label is not of
        0 .. K-1.

    Raises:
        ValueError: Images are no bytes (N, H, W, 3), labels no whole numbers, the batch cannot be divided, the phase
            was not begun with this optimizer, the loss is no scalar, or a BatchNorm takes the statistics of one device.
    """
    check_images(batch.images)
    check_labels(batch.labels, batch.images)
    check_grad_accum(len(batch.labels), grad_accum_steps, num_instances)
    check_begun(state.opt_state, optimizer, state.params)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    share = Share(jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)) if axis_name else WHOLE
    x = preprocess(augment_key, batch.images, state.pixels["mean"], share)
    if axis_name:
        dropout_key = jax.random.fold_in(dropout_key, share.number)

    def compute_grads(
        batch_stats: PyTree[Array], microbatch: Batch, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], GradsAndMetrics]:
        return _compute_grads(state, batch_stats, microbatch, key, model=model, loss_fn=loss_fn)

    with require_sync_batch_norm(axis_name):
        batch_stats, grads_and_metrics = _accumulate_grads(
            compute_grads, state.batch_stats, Batch(x, batch.labels), dropout_key, grad_accum_steps, num_instances
        )
    gradients, metrics = jax.lax.pmean(grads_and_metrics, axis_name) if axis_name else grads_and_metrics
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    after = state.replace(
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        step=state.step + 1,
        cursor=state.cursor.replace(step=state.cursor.step + 1),
    )
    return after, metrics


GradsAndMetrics = tuple[PyTree[Array], Metrics]


def _compute_grads(
    state: TrainState,
    batch_stats: PyTree[Array],
    batch: Batch,
    dropout_key: PRNGKeyArray,
    *,
    model: SVDNet,
    loss_fn: LossFn,
) -> tuple[PyTree[Array], GradsAndMetrics]:
    """Computes the new batch statistics, the gradients, and loss and accuracy of one microbatch."""

    def loss_of(params: PyTree[Array]) -> tuple[Float[Array, ""], tuple[PyTree[Array], Outputs]]:
        outputs, updates = model.apply(
            {**state.variables, "params": params, "batch_stats": batch_stats},
            batch.images,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats", "intermediates"],
        )
        loss = loss_fn(outputs, batch.labels, params, updates["intermediates"]["maps"][0])
        check_loss(loss)
        return loss, (updates.get("batch_stats", {}), outputs)

    (value, (batch_stats, outputs)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    correct = jnp.argmax(outputs.logits, axis=-1) == batch.labels
    return batch_stats, (gradients, {"loss": value, "accuracy": correct.astype(jnp.float32).mean()})


def _accumulate_grads(
    compute_grads: Callable[..., tuple[PyTree[Array], GradsAndMetrics]],
    batch_stats: PyTree[Array],
    batch: Batch,
    key: PRNGKeyArray,
    steps: int,
    num_instances: int,
) -> tuple[PyTree[Array], GradsAndMetrics]:
    """Computes gradients and metrics of a batch in microbatches, as means over them."""
    if steps == 1:
        return compute_grads(batch_stats, batch, key)

    def split(rows: Array) -> Array:
        # Taken in turn, so that each device has some of each microbatch where they share the batch.
        groups = rows.reshape(-1, steps, num_instances, *rows.shape[1:]).swapaxes(0, 1)
        return groups.reshape(steps, -1, *rows.shape[1:])

    def add(carry: Any, numbered: tuple[Array, Batch]) -> tuple[Any, None]:
        batch_stats, sums = carry
        number, microbatch = numbered
        batch_stats, grads_and_metrics = compute_grads(batch_stats, microbatch, jax.random.fold_in(key, number))
        return (batch_stats, jax.tree.map(jnp.add, sums, grads_and_metrics)), None

    numbered = jnp.arange(steps), jax.tree.map(split, batch)
    shapes = jax.eval_shape(compute_grads, batch_stats, jax.tree.map(lambda rows: rows[0], numbered[1]), key)[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (batch_stats, sums), _ = scan_or_unroll(add, (batch_stats, zeros), numbered)
    return batch_stats, jax.tree.map(lambda total: total / steps, sums)


def scan_or_unroll(step: Callable[..., tuple[Any, Any]], carry: Any, over: Any) -> tuple[Any, Any]:
    """Runs `jax.lax.scan`; unrolled on a CPU, where XLA's convolutions are twenty times as slow inside of a loop."""
    if jax.default_backend() != "cpu":
        return jax.lax.scan(step, carry, over)
    outputs = []
    for number in range(len(jax.tree.leaves(over)[0])):
        carry, out = step(carry, jax.tree.map(lambda rows: rows[number], over))  # noqa: B023
        outputs.append(out)
    return carry, jax.tree.map(lambda *rows: jnp.stack(rows), *outputs)
