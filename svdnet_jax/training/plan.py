"""The phases of a run as data: Step 0, then restraint and relaxation of every round."""

from dataclasses import dataclass

from svdnet_jax.config import Phase, PhaseKind, Run


@dataclass(frozen=True)
class PlannedPhase:
    """A phase with its place in the run."""

    kind: PhaseKind
    round: int
    """0 for Step 0, then 1, 2, ..."""
    settings: Phase
    learning_rate: float
    """At the first step of the phase."""
    start: int
    """Optimiser steps of the run before this phase."""

    @property
    def end(self) -> int:
        """Optimiser steps of the run when this phase is done."""
        return self.start + self.settings.steps

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step of the phase, counted from 0: a tenth at each milestone passed."""
        passed = sum(milestone <= step for milestone in self.settings.milestones)
        return self.learning_rate * 0.1**passed


def plan(config: Run) -> tuple[PlannedPhase, ...]:
    """All phases of a run, at most ``1 + 2 * rounds``; the stopping rule may leave out the last ones."""
    phases = [PlannedPhase("base", 0, config.base, config.optimizer.learning_rate, 0)]
    rates = config.rri.learning_rates
    for number in range(1, config.rri.rounds + 1):
        rate = rates[min(number, len(rates)) - 1]
        for kind, settings in (("restraint", config.rri.restraint), ("relaxation", config.rri.relaxation)):
            phases.append(PlannedPhase(kind, number, settings, rate, phases[-1].end))  # type: ignore[arg-type]
    return tuple(phases)
