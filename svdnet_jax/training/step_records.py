"""The `step` lines of the log: means over the steps since the line before.

Numbers are fetched from the devices one call late, so that the devices do not wait for the host. A run that stops
between two lines saves what it has not logged yet (`Unreported`), and the resumed run writes the line as if it had
never stopped.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from svdnet_jax.errors import TrainingDiverged
from svdnet_jax.training.events import Record, Unreported
from svdnet_jax.training.schedule import ScheduledPhase
from svdnet_jax.training.step import Metrics

PER_STEP = ("loss", "accuracy")
"""Metrics that every step has; the others are of a call of several steps."""


class LogInterval(NamedTuple):
    """The calls between two lines of the log. Their metrics may still be computed on the devices."""

    phase: ScheduledPhase
    metrics: tuple[Metrics, ...]
    """Of each call."""
    end: int
    """Steps of the phase after the last call."""
    learning_rate: float
    """Of the last step."""


def restore_metrics(unreported: Unreported) -> tuple[Metrics, ...]:
    """Returns the metrics that a stopped run had not logged yet, as if a call had just computed them."""
    metrics: Any = {name: np.array(values, np.float32) for name, values in unreported.items()}
    return (metrics,) if metrics else ()


def unreported_metrics(interval: LogInterval) -> Unreported:
    """Returns what a run that stops within an interval must save to log it later.

    Raises:
        TrainingDiverged: A loss or a weight is not finite.
    """
    if not interval.metrics:
        return {}
    calls = _fetch_finite(interval)
    return {name: np.concatenate([call[name] for call in calls]).tolist() for name in PER_STEP}


def step_record(interval: LogInterval, since: float, images_per_call: int) -> tuple[Record, float]:
    """Returns the line of an interval, and the time at which its numbers were there.

    Args:
        interval: Its calls; waits for them.
        since: Time of the line before (`time.monotonic`).
        images_per_call: For the throughput.

    Raises:
        TrainingDiverged: A loss or a weight is not finite.
    """
    calls = _fetch_finite(interval)
    means = {name: float(np.concatenate([call[name] for call in calls]).mean()) for name in PER_STEP}
    now, phase = time.monotonic(), interval.phase
    # Metrics that a stopped run has left were not computed in this time.
    timed = sum("finite" in call for call in calls)
    record = {
        "event": "step",
        "phase": phase.kind,
        "round": phase.round,
        "step": phase.start + interval.end,
        **means,
        "learning_rate": interval.learning_rate,
        "correlation": float(calls[-1]["correlation"]),
        "images_per_second": timed * images_per_call / (now - since),
    }
    return record, now


def _fetch_finite(interval: LogInterval) -> Sequence[Mapping[str, np.ndarray]]:
    calls = jax.device_get(interval.metrics)
    if not np.isfinite(np.concatenate([call["loss"] for call in calls]).mean()) or not calls[-1]["finite"]:
        phase = interval.phase
        raise TrainingDiverged(
            f"training diverged: at step {phase.start + interval.end} ({phase.kind}, round {phase.round}, learning "
            f"rate {interval.learning_rate:g}) the loss or a weight is not finite.{_rise(phase)} "
            "Lower `optimizer.learning_rate` or `rri.learning_rates` and start in another `out`; "
            "log and checkpoints are intact"
        )
    return calls


def _rise(phase: ScheduledPhase) -> str:
    """Says that the rate rose where the phase began, which a network that has converged may not survive."""
    before = phase.rate_before
    if not before or phase.learning_rate <= before:
        return ""
    return (
        f" The {phase.kind} began with {phase.learning_rate:g}, {phase.learning_rate / before:.3g} times the rate "
        f"that the phase before ended with ({before:g})."
    )
