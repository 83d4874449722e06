"""A trained run read back from its folder: for other data, and for other runs to start from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
import optax

from svdnet_jax.config.schema import PhaseKind, Run
from svdnet_jax.config.serialize import from_json
from svdnet_jax.errors import CheckpointError, ConfigError
from svdnet_jax.models.svdnet import SVDNet, build
from svdnet_jax.runs import checkpoint
from svdnet_jax.training.loop import optimizer_at, optimizers
from svdnet_jax.training.schedule import PlannedPhase, plan
from svdnet_jax.training.state import TrainState, begin, create
from svdnet_jax.training.step import inputs_of

T = TypeVar("T")
TRIES = 5
"""Times that a run folder is looked at before what cannot be read there counts as damaged: a run that is going on takes
older checkpoints away, perhaps while they are being read."""
NO_HASH = "saved by an older version, which kept no hash of its numbers: whether they have changed cannot be told"


class Trained(NamedTuple):
    """The latest checkpoint of a run."""

    config: Run
    model: SVDNet
    state: TrainState
    finished: bool
    """Whether all of its phases were done."""
    verified: bool = True
    """Whether its numbers are known to be those that were saved."""


class Place(NamedTuple):
    """What a checkpoint says beside the state, so that the outside of the loop can go on too."""

    data: str
    """Fingerprint of the data set."""
    identities: int
    """Training identities (K)."""
    phase: int = 0
    stream: int = 0
    """Position in the stream of batches."""
    log_offset: int | None = None
    """Length of the log in bytes."""
    log_hash: str | None = None
    """SHA-256 of the log up to there; older versions had none."""
    phase_seconds: float = 0.0
    """Time that the phase has taken so far."""
    unreported: Mapping[str, Sequence[float]] = {}
    """Loss and accuracy of the steps since the last line of the log."""


class Found(NamedTuple):
    """A checkpoint read back."""

    config: Run
    place: Place
    state: TrainState
    verified: bool
    """Whether its numbers are known to be those that were saved."""


def begun(
    place: Place,
    phases: Sequence[PlannedPhase],
    by_kind: Mapping[PhaseKind, optax.GradientTransformation],
    fresh: TrainState,
) -> TrainState:
    """A state of the structure, shapes and dtypes that the checkpoint of a place has."""
    rate = phases[place.phase].learning_rate_at(0) if place.phase < len(phases) else 0.0
    return begin(fresh, place.phase, optimizer_at(place.phase, phases, by_kind), fresh.cursor.correlation, rate)


def by_map(metrics: Mapping[str, float]) -> float:
    """By what the best checkpoint is chosen."""
    return metrics["mAP"]


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run."""
    return (path / "checkpoints").is_dir()


def load_trained(folder: Path) -> Trained:
    """Reads the latest checkpoint of a run folder, which may belong to a run that is going on.

    Raises:
        ConfigError: There is none, or it cannot be read by this version.
    """

    def like(config: Run, place: Place) -> TrainState:
        size = inputs_of(config).size
        mean = np.zeros((*size, 3), np.float32) if config.model.mean_image else np.zeros(3, np.float32)
        fresh = create(build(config.model, place.identities), size, config.seed, mean)
        return begun(place, plan(config), optimizers(fresh.params, config), fresh)

    found = _patiently(folder, lambda saved: read_latest(saved, like))
    if found is None:
        raise ConfigError(f"{folder}: the run has no complete checkpoint yet")
    config, place, state, verified = found
    finished = place.phase >= len(plan(config))
    return Trained(config, build(config.model, place.identities), state, finished, verified)


def latest_place(folder: Path) -> Place | None:
    """The place of the latest checkpoint of a run folder, which may belong to a run that is going on; None without one.

    Raises:
        ConfigError: It cannot be read by this version.
    """

    def look(saved: checkpoint.Checkpoints) -> Place | None:
        found = checkpoint.latest(saved)
        return found and read_metadata(saved.folder, found)[1]

    return _patiently(folder, look)


def _patiently(folder: Path, read: Callable[[checkpoint.Checkpoints], T]) -> T:
    """Reads from the checkpoints of a run folder; again when the run has gone on meanwhile."""
    if not is_run(folder):
        raise ConfigError(
            f"{folder}: no run folder; expected a folder with checkpoints/, as experiments.market_rri makes"
        )
    kept = folder / "checkpoints"
    for left in reversed(range(TRIES)):
        before = checkpoint.on_disk(kept)
        try:
            with checkpoint.checkpoints(kept, by_map, read_only=True) as saved:
                return read(saved)
        except CheckpointError:
            # In the folder of a run that stands still nothing comes or goes.
            if not left or before == checkpoint.on_disk(kept):
                raise
    raise AssertionError("the last try returns or raises")


def read_latest(saved: checkpoint.Checkpoints, like: Callable[[Run, Place], TrainState]) -> Found | None:
    """Reads the latest checkpoint, None if there is none.

    Args:
        saved: An open folder.
        like: From settings and place to a state of the structure that the checkpoint has. It may refuse.

    Raises:
        CheckpointError: It cannot be read, or is not what was saved; says from which older one the run can go on.
        ConfigError: It is of another version.
    """
    steps, named = checkpoint.steps(saved), checkpoint.on_disk(saved.folder)
    try:
        if named and named[-1] not in steps:
            raise CheckpointError(named[-1], f"{saved.folder / str(named[-1])}: the checkpoint is not complete")
        return _read(saved, steps[-1], like) if steps else None
    except CheckpointError as error:
        raise CheckpointError(error.step, f"{error}. {_way_out(saved, error.step, like)}") from error


def _read(saved: checkpoint.Checkpoints, step: int, like: Callable[[Run, Place], TrainState]) -> Found:
    found = checkpoint.look(saved, step)
    config, place = read_metadata(saved.folder, found)
    state = checkpoint.restore(saved, step, like(config, place))
    return Found(config, place, state, found.hash is not None)


def _way_out(saved: checkpoint.Checkpoints, damaged: int | None, like: Callable[[Run, Place], TrainState]) -> str:
    """What can be done about a damaged checkpoint: go on from the latest other one that can be read, if any."""
    for step in reversed(checkpoint.steps(saved)):
        if step != damaged:
            try:
                _read(saved, step, like)
            except ConfigError:
                continue
            return f"Take that folder away to go on from step {step}, whose checkpoint is sound"
    return "There is no other one to go on from: put that folder back from a copy, or give another --out for a new run"


def read_metadata(folder: Path, found: checkpoint.Saved) -> tuple[Run, Place]:
    """Settings and place of a checkpoint.

    Raises:
        CheckpointError: They are missing, or of another version.
    """
    try:
        return from_json(found.metadata["config"]), Place(**found.metadata["place"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            found.step,
            f"{folder / str(found.step)}: the checkpoint is damaged, or was written by another version ({error})",
        ) from error


def finished_note(trained: Trained) -> str:
    """Says of which moment of its run a trained state is."""
    step = int(jax.device_get(trained.state.step))
    return (
        f"step {step}"
        + ("" if trained.finished else " of an unfinished run")
        + ("" if trained.verified else f" ({NO_HASH})")
    )
