"""Reads checkpoints of a run back: where the run was, and its state there."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import optax

from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import from_json
from svdnet_jax.errors import CheckpointError, ConfigError
from svdnet_jax.reporting.log import check_log, read_log
from svdnet_jax.runs import checkpoint
from svdnet_jax.runs.directory import RunDir, steps_on_disk
from svdnet_jax.training.events import Unreported
from svdnet_jax.training.optimizer import with_learning_rate
from svdnet_jax.training.state import TrainState

T = TypeVar("T")
TRIES = 5
"""Times that a run folder is read before what cannot be read counts as damaged: a run that is going on deletes older
checkpoints, perhaps while they are being read."""
UNVERIFIED = "saved by an older version, which kept no hash of its numbers: whether they have changed cannot be told"


class RunPosition(NamedTuple):
    """Where in its run a checkpoint is: what is stored beside the state, so that log and clock can go on too."""

    data: str
    """Fingerprint of the data set."""
    identities: int
    """Training identities (K)."""
    phase: int = 0
    """Index in the schedule; its length when the run is over."""
    step: int = 0
    """Optimizer steps of the run."""
    log_offset: int | None = None
    """Length of the log in bytes."""
    log_hash: str | None = None
    """SHA-256 of the log up to there; older versions had none."""
    phase_seconds: float = 0.0
    """Time that the phase has taken so far."""
    unreported: Unreported | None = None
    """Loss and accuracy of the steps since the last line of the log."""


class RestoredRun(NamedTuple):
    """A checkpoint read back."""

    config: Config
    position: RunPosition
    state: TrainState
    verified: bool
    """Whether its numbers are known to be those that were saved."""


Abstract = Callable[[Config, RunPosition], TrainState]
"""From settings and position to a state with the structure of the checkpoint there. It may refuse."""


def position_to_json(position: RunPosition) -> dict[str, Any]:
    """Returns what a checkpoint stores of a position."""
    fields = position._asdict()
    # The name that checkpoints of all versions have.
    return {"stream" if name == "step" else name: value for name, value in fields.items()}


def position_from_json(fields: Mapping[str, Any]) -> RunPosition:
    """Returns the position that `position_to_json` gave.

    Raises:
        TypeError: It has other fields.
    """
    return RunPosition(**{"step" if name == "stream" else name: value for name, value in fields.items()})


def abstract_state(fresh: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the shapes, dtypes and devices of a checkpoint: the target to restore it into; nothing is compiled.

    Args:
        fresh: A new state of the network, or its shapes on a device.
        optimizer: Of the phase that the checkpoint was taken in.
    """
    opt_state = jax.eval_shape(optimizer.init, fresh.params)
    if "learning_rate" in getattr(opt_state, "hyperparams", {}):
        opt_state = with_learning_rate(opt_state, 0.0)
    return on_device(fresh.replace(opt_state=opt_state), fresh.step.sharding)


def on_device(tree: TrainState, where: jax.sharding.Sharding) -> TrainState:
    """Returns the shapes and dtypes of a state as those of arrays that all lie in one place."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree)


def checkpoint_metric(metrics: Mapping[str, float]) -> float:
    """Returns the metric that ranks checkpoints: the best one is kept."""
    return metrics["mAP"]


def read_patiently(run_dir: RunDir, read: Callable[[checkpoint.Checkpoints], T]) -> T:
    """Reads from the checkpoints of a run; again if the run has gone on meanwhile.

    Raises:
        ConfigError: No run folder.
        CheckpointError: It cannot be read, and nothing has changed in the folder while it was tried.
    """
    if not run_dir.is_run:
        raise ConfigError(f"{run_dir.path}: no run folder; expected one with checkpoints/, as training makes it")
    for tries_left in reversed(range(TRIES)):
        before = run_dir.checkpoint_steps
        try:
            with checkpoint.open_checkpoints(run_dir.checkpoints, checkpoint_metric, read_only=True) as saved:
                return read(saved)
        except CheckpointError:
            # In the folder of a run that stands still nothing comes or goes.
            if not tries_left or before == run_dir.checkpoint_steps:
                raise
    raise AssertionError("the last try returns or raises")


def read_latest(saved: checkpoint.Checkpoints, abstract: Abstract) -> RestoredRun | None:
    """Reads the latest checkpoint, None if there is none.

    Args:
        saved: An open folder.
        abstract: Gives the state to restore into.

    Raises:
        CheckpointError: It cannot be read, or is not what was saved; says from which older one the run can go on.
        ConfigError: It is of another version.
    """
    complete, named = checkpoint.steps(saved), steps_on_disk(saved.folder)
    try:
        if named and named[-1] not in complete:
            raise CheckpointError(named[-1], f"{saved.folder / str(named[-1])}: the checkpoint is not complete")
        return _read(saved, complete[-1], abstract) if complete else None
    except CheckpointError as error:
        raise CheckpointError(error.step, f"{error}. {_remedy(saved, error.step, abstract)}") from error


def read_position(run_dir: RunDir) -> RunPosition | None:
    """Reads the position of the latest checkpoint of a run, which may be going on; None without a checkpoint.

    Raises:
        ConfigError: It cannot be read by this version.
    """

    def read(saved: checkpoint.Checkpoints) -> RunPosition | None:
        stored = checkpoint.read_latest_stored(saved)
        return stored and read_metadata(saved.folder, stored)[1]

    return read_patiently(run_dir, read)


def read_run_log(folder: Path) -> list[dict[str, Any]]:
    """Reads the log of a run, which may be going on.

    Raises:
        LogError: It cannot be read, or its lines are not those that the latest checkpoint was taken with.
        ConfigError: The checkpoint is damaged.
    """
    run_dir = RunDir(folder)
    # Somebody may have kept the log and deleted the rest.
    position = read_position(run_dir) if run_dir.is_run else None
    if position and position.log_offset is not None:
        check_log(run_dir.log, position.log_offset, position.log_hash)
    return read_log(run_dir.log)


def read_metadata(folder: Path, stored: checkpoint.StoredCheckpoint) -> tuple[Config, RunPosition]:
    """Returns settings and position of a checkpoint.

    Raises:
        CheckpointError: They are missing, or of another version.
    """
    try:
        return from_json(stored.metadata["config"]), position_from_json(stored.metadata["place"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            stored.step,
            f"{folder / str(stored.step)}: the checkpoint is damaged, or was written by another version ({error})",
        ) from error


def _read(saved: checkpoint.Checkpoints, step: int, abstract: Abstract) -> RestoredRun:
    stored = checkpoint.read_stored(saved, step)
    config, position = read_metadata(saved.folder, stored)
    state = checkpoint.restore(saved, step, abstract(config, position))
    return RestoredRun(config, position, state, stored.hash is not None)


def _remedy(saved: checkpoint.Checkpoints, damaged: int | None, abstract: Abstract) -> str:
    """Says what to do about a damaged checkpoint: go on from the latest other one that can be read, if any."""
    for step in reversed(checkpoint.steps(saved)):
        if step != damaged:
            try:
                _read(saved, step, abstract)
            except ConfigError:
                continue
            return f"Take that folder away to go on from step {step}, whose checkpoint is sound"
    return "There is no other one to go on from: put that folder back from a copy, or give another `out` for a new run"
