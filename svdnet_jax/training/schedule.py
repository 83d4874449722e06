"""The phases of a run as data: Step 0, then restraint and relaxation of every round."""

from dataclasses import dataclass

from svdnet_jax.config.schema import Config, Phase, PhaseKind


@dataclass(frozen=True)
class ScheduledPhase:
    """A phase with its place in the run."""

    kind: PhaseKind
    round: int
    """0 for Step 0, then 1, 2, ..."""
    settings: Phase
    learning_rate: float
    """At the first step of the phase."""
    start: int
    """Optimiser steps of the run before this phase."""
    rate_before: float | None = None
    """Learning rate of the last step of the phase before; None for the first phase."""

    @property
    def end(self) -> int:
        """Optimiser steps of the run when this phase is done."""
        return self.start + self.settings.steps

    @property
    def drops(self) -> tuple[int, ...]:
        """Optimiser steps of the run after which the learning rate is a tenth of what it was."""
        return tuple(self.start + place for place in self.settings.milestones if 0 < place < self.settings.steps)

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step of the phase, from 0: warm-up, then a tenth at each milestone passed."""
        passed = sum(milestone <= step for milestone in self.settings.milestones)
        warmup = self.settings.warmup
        rise = 0.01 + 0.99 * step / warmup if step < warmup else 1.0
        return self.learning_rate * rise * 0.1**passed


def build_schedule(config: Config) -> tuple[ScheduledPhase, ...]:
    """Builds all phases of a run, at most ``1 + 2 * rounds``; the stopping rule may leave out the last ones.

    With ``rri.final`` the last round has a second restraint in place of its relaxation: in the authors' CaffeNet
    recipe it starts from the model after the last restraint, so that nothing of that relaxation is used.
    """
    phases = [ScheduledPhase("base", 0, config.base, config.optimizer.learning_rate, 0)]

    def follow(kind: PhaseKind, number: int, settings: Phase) -> None:
        rate, last = rates[min(number, len(rates)) - 1], phases[-1]
        before = last.learning_rate_at(max(last.settings.steps - 1, 0))
        phases.append(ScheduledPhase(kind, number, settings, rate, last.end, before))

    rates = config.rri.learning_rates
    for number in range(1, config.rri.rounds + 1):
        follow("restraint", number, config.rri.restraint)
        if config.rri.final and number == config.rri.rounds:
            follow("final", number, config.rri.final)
        else:
            follow("relaxation", number, config.rri.relaxation)
    return tuple(phases)
