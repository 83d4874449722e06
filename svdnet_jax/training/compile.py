"""Training steps compiled for the devices of a run: one call takes a state through a few steps.

In ``auto`` and ``single`` mode the step is one program on a mesh, and the compiler shares out the batch; BatchNorm's
statistics are over all of it by themselves. In ``pmap`` mode every device takes the step on its own images and averages
what it finds with the others. Both keep the state whole on every device and give the same parameters up to rounding,
but that with dropout each device of ``pmap`` mode draws masks of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import Config, Loss, Penalty, PhaseKind
from svdnet_jax.data.batches import Batch, Samples
from svdnet_jax.distributed.mesh import AXIS, MeshContext
from svdnet_jax.models.svdnet import SVDNet, with_sync_batch_norm
from svdnet_jax.training.losses import make_loss_fn
from svdnet_jax.training.optimizer import with_learning_rate
from svdnet_jax.training.preprocess import AugmentConfig, augment_config, make_preprocess
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import TrainState
from svdnet_jax.training.step import Metrics, scan_or_unroll, train_step

TrainCall = Callable[[TrainState, Batch | None, Samples, Float[Array, " K"]], tuple[TrainState, Metrics]]
"""State (donated), images and samples of a `TrainLoader`, learning rate of each of K steps -> the state after them, and
loss and accuracy of each step with S(W) and whether every number is finite after the last."""
ON_CPU, ELSEWHERE = 1, 10
"""Steps of a call where the settings leave it open: what a call costs beside its steps is nothing to a CPU, which
compiles each of them."""


class StepConfig(NamedTuple):
    """What the settings compile into a step beside network and optimizer."""

    augment: AugmentConfig
    loss: Loss = Loss()
    grad_accum_steps: int = 1
    num_instances: int = 1


def step_config(config: Config, kind: PhaseKind) -> StepConfig:
    """Returns the part of the settings that `StepConfig` holds, for a kind of phase."""
    loss = config.loss
    if kind == "base" and loss.penalty.begin == "rounds":
        loss = replace(loss, penalty=Penalty())
    instances = max(config.data.num_instances, 1)
    return StepConfig(augment_config(config.data), loss, config.optimizer.grad_accum_steps, instances)


def make_train_call(
    model: SVDNet, optimizer: optax.GradientTransformation, config: StepConfig, devices: MeshContext
) -> TrainCall:
    """Makes what trains a phase, compiled at its first use; one program for all calls."""
    axis = AXIS if devices.mode == "pmap" else None
    step = partial(
        train_step,
        model=with_sync_batch_norm(model, axis) if axis else model,
        optimizer=optimizer,
        preprocess=make_preprocess(config.augment),
        loss_fn=make_loss_fn(config.loss, axis),
        grad_accum_steps=config.grad_accum_steps,
        num_instances=config.num_instances,
        axis_name=axis,
    )

    def call(
        state: TrainState, store: Batch | None, samples: Samples, rates: Float[Array, " K"]
    ) -> tuple[TrainState, Metrics]:
        def one(state: TrainState, now: tuple[Samples, Float[Array, ""]]) -> tuple[TrainState, Metrics]:
            sample, rate = now
            batch = sample if isinstance(sample, Batch) else _fetch(store, sample)
            return step(state.replace(opt_state=with_learning_rate(state.opt_state, rate)), batch)

        state, metrics = scan_or_unroll(one, state, (samples, rates))
        health = {"correlation": eigenlayer.correlation(state.eigenlayer), "finite": _all_finite(state.variables)}
        return state, metrics | health

    if axis:
        each = list(devices.mesh.devices.flat)
        return jax.pmap(call, axis, in_axes=(None, None, 1, None), out_axes=None, donate_argnums=0, devices=each)
    return jax.jit(call, donate_argnums=0, out_shardings=devices.replicated)


def steps_per_call(config: Config) -> int:
    """Returns the steps of one call: the most within the setting that end at every line of the log and phase."""
    setting = config.compute.steps_per_call
    most = setting or (ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE)
    lengths = [config.log_every, config.checkpoint_every, *(phase.settings.steps for phase in build_schedule(config))]
    return _largest_divisor(lengths, most)


def _largest_divisor(lengths: Sequence[int], most: int) -> int:
    return max(k for k in range(1, most + 1) if gcd(*lengths) % k == 0)


def _fetch(store: Batch | None, positions: Array) -> Batch:
    assert store is not None, "positions are of images in the store"
    return Batch(store.images[positions], store.labels[positions])


def _all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))
