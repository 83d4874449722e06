"""Restraint and Relaxation Iteration, the outer loop of SVDNet (paper, section 3.3 and algorithm 1).

Step 0 trains everything. Each round then replaces W by U S, trains all but the Eigenlayer (restraint) and trains it
again too (relaxation). The loop is a function of the state alone: given the state of any checkpoint it goes on
as if it had never stopped. It writes no file itself; `Hooks` tell the outside world.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import PhaseKind, Run
from svdnet_jax.data.loader import Feed
from svdnet_jax.distributed.mesh import Devices, put
from svdnet_jax.distributed.multihost import from_first
from svdnet_jax.errors import Stopped
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.training.compile import TrainCall, make_train_call
from svdnet_jax.training.evaluation import Measurement
from svdnet_jax.training.log_interval import Hooks, Interval, Record, Unreported, Work, report, told, untold
from svdnet_jax.training.optimizer import make_optimizer, weight_groups
from svdnet_jax.training.schedule import PlannedPhase, plan
from svdnet_jax.training.state import TrainState, begin
from svdnet_jax.training.step import Metrics, recipe_of


class Program(NamedTuple):
    """What trains a kind of phase."""

    optimizer: optax.GradientTransformation
    call: TrainCall


def optimizers(params: Any, config: Run) -> dict[PhaseKind, optax.GradientTransformation]:
    """The optimiser of each kind of phase; kinds that train weights alike have the same one.

    Args:
        params: Parameters, or their shapes.
        config: Settings of the run.

    Raises:
        ConfigError: A pattern of a phase that no path matches, or nothing left to train.
    """
    alike: dict[Any, optax.GradientTransformation] = {}
    found: dict[PhaseKind, optax.GradientTransformation] = {}
    for kind, settings in {phase.kind: phase.settings for phase in plan(config)}.items():
        trained = (settings.freeze, settings.multipliers)
        if trained not in alike:
            alike[trained] = make_optimizer(weight_groups(params, settings, config.optimizer), config.optimizer)
        found[kind] = alike[trained]
    return found


def programs(model: SVDNet, params: Any, config: Run, devices: Devices) -> dict[PhaseKind, Program]:
    """What trains each kind of phase; kinds that train weights alike, by the same loss, share one compiled program."""
    by_kind = {kind: (optimizer, recipe_of(config, kind)) for kind, optimizer in optimizers(params, config).items()}
    found = {what: Program(what[0], make_train_call(model, *what, devices)) for what in dict.fromkeys(by_kind.values())}
    return {kind: found[what] for kind, what in by_kind.items()}


def optimizer_at(
    phase: int, phases: Sequence[PlannedPhase], by_kind: Mapping[PhaseKind, optax.GradientTransformation]
) -> optax.GradientTransformation:
    """The optimiser of a phase of the plan; one without state when the plan is over."""
    return by_kind[phases[phase].kind] if phase < len(phases) else optax.identity()


def run_rri(
    state: TrainState,
    phases: Sequence[PlannedPhase],
    by_kind: Mapping[PhaseKind, Program],
    *,
    config: Run,
    feed: Feed,
    steps_per_call: int,
    hooks: Hooks,
    seconds: float = 0.0,
    unreported: Unreported | None = None,
) -> TrainState:
    """Trains from a state to the end of the plan, or until S(W) is stable.

    Args:
        state: A begun phase: from `begin`, or from a checkpoint. Donated: use the state that comes back.
        phases: The plan.
        by_kind: From `programs`.
        config: Settings of the run.
        feed: Batches from ``state.step`` on.
        steps_per_call: Steps that each of its samples are for; see `svdnet_jax.training.compile.steps_per_call`.
        hooks: Measuring, logging and saving.
        seconds: Time that the phase of ``state`` has taken before.
        unreported: What `Hooks.save` was given beside it.

    Raises:
        Stopped: `Hooks.stop` asked for it; a state was saved.
        TrainingDiverged: The loss is no longer finite.
    """
    begins = {kind: program.optimizer for kind, program in by_kind.items()}
    last: Measurement | None = None
    while (index := int(state.cursor.phase)) < len(phases):
        phase = phases[index]
        if phase.kind == "restraint" and int(state.cursor.step) == 0:
            state = _decorrelate(state, phase, last or hooks.measure(state), config, hooks)
        started = time.monotonic() - seconds
        work = Work(phase, by_kind[phase.kind].call, config, feed, steps_per_call, hooks)
        state = _train(state, work, started, unreported or {})
        unreported = None
        seconds = time.monotonic() - started
        last = hooks.measure(state)
        hooks.emit(_phase_record(phase, state, last, seconds), state)
        following = _next(index, phase, last.correlation, state, config, len(phases))
        released = phase.kind in ("base", "relaxation")
        kept = np.array(last.correlation, np.float32) if released else np.asarray(state.cursor.correlation)
        rate = phases[following].learning_rate_at(0) if following < len(phases) else 0.0
        state = begin(state, following, optimizer_at(following, phases, begins), kept, rate)
        seconds = 0.0
        hooks.save(state, seconds, last, {})
        _heed(state, hooks)
    return state


def _heed(state: TrainState, hooks: Hooks) -> None:
    """Stops here, where the state has just been saved, if that was asked for."""
    if number := hooks.stop():
        raise Stopped(int(state.step), number)


def is_stable(before: float, after: float, config: Run) -> bool:
    """The stopping rule: S(W) after a relaxation rose by less than the tolerance over the round before.

    Never of the controls, whose S(W) does not rise and which train for as long as what they are compared with.
    """
    rri = config.rri
    return rri.stop == "stable" and rri.method not in ("none", "rotation") and after - before < rri.tolerance


def _next(index: int, phase: PlannedPhase, correlation: float, state: TrainState, config: Run, end: int) -> int:
    if phase.kind == "relaxation" and is_stable(float(state.cursor.correlation), correlation, config):
        return end
    return index + 1


def _decorrelate(state: TrainState, phase: PlannedPhase, before: Measurement, config: Run, hooks: Hooks) -> TrainState:
    match = config.rri.match and phase.round > config.rri.unmatched_rounds
    state = _replace(state, config, match, (config.seed, phase.round))
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


def _replace(state: TrainState, config: Run, match: bool, seed: tuple[int, int]) -> TrainState:
    """Returns the state with the new W, and with the classifier turned with it where that is asked for."""
    # Once, on one device; machines may differ in the last bit, so that all take what the first has found.
    W, method = jnp.asarray(jax.device_get(state.eigenlayer)), config.rri.method
    if not config.rri.rotate_classifier:
        replaced = eigenlayer.decorrelate(W, method, match=match, seed=seed)
        return state.with_eigenlayer(jnp.asarray(from_first(np.asarray(replaced))))
    assert method == "us" or method == "rotation", "a rule of the settings"
    new, R = eigenlayer.rotate(W, method, match=match, seed=seed)
    kernel = jax.device_get(state.params["classifier"]["kernel"])
    turned = from_first((R.T @ kernel.astype(np.float64)).astype(kernel.dtype))
    return state.with_eigenlayer(jnp.asarray(from_first(np.asarray(new)))).with_classifier(jnp.asarray(turned))


def _train(state: TrainState, work: Work, started: float, unreported: Unreported) -> TrainState:
    """The steps of a phase that are still to do.

    Numbers of an interval are fetched when the next call is on its way, so that devices need not wait for the host.
    Those of an interval that a stop cut in two are saved, so that its line is the one of an unbroken run.
    """
    phase, config, hooks = work.phase, work.config, work.hooks
    since, where = time.monotonic(), state.step.sharding
    pending: tuple[Metrics, ...] = told(unreported)
    due: Interval | None = None
    for done in range(int(state.cursor.step) + work.steps, phase.settings.steps + 1, work.steps):
        rates = [phase.learning_rate_at(step) for step in range(done - work.steps, done)]
        samples = next(work.feed.samples)
        on_devices: Any = put(np.array(rates, np.float32), where)
        with jax.transfer_guard("disallow"):
            state, metrics = work.call(state, work.feed.store, samples, on_devices)
        pending = (*pending, metrics)
        if due:
            since, due = report(due, state, work, since), None
        last = done == phase.settings.steps
        if last or done % config.log_every == 0:
            due, pending = Interval(pending, done, rates[-1]), ()
        saving = not last and (done % config.checkpoint_every == 0 or bool(hooks.stop()))
        # Before anything else is done with the state, it is known to be finite.
        if due and (last or saving):
            since, due = report(due, state, work, since), None
        if saving:
            hooks.save(state, time.monotonic() - started, None, untold(pending, work, done, rates[-1]))
            _heed(state, hooks)
            since = time.monotonic()
    return state


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
