"""The steps between two lines of the log, and what the loop tells the outside world of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from svdnet_jax.config.schema import Run
from svdnet_jax.data.loader import Feed
from svdnet_jax.errors import TrainingDiverged
from svdnet_jax.training.compile import TrainCall
from svdnet_jax.training.evaluation import Measurement
from svdnet_jax.training.schedule import PlannedPhase
from svdnet_jax.training.state import TrainState
from svdnet_jax.training.step import Metrics

Record = dict[str, Any]
Unreported = Mapping[str, Sequence[float]]
"""Loss and accuracy of steps that no line of the log tells of yet."""
NAMES = ("loss", "accuracy")
"""Numbers of each step."""


class Hooks(NamedTuple):
    """What the loop calls at its borders."""

    measure: Callable[[TrainState], Measurement]
    emit: Callable[[Record, TrainState], None]
    """Takes a record of the log and the state at hand: the one that it is of, or within a phase a later one."""
    save: Callable[[TrainState, float, Measurement | None, Unreported], None]
    """Keeps a state from which the run can go on; with the seconds spent in its phase, what was measured if a phase has
    just ended, and what is still to be told of its last steps."""
    stop: Callable[[], int] = lambda: 0
    """Whether the run is to stop at the next place from which it can go on: the number of the signal that asked for it.
    """


class Work(NamedTuple):
    """What the steps of a phase are taken with."""

    phase: PlannedPhase
    call: TrainCall
    config: Run
    feed: Feed
    steps: int
    """Of a call."""
    hooks: Hooks


class Interval(NamedTuple):
    """Calls between two lines of the log, all on their way."""

    metrics: tuple[Metrics, ...]
    done: int
    """Steps of the phase after them."""
    rate: float
    """Learning rate of their last step."""


def told(unreported: Unreported) -> tuple[Metrics, ...]:
    """What a stopped run had still to tell, as if this one had just computed it."""
    metrics: Any = {name: np.array(values, np.float32) for name, values in unreported.items()}
    return (metrics,) if metrics else ()


def untold(pending: Sequence[Metrics], work: Work, done: int, rate: float) -> Unreported:
    """What is still to be told of the last steps, after which the state is to be saved.

    Raises:
        TrainingDiverged: A loss or a number in the state is not finite.
    """
    if not pending:
        return {}
    found = _fetch(Interval(tuple(pending), done, rate), work)
    return {name: np.concatenate([call[name] for call in found]).tolist() for name in NAMES}


def _fetch(interval: Interval, work: Work) -> Sequence[Mapping[str, np.ndarray]]:
    """The numbers of an interval.

    Raises:
        TrainingDiverged: A loss or a number in the state after it is not finite.
    """
    calls = jax.device_get(interval.metrics)
    if not np.isfinite(np.concatenate([call["loss"] for call in calls]).mean()) or not calls[-1]["finite"]:
        phase, step = work.phase, work.phase.start + interval.done
        raise TrainingDiverged(
            f"training diverged: at step {step} ({phase.kind}, round {phase.round}, learning rate "
            f"{interval.rate:g}) the loss or a weight is not finite. "
            "Lower --optimizer.learning-rate or --rri.learning-rates and start in another --out; "
            "log and checkpoints are intact"
        )
    return calls


def report(interval: Interval, state: TrainState, work: Work, since: float) -> float:
    """Writes the line of an interval and says when that was.

    Raises:
        TrainingDiverged: A loss or a number in the state after it is not finite.
    """
    calls = _fetch(interval, work)
    means = {name: float(np.concatenate([call[name] for call in calls]).mean()) for name in NAMES}
    now, phase = time.monotonic(), work.phase
    where = {"phase": phase.kind, "round": phase.round, "step": phase.start + interval.done}
    health = {"learning_rate": interval.rate, "correlation": float(calls[-1]["correlation"])}
    here = sum("finite" in call for call in calls)  # the others were taken before the run was stopped
    speed = here * work.steps * work.config.data.batch_size / (now - since)
    work.hooks.emit({"event": "step", **where, **means, **health, "images_per_second": speed}, state)
    return now
