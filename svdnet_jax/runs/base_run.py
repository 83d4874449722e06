"""A Step 0 shared by several runs: each starts its rounds from the base run, as if it had trained Step 0 itself.

Variants of the rounds are compared from one converged model. Step 0 is trained once, by a run without rounds (the base
run), and each variant names its folder (`base_from`). State, log, embeddings and checkpoint are then those of a run
that trained Step 0 itself, to the bit; only the clock's figures are the base run's.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from svdnet_jax.config.schema import RRI, Config, Penalty
from svdnet_jax.config.serialize import RESUMABLE_FIELDS, diff, to_json
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.runs.load import load_run
from svdnet_jax.runs.restore import RunPosition, read_run_log
from svdnet_jax.training.events import Record
from svdnet_jax.training.state import TrainState

OF_ROUNDS = ("rri.", "preset:")
"""Beginnings of lines of `diff` that say nothing of Step 0."""


class BaseRun(NamedTuple):
    """What a run without rounds has left behind."""

    folder: Path
    state: TrainState
    """After its last step."""
    start: Record
    """The `start` line of its log."""
    steps: list[Record]
    """The `step` lines."""
    phase: Record
    """The `phase` line of Step 0."""
    verified: bool = True
    """Whether its numbers are known to be those that were saved."""


def without_rounds(config: Config) -> Config:
    """Returns the settings of the base run of a run: no rounds, and no penalty that begins in them."""
    loss = config.loss
    if loss.penalty.begin == "rounds":
        loss = replace(loss, penalty=Penalty())
    return replace(config, loss=loss, rri=RRI(rounds=0), base_from=None)


def read_base_run(config: Config) -> BaseRun | None:
    """Reads the base run that settings name; None if they name none.

    Raises:
        ConfigError: It is no finished run without rounds, or its Step 0 is not the one that the settings ask for.
    """
    if (folder := config.base_from) is None:
        return None
    trained = load_run(folder)
    if trained.config.rri.rounds or not trained.finished:
        wrong = "has rounds of its own" if trained.config.rri.rounds else "has not ended"
        raise ConfigError(f"`base_from` {folder}: {wrong}; give a finished run with `rri.rounds` 0")
    free, wanted = (*RESUMABLE_FIELDS, *OF_ROUNDS), to_json(without_rounds(config))
    changed = [line for line in diff(to_json(trained.config), wanted) if not line.startswith(free)]
    if changed:
        raise ConfigError(f"`base_from` {folder}: its Step 0 had other settings: {'; '.join(changed)}")
    records = read_run_log(folder)
    start, steps, phases = (_events(records, event) for event in ("start", "step", "phase"))
    if len(start) != 1 or len(phases) != 1 or phases[0]["step"] != int(trained.state.step):
        raise ConfigError(f"`base_from` {folder}: its log is not that of its checkpoint")
    return BaseRun(folder, trained.state, start[0], steps, phases[0], trained.verified)


def after_base_run(base: BaseRun, data: str, identities: int) -> RunPosition:
    """Returns the position of a run whose Step 0 is over.

    Args:
        base: The base run.
        data: Fingerprint of the data set at hand.
        identities: Its training identities.

    Raises:
        DataError: The base run was trained on something else.
    """
    if base.start["fingerprint"] != data:
        raise DataError(f"`base_from` {base.folder}: was trained on other images or identities")
    return RunPosition(data, identities, phase=1, step=int(base.state.step))


def _events(records: Sequence[Record], event: str) -> list[Record]:
    return [record for record in records if record["event"] == event]
