"""A trained run read back from its folder: for other data, and for other runs to start from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from svdnet_jax.config import ConfigError, PhaseKind, Run
from svdnet_jax.models.svdnet import SVDNet, build
from svdnet_jax.settings import from_json
from svdnet_jax.training import checkpoint
from svdnet_jax.training.plan import PlannedPhase, plan
from svdnet_jax.training.rri import optimizer_at, optimizers
from svdnet_jax.training.state import TrainState, begin, create
from svdnet_jax.training.step import inputs_of


class Trained(NamedTuple):
    """The latest checkpoint of a run."""

    config: Run
    model: SVDNet
    state: TrainState
    finished: bool
    """Whether all of its phases were done."""


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
    phase_seconds: float = 0.0
    """Time that the phase has taken so far."""


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
    if not is_run(folder):
        raise ConfigError(
            f"{folder}: no run folder; expected a folder with checkpoints/, as experiments.market_rri makes"
        )
    with checkpoint.checkpoints(folder / "checkpoints", by_map, read_only=True) as saved:
        found = checkpoint.latest(saved)
        if found is None:
            raise ConfigError(f"{folder}: the run has no complete checkpoint yet")
        config, place = read_metadata(folder, found.metadata)
        model = build(config.model, place.identities)
        size = inputs_of(config).size
        mean = np.zeros((*size, 3), np.float32) if config.model.mean_image else np.zeros(3, np.float32)
        fresh = create(model, size, config.seed, mean)
        phases, by_kind = plan(config), optimizers(fresh.params, config)
        state = checkpoint.restore(saved, found.step, begun(place, phases, by_kind, fresh))
    return Trained(config, model, state, place.phase >= len(phases))


def read_metadata(folder: Path, metadata: dict[str, Any]) -> tuple[Run, Place]:
    """Settings and place of a checkpoint.

    Raises:
        ConfigError: They are of another version.
    """
    try:
        return from_json(metadata["config"]), Place(**metadata["place"])
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder}: the checkpoint is damaged, or was written by another version ({error})"
        ) from error


def finished_note(trained: Trained) -> str:
    """Says of which moment of its run a trained state is."""
    step = int(jax.device_get(trained.state.step))
    return f"step {step}" + ("" if trained.finished else " of an unfinished run")
