"""Step 0 shared by several runs: one that starts its rounds from another's, and goes on as if it had trained it itself.

Variants of the rounds are compared from one converged model. Step 0 is trained once, by a run without rounds
(``--rri.rounds 0``), and each variant names it with ``--base-from``. State, log, embeddings and checkpoint are then
those of a run that trained Step 0 itself, to the bit; only the clock's figures are the other run's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from svdnet_jax.config.schema import RRI, Penalty, Run
from svdnet_jax.config.serialize import FREE, differences, to_json
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.reporting.log import Log
from svdnet_jax.runs.directory import read_run_log
from svdnet_jax.runs.load import Place, load_trained
from svdnet_jax.training.log_interval import Record
from svdnet_jax.training.state import TrainState

LATER = ("rri.", "preset:")
"""Beginnings of lines of `differences` that say nothing of Step 0."""


class StepZero(NamedTuple):
    """What a run without rounds has left behind."""

    folder: Path
    state: TrainState
    """After its last step."""
    start: Record
    """The first line of its log."""
    steps: list[Record]
    """The lines about training."""
    border: Record
    """The line of its only phase."""
    verified: bool = True
    """Whether its numbers are known to be those that were saved."""


def without_rounds(config: Run) -> Run:
    """The settings of a run that trains their Step 0 only: no rounds, and no penalty that begins in them."""
    loss = config.loss
    if loss.penalty.begin == "rounds":
        loss = replace(loss, penalty=Penalty())
    return replace(config, loss=loss, rri=RRI(rounds=0), base_from=None)


def read_step_zero(config: Run) -> StepZero | None:
    """The Step 0 that settings name; None if they name none.

    Raises:
        ConfigError: It is no finished run without rounds, or its Step 0 is not the one that the settings ask for.
    """
    if (folder := config.base_from) is None:
        return None
    trained = load_trained(folder)
    if trained.config.rri.rounds or not trained.finished:
        wrong = "has rounds of its own" if trained.config.rri.rounds else "has not ended"
        raise ConfigError(f"--base-from {folder}: {wrong}; give a finished run with --rri.rounds 0")
    free, wanted = (*FREE, *LATER), to_json(without_rounds(config))
    changed = [line for line in differences(to_json(trained.config), wanted) if not line.startswith(free)]
    if changed:
        raise ConfigError(f"--base-from {folder}: its Step 0 had other settings: {'; '.join(changed)}")
    records = read_run_log(folder)
    start, steps, borders = (_events(records, event) for event in ("start", "step", "phase"))
    if len(start) != 1 or len(borders) != 1 or borders[0]["step"] != int(trained.state.step):
        raise ConfigError(f"--base-from {folder}: its log is not that of its checkpoint")
    return StepZero(folder, trained.state, start[0], steps, borders[0], trained.verified)


def after_step_zero(zero: StepZero, data: str, identities: int) -> Place:
    """The place of a run whose Step 0 is over.

    Args:
        zero: Step 0.
        data: Fingerprint of the data set at hand.
        identities: Its training identities.

    Raises:
        DataError: Step 0 was trained on something else.
    """
    if zero.start["fingerprint"] != data:
        raise DataError(f"--base-from {zero.folder}: was trained on other images or identities")
    return Place(data, identities, phase=1, stream=int(zero.state.step))


def retell(
    zero: StepZero, start: Record, log: Log | None, emit: Callable[[Record, TrainState], None], state: TrainState
) -> None:
    """Writes what an unbroken run would have in its log and its folder when Step 0 is over.

    Args:
        zero: Step 0.
        start: The first line of the run at hand.
        log: Its log, on the first of several processes.
        emit: What writes a line, and keeps what belongs to it.
        state: The run's state after Step 0.
    """
    emit({**start, "weights": zero.start["weights"]}, state)
    # Not shown: nobody wants to see the lines of training that is not going on.
    if log:
        for record in zero.steps:
            log.write(record)
    emit(zero.border, state)


def _events(records: Sequence[Record], event: str) -> list[Record]:
    return [record for record in records if record["event"] == event]
