"""Restraint and Relaxation Iteration, the outer loop of SVDNet (paper, section 3.3 and algorithm 1).

Step 0 trains everything. Each round then replaces W by U S, trains all but the Eigenlayer (restraint) and trains it
again too (relaxation). The loop is a generator of events and depends on the state alone: from the state of any
checkpoint it goes on as if it had never stopped. It writes no file; whoever runs it writes, shows and saves.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import RRI, Config, PhaseKind
from svdnet_jax.data.batches import TrainLoader
from svdnet_jax.distributed.mesh import MeshContext, replicate_on
from svdnet_jax.distributed.multihost import broadcast_from_lead
from svdnet_jax.errors import Stopped
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.training.compile import TrainCall, make_train_call, step_config
from svdnet_jax.training.evaluation import EvalResult
from svdnet_jax.training.events import Decorrelated, Event, PhaseEnded, Record, SaveDue, StepLogged, Unreported, Working
from svdnet_jax.training.optimizer import make_optimizer
from svdnet_jax.training.schedule import ScheduledPhase, build_schedule
from svdnet_jax.training.state import TrainState, begin_phase
from svdnet_jax.training.step_records import LogInterval, restore_metrics, step_record, unreported_metrics


class Evaluate(Protocol):
    """`svdnet_jax.training.evaluation.evaluate_model` of a network and a data set."""

    def __call__(self, state: TrainState, *, before: EvalResult | None = None) -> EvalResult:
        """Evaluates a state; with the result of the same model before W was replaced, from its features."""


class CompiledPhase(NamedTuple):
    """What trains the phases of a kind."""

    optimizer: optax.GradientTransformation
    call: TrainCall


class Task(NamedTuple):
    """What a run trains, and with what: everything that stays the same while the state changes."""

    config: Config
    schedule: Sequence[ScheduledPhase]
    compiled: Mapping[PhaseKind, CompiledPhase]
    evaluate: Evaluate
    """Evaluates a state on the test set; called at the borders of phases."""
    steps_per_call: int
    """Steps that each item of the loader is for; see `svdnet_jax.training.compile.steps_per_call`."""

    def optimizer_of(self, phase: int) -> optax.GradientTransformation:
        """Returns the optimizer of a phase of the schedule; one without state when the schedule is over."""
        return optimizer_at(phase, self.schedule, {kind: each.optimizer for kind, each in self.compiled.items()})


def make_optimizers(params: Any, config: Config) -> dict[PhaseKind, optax.GradientTransformation]:
    """Makes the optimizer of each kind of phase; kinds that train weights alike share one.

    Args:
        params: Parameters, or their shapes.
        config: Settings of the run.

    Raises:
        ConfigError: A pattern of a phase that no path matches, or nothing left to train.
    """
    by_settings: dict[Any, optax.GradientTransformation] = {}
    by_kind: dict[PhaseKind, optax.GradientTransformation] = {}
    for kind, settings in {phase.kind: phase.settings for phase in build_schedule(config)}.items():
        trained = (settings.freeze, settings.multipliers)
        if trained not in by_settings:
            by_settings[trained] = make_optimizer(
                params, freeze=settings.freeze, lr_multipliers=settings.multipliers, settings=config.optimizer
            )
        by_kind[kind] = by_settings[trained]
    return by_kind


def compile_phases(model: SVDNet, params: Any, config: Config, devices: MeshContext) -> dict[PhaseKind, CompiledPhase]:
    """Makes what trains each kind of phase; kinds that train weights alike, by the same loss, share one program."""
    parts = {
        kind: (optimizer, step_config(config, kind)) for kind, optimizer in make_optimizers(params, config).items()
    }
    compiled = {
        each: CompiledPhase(each[0], make_train_call(model, *each, devices)) for each in dict.fromkeys(parts.values())
    }
    return {kind: compiled[each] for kind, each in parts.items()}


def optimizer_at(
    phase: int, schedule: Sequence[ScheduledPhase], by_kind: Mapping[PhaseKind, optax.GradientTransformation]
) -> optax.GradientTransformation:
    """Returns the optimizer of a phase of the schedule; one without state when the schedule is over."""
    return by_kind[schedule[phase].kind] if phase < len(schedule) else optax.identity()


def run_rri(
    state: TrainState,
    task: Task,
    loader: TrainLoader,
    *,
    stop_signal: Callable[[], int] = lambda: 0,
    phase_seconds: float = 0.0,
    unreported: Unreported | None = None,
    taken_over: Record | None = None,
) -> Generator[Event]:
    """Trains from a state to the end of the schedule, or until S(W) is stable.

    Args:
        state: Its phase is begun, or it is from a checkpoint. Donated: use the state of the latest event.
        task: What is trained.
        loader: Batches from ``state.step`` on.
        stop_signal: Returns the number of the signal that asks the run to stop, 0 if none does.
        phase_seconds: Time that the phase of ``state`` has taken before.
        unreported: Of the `SaveDue` that saved ``state``.
        taken_over: The line with which Step 0 ended, where another run has trained it; it is the first event then.

    Raises:
        Stopped: `stop_signal` asked for it; the event before was a `SaveDue`.
        TrainingDiverged: The loss is no longer finite.
    """
    latest: EvalResult | None = None
    uncompiled = {each.call for each in task.compiled.values()}
    if taken_over:
        yield Working("evaluating", task.schedule[0], int(state.step))
        latest = task.evaluate(state)
        yield PhaseEnded(taken_over, state, latest)
        yield SaveDue(state, 0.0, latest.embedding.metrics(), {})
        _raise_if_asked(stop_signal, state)
    while (index := int(state.cursor.phase)) < len(task.schedule):
        phase = task.schedule[index]
        if phase.kind == "restraint" and int(state.cursor.step) == 0:
            yield Working("evaluating", phase, int(state.step))
            before = latest or task.evaluate(state)
            state = _decorrelate(state, task.config, phase.round)
            yield Decorrelated(_decorrelation_record(phase, state, before, task), state)
            del before
        latest = None  # its features take memory that training may need
        started = time.monotonic() - phase_seconds
        state = yield from _train_phase(state, phase, task, loader, stop_signal, started, unreported or {}, uncompiled)
        phase_seconds, unreported = time.monotonic() - started, None
        if phase.kind != "restraint" or task.config.rri.evaluate_restraint:
            yield Working("evaluating", phase, phase.end)
            latest = task.evaluate(state)
        record = _phase_record(phase, state, latest, phase_seconds)
        yield PhaseEnded(record, state, latest)
        state, phase_seconds = _begin_next(state, index, record["correlation"], task), 0.0
        yield SaveDue(state, phase_seconds, latest.embedding.metrics() if latest else None, {})
        _raise_if_asked(stop_signal, state)


def _train_phase(
    state: TrainState,
    phase: ScheduledPhase,
    task: Task,
    loader: TrainLoader,
    stop_signal: Callable[[], int],
    started: float,
    unreported: Unreported,
    uncompiled: set[TrainCall],
) -> Generator[Event, None, TrainState]:
    """Takes the steps of a phase that are left. Metrics are fetched when the next call is already running.

    Its program is compiled in the first call, and then taken out of those that are uncompiled.
    """
    config, steps, compiled = task.config, task.steps_per_call, task.compiled[phase.kind]
    images_per_call = steps * config.data.batch_size
    since, sharding = time.monotonic(), state.step.sharding
    pending = restore_metrics(unreported)
    due: LogInterval | None = None
    for done in range(int(state.cursor.step) + steps, phase.settings.steps + 1, steps):
        rates = [phase.learning_rate_at(step) for step in range(done - steps, done)]
        samples = next(loader.batches)
        rates_on_devices: Any = replicate_on(np.array(rates, np.float32), sharding)
        compiling = compiled.call in uncompiled
        if compiling:
            yield Working("compiling", phase, phase.start + done - steps)
        with jax.transfer_guard("disallow"):
            state, metrics = compiled.call(state, loader.device_data, samples, rates_on_devices)
        if compiling:
            uncompiled.remove(compiled.call)
            yield Working("training", phase, phase.start + done - steps)
        pending = (*pending, metrics)
        if due:
            record, since = step_record(due, since, images_per_call)
            due = None
            yield StepLogged(record)
        last = done == phase.settings.steps
        if last or done % config.log_every == 0:
            due, pending = LogInterval(phase, pending, done, rates[-1]), ()
        saving = not last and (done % config.checkpoint_every == 0 or bool(stop_signal()))
        # Before anything else is done with the state, it is known to be finite.
        if due and (last or saving):
            record, since = step_record(due, since, images_per_call)
            due = None
            yield StepLogged(record)
        if saving:
            rest = unreported_metrics(LogInterval(phase, pending, done, rates[-1]))
            yield SaveDue(state, time.monotonic() - started, None, rest)
            _raise_if_asked(stop_signal, state)
            since = time.monotonic()
    return state


def _raise_if_asked(stop_signal: Callable[[], int], state: TrainState) -> None:
    """Ends the run where its state has just been saved, if a signal asks for it."""
    if number := stop_signal():
        raise Stopped(int(state.step), number)


def is_stable(before: float, after: float, rri: RRI) -> bool:
    """Applies the stopping rule: S(W) after a relaxation rose by less than the tolerance over the round before.

    Never of the controls, whose S(W) does not rise and which train for as long as what they are compared with.
    """
    return rri.stop == "stable" and rri.method not in ("none", "rotation") and after - before < rri.tolerance


def _begin_next(state: TrainState, index: int, S: float, task: Task) -> TrainState:
    """Returns the state at the start of the next phase; at the end of the schedule if S(W) is stable."""
    phase = task.schedule[index]
    stable = phase.kind == "relaxation" and is_stable(float(state.cursor.correlation), S, task.config.rri)
    following = len(task.schedule) if stable else index + 1
    # The stopping rule compares the ends of relaxations; in a restraint S(W) is what the decorrelation made it.
    kept = np.array(S, np.float32) if phase.kind in ("base", "relaxation") else np.asarray(state.cursor.correlation)
    rate = task.schedule[following].learning_rate_at(0) if following < len(task.schedule) else 0.0
    return begin_phase(state, task.optimizer_of(following), rate, phase=following, correlation=kept)


def _decorrelate(state: TrainState, config: Config, number: int) -> TrainState:
    """Returns the state with the new W of a round; its classifier is turned with W where that is asked for."""
    rri, seed = config.rri, (config.seed, number)
    match = rri.match and number > rri.unmatched_rounds
    # Computed on one device. Hosts may differ in the last bit, so all take what the lead host has found.
    W = jnp.asarray(jax.device_get(state.eigenlayer))
    if not rri.rotate_classifier:
        replaced = eigenlayer.decorrelate(W, rri.method, match=match, seed=seed)
        return state.with_eigenlayer(jnp.asarray(broadcast_from_lead(np.asarray(replaced))))
    assert rri.method == "us" or rri.method == "rotation", "a rule of the settings"
    replaced, R = eigenlayer.rotate(W, rri.method, match=match, seed=seed)
    kernel = jax.device_get(state.params["classifier"]["kernel"])
    turned = broadcast_from_lead((R.T @ kernel.astype(np.float64)).astype(kernel.dtype))
    return state.with_eigenlayer(jnp.asarray(broadcast_from_lead(np.asarray(replaced)))).with_classifier(
        jnp.asarray(turned)
    )


def _decorrelation_record(phase: ScheduledPhase, state: TrainState, before: EvalResult, task: Task) -> Record:
    after = before if task.config.rri.method == "none" else task.evaluate(state, before=before)
    return {
        "event": "decorrelate",
        "round": phase.round,
        "step": int(state.step),
        "method": task.config.rri.method,
        "correlation": {"before": before.correlation, "after": after.correlation},
        "loss": {"before": before.loss, "after": after.loss},
        "accuracy": {"before": before.accuracy, "after": after.accuracy},
        "embedding": after.embedding.metrics(),
        "pooled": after.pooled.metrics(),
    }


def _phase_record(phase: ScheduledPhase, state: TrainState, evaluation: EvalResult | None, seconds: float) -> Record:
    return {
        "event": "phase",
        "phase": phase.kind,
        "round": phase.round,
        "step": int(state.step),
        "correlation": evaluation.correlation if evaluation else float(eigenlayer.correlation(state.eigenlayer)),
        "seconds": seconds,
        "spectrum": np.asarray(eigenlayer.spectrum(state.eigenlayer)).tolist(),
        **(_measured(evaluation) if evaluation else {}),
    }


def _measured(evaluation: EvalResult) -> Record:
    """Returns what a line has of a model that was evaluated."""
    others = {
        name: {kind: report.metrics() for kind, report in reports.items()}
        for name, reports in evaluation.others.items()
    }
    return {
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy,
        "embedding": evaluation.embedding.metrics(),
        "pooled": evaluation.pooled.metrics(),
        **({"others": others} if others else {}),
    }
