"""Typed events that the RRI loop yields, in the order in which things happen.

The state of an event is donated to the next step: use it before the next event is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from svdnet_jax.training.evaluation import EvalResult
from svdnet_jax.training.schedule import ScheduledPhase
from svdnet_jax.training.state import TrainState

Record = dict[str, Any]
"""A line of the log."""
Unreported = Mapping[str, Sequence[float]]
"""Loss and accuracy of the steps since the last line of the log."""


class Working(NamedTuple):
    """Something begins that takes a while and ends without an event of its own: to be shown, and not logged."""

    doing: Literal["compiling", "training", "evaluating"]
    phase: ScheduledPhase
    step: int
    """Steps of the run that are done."""

    @property
    def record(self) -> Record:
        """What is shown of it, in the form of a line of the log."""
        place = {"phase": self.phase.kind, "round": self.phase.round, "step": self.step}
        return {"event": "working", "doing": self.doing, **place}


class StepLogged(NamedTuple):
    """The steps since the last line of the log are done."""

    record: Record


class Decorrelated(NamedTuple):
    """W was replaced, and the model evaluated before and after."""

    record: Record
    state: TrainState


class PhaseEnded(NamedTuple):
    """All steps of a phase are done."""

    record: Record
    state: TrainState
    evaluation: EvalResult | None
    """None of a restraint that is not to be evaluated."""


class SaveDue(NamedTuple):
    """A state from which the run can go on, to be saved now."""

    state: TrainState
    phase_seconds: float
    """Time that the phase of the state has taken so far."""
    metrics: Mapping[str, float] | None
    """Retrieval by the embedding, where a phase has just ended and was evaluated."""
    unreported: Unreported


Event = Working | StepLogged | Decorrelated | PhaseEnded | SaveDue
