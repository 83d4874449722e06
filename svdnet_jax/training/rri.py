"""Restraint and Relaxation Iteration, the outer loop of SVDNet (paper, section 3.3 and algorithm 1).

Step 0 trains everything. Each round then replaces W by U S, trains all but the Eigenlayer (restraint) and trains it
again too (relaxation). The loop is a function of the state alone: given the state of any checkpoint it goes on
as if it had never stopped. It writes no file itself; `Hooks` tell the outside world.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, PyTree

from svdnet_jax import eigenlayer
from svdnet_jax.config import PhaseKind, Run
from svdnet_jax.data.pipeline import Batch
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.training.measure import Measurement, TrainingDiverged
from svdnet_jax.training.optimizer import make_optimizer, weight_groups, with_learning_rate
from svdnet_jax.training.plan import PlannedPhase, plan
from svdnet_jax.training.state import TrainState, begin
from svdnet_jax.training.step import Metrics, TrainStep, inputs_of, make_train_step

Record = dict[str, Any]


class Program(NamedTuple):
    """What trains a kind of phase."""

    optimizer: optax.GradientTransformation
    step: TrainStep


class Hooks(NamedTuple):
    """What the loop calls at its borders."""

    measure: Callable[[TrainState], Measurement]
    emit: Callable[[Record, TrainState], None]
    """Takes a record of the log and the state it was made from."""
    save: Callable[[TrainState, float, Measurement | None], None]
    """Keeps a state from which the run can go on; with the seconds spent in its phase, and what was measured
    if a phase has just ended."""


def programs(model: SVDNet, params: Any, config: Run) -> dict[PhaseKind, Program]:
    """One optimiser and one jitted step for each kind of phase, shared by kinds that train weights alike."""
    alike: dict[Any, Program] = {}
    found: dict[PhaseKind, Program] = {}
    for kind, settings in {phase.kind: phase.settings for phase in plan(config)}.items():
        trained = (settings.freeze, settings.multipliers)
        if trained not in alike:
            optimizer = make_optimizer(weight_groups(params, settings, config.optimizer), config.optimizer)
            alike[trained] = Program(optimizer, make_train_step(model, optimizer, inputs_of(config), config.loss))
        found[kind] = alike[trained]
    return found


def optimizer_at(
    phase: int, phases: Sequence[PlannedPhase], by_kind: Mapping[PhaseKind, Program]
) -> optax.GradientTransformation:
    """The optimiser of a phase of the plan; one without state when the plan is over."""
    return by_kind[phases[phase].kind].optimizer if phase < len(phases) else optax.identity()


def run_rri(
    state: TrainState,
    phases: Sequence[PlannedPhase],
    by_kind: Mapping[PhaseKind, Program],
    *,
    config: Run,
    stream: Iterator[Batch],
    hooks: Hooks,
    seconds: float = 0.0,
) -> TrainState:
    """Trains from a state to the end of the plan, or until S(W) is stable.

    Args:
        state: A begun phase: from `begin`, or from a checkpoint. Donated: use the state that comes back.
        phases: The plan.
        by_kind: From `programs`.
        config: Settings of the run.
        stream: Batches from ``state.step`` on.
        hooks: Measuring, logging and saving.
        seconds: Time that the phase of ``state`` has taken before.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    last: Measurement | None = None
    while (index := int(state.cursor.phase)) < len(phases):
        phase = phases[index]
        if phase.kind == "restraint" and int(state.cursor.step) == 0:
            state = _decorrelate(state, phase, last or hooks.measure(state), config, hooks)
        started = time.monotonic() - seconds
        state = _train(state, phase, by_kind[phase.kind].step, config, stream, hooks, started)
        seconds = time.monotonic() - started
        last = hooks.measure(state)
        hooks.emit(_phase_record(phase, state, last, seconds), state)
        following = _next(index, phase, last.correlation, state, config, len(phases))
        released = phase.kind in ("base", "relaxation")
        kept = jnp.float32(last.correlation) if released else state.cursor.correlation
        state = begin(state, following, optimizer_at(following, phases, by_kind), kept)
        seconds = 0.0
        hooks.save(state, seconds, last)
    return state


def is_stable(before: float, after: float, config: Run) -> bool:
    """The stopping rule: S(W) after a relaxation rose by less than the tolerance over the round before."""
    rri = config.rri
    return rri.stop == "stable" and rri.method != "none" and after - before < rri.tolerance


def _next(index: int, phase: PlannedPhase, correlation: float, state: TrainState, config: Run, end: int) -> int:
    if phase.kind == "relaxation" and is_stable(float(state.cursor.correlation), correlation, config):
        return end
    return index + 1


def _decorrelate(state: TrainState, phase: PlannedPhase, before: Measurement, config: Run, hooks: Hooks) -> TrainState:
    match = config.rri.match and phase.round > config.rri.unmatched_rounds
    state = state.with_eigenlayer(eigenlayer.decorrelate(state.eigenlayer, config.rri.method, match=match))
    after = hooks.measure(state)
    record = {
        "event": "decorrelate",
        "round": phase.round,
        "step": int(state.step),
        "method": config.rri.method,
        "correlation": {"before": before.correlation, "after": after.correlation},
        "loss": {"before": before.loss, "after": after.loss},
        "accuracy": {"before": before.accuracy, "after": after.accuracy},
        "embedding": after.embedding.metrics(),
        "pooled": after.pooled.metrics(),
    }
    hooks.emit(record, state)
    return state


def _train(
    state: TrainState,
    phase: PlannedPhase,
    step_fn: TrainStep,
    config: Run,
    stream: Iterator[Batch],
    hooks: Hooks,
    started: float,
) -> TrainState:
    """The steps of a phase that are still to do."""
    pending: list[Metrics] = []
    since = time.monotonic()
    rate = None
    for done in range(int(state.cursor.step), phase.settings.steps):
        if (due := phase.learning_rate_at(done)) != rate:
            rate = due
            state = state.replace(opt_state=with_learning_rate(state.opt_state, rate))
        state, metrics = step_fn(state, next(stream))
        pending.append(metrics)
        last = done + 1 == phase.settings.steps
        if last or (done + 1) % config.log_every == 0:
            means = {name: float(np.mean(values)) for name, values in _fetch(pending).items()}
            now = time.monotonic()
            speed = len(pending) * config.data.batch_size / (now - since)
            since, pending = now, []
            _check_finite(means["loss"], state, phase, done + 1, rate)
            hooks.emit(_step_record(phase, state, means, rate, speed), state)
        if not last and (done + 1) % config.checkpoint_every == 0:
            hooks.save(state, time.monotonic() - started, None)
            since = time.monotonic()
    return state


def _fetch(pending: list[Metrics]) -> dict[str, np.ndarray]:
    values = jax.device_get(pending)
    return {name: np.array([value[name] for value in values]) for name in values[0]}


@jax.jit
def _all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _check_finite(loss: float, state: TrainState, phase: PlannedPhase, step: int, rate: float) -> None:
    """Stops before a NaN reaches a checkpoint; the loss alone would show that of the last step too late."""
    if not np.isfinite(loss) or not _all_finite(state.variables):
        where = f"step {phase.start + step} ({phase.kind}, round {phase.round}, learning rate {rate:g})"
        raise TrainingDiverged(
            f"training diverged: at {where} the loss or a weight is not finite. "
            "Lower --optimizer.learning-rate or --rri.learning-rates and start in another --out; "
            "log and checkpoints are intact"
        )


def _step_record(phase: PlannedPhase, state: TrainState, means: dict[str, float], rate: float, speed: float) -> Record:
    return {
        "event": "step",
        "phase": phase.kind,
        "round": phase.round,
        "step": int(state.step),
        **means,
        "learning_rate": rate,
        "correlation": float(eigenlayer.correlation(state.eigenlayer)),
        "images_per_second": speed,
    }


def _phase_record(phase: PlannedPhase, state: TrainState, measured: Measurement, seconds: float) -> Record:
    return {
        "event": "phase",
        "phase": phase.kind,
        "round": phase.round,
        "step": int(state.step),
        "loss": measured.loss,
        "accuracy": measured.accuracy,
        "correlation": measured.correlation,
        "seconds": seconds,
        "embedding": measured.embedding.metrics(),
        "pooled": measured.pooled.metrics(),
        "spectrum": measured.spectrum.tolist(),
    }
