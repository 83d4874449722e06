"""Decides what a run starts from: its latest checkpoint, else a base run's Step 0, else new weights."""

from pathlib import Path
from typing import NamedTuple

import optax
from rich.console import Console

from svdnet_jax.config.schema import Config, Model
from svdnet_jax.config.serialize import to_json
from svdnet_jax.data.types import Dataset, fingerprint, labels
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.models.pretrained.load import Pretrained, load_pretrained
from svdnet_jax.reporting.terminal import say
from svdnet_jax.runs.base_run import BaseRun, after_base_run, read_base_run
from svdnet_jax.runs.checkpoint import Checkpoints
from svdnet_jax.runs.directory import RunDir, refuse_other_settings
from svdnet_jax.runs.load import finished_note, load_run
from svdnet_jax.runs.restore import UNVERIFIED, RunPosition, abstract_state, read_latest
from svdnet_jax.training.init import as_pretrained, check_start
from svdnet_jax.training.loop import Task, optimizer_at
from svdnet_jax.training.state import TrainState, begin_phase

RANDOM_WEIGHTS = (
    "No `model.weights` given: the backbone starts from random weights. Published results start from ImageNet's; "
    "docs/recipes.md says which files can be read."
)

EIGENLAYER_ANEW = "the Eigenlayer starts anew; `model.keep_eigenlayer` takes that of the run along, and its neck"


class Start(NamedTuple):
    """A state to train from, and where in the run it is."""

    state: TrainState
    position: RunPosition
    resumed: bool
    """Whether it is from a checkpoint of the run itself."""


def read_source(config: Config, console: Console) -> Pretrained | BaseRun | None:
    """Reads what a new run starts from, and checks that it fits; a resumed run has its own weights.

    Raises:
        ConfigError: It cannot be read, or does not fit the settings.
    """
    if base := read_base_run(config):
        if not base.verified:
            say(console, f"note: {base.folder}: {UNVERIFIED}")
        return base
    weights = read_weights(config.model)
    check_start(config, weights)
    if weights and weights.note:
        say(console, f"{weights.source}: {weights.note}")
    if weights is None and config.model.backbone != "mini":
        say(console, RANDOM_WEIGHTS)
    return weights


def read_weights(model: Model) -> Pretrained | None:
    """Reads the weights that a network starts from, of a file or of another run; None for random ones.

    Raises:
        ConfigError: They cannot be read, or an Eigenlayer is wanted of what has none.
    """
    spec, keep = model.weights, model.keep_eigenlayer
    if spec is None:
        return None
    if RunDir(Path(spec)).is_run:
        trained = load_run(spec)
        source = f"{spec}, {finished_note(trained)}" + (", with its Eigenlayer" if keep else "")
        if keep and not trained.config.model.embedding_dim:
            raise ConfigError(f"`model.keep_eigenlayer`: {spec} is a run without an Eigenlayer; leave it out")
        weights = as_pretrained(trained.state, source, (trained.config.model.layout,), keep_eigenlayer=keep)
        return weights if keep or not model.embedding_dim else weights._replace(note=EIGENLAYER_ANEW)
    if keep:
        raise ConfigError(f"`model.keep_eigenlayer`: {spec} is not the folder of a run; files hold a backbone alone")
    return load_pretrained(spec)


def restore_or_start(
    task: Task,
    fresh: TrainState,
    base: BaseRun | None,
    dataset: Dataset,
    run_dir: RunDir,
    saved: Checkpoints,
    console: Console,
) -> Start:
    """Returns what training goes on from: the latest checkpoint of the run, else its base run, else the fresh state.

    Args:
        task: What is trained.
        fresh: The state before the first step; with a base run, the one after its last.
        base: The base run, if any.
        dataset: What the run trains on.
        run_dir: Its folder.
        saved: Its checkpoints.
        console: For notes.

    Raises:
        ConfigError: The checkpoints are damaged, or of a run with other settings.
        DataError: They, or the base run, are of a run on other data.
    """
    data, identities = fingerprint(dataset), labels(dataset.train.pids)[1]
    optimizers = {kind: compiled.optimizer for kind, compiled in task.compiled.items()}

    def restore_target(stored: Config, position: RunPosition) -> TrainState:
        refuse_other_settings(run_dir, to_json(stored), to_json(task.config))
        if position.data != data:
            raise DataError(
                f"`out` {run_dir.path}: the images or identities of {dataset.name} are not those it began with"
            )
        return abstract_state(fresh, optimizer_at(position.phase, task.schedule, optimizers))

    restored = read_latest(saved, restore_target)
    if restored is None:
        position = after_base_run(base, data, identities) if base else RunPosition(data, identities)
        optimizer = optimizer_at(position.phase, task.schedule, optimizers)
        return Start(_begun(fresh, position.phase, task, optimizer), position, resumed=False)
    if not restored.verified:
        say(console, f"note: {run_dir.path}: {UNVERIFIED}")
    return Start(restored.state, restored.position, resumed=True)


def _begun(fresh: TrainState, phase: int, task: Task, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state at the start of a phase, or after the last."""
    rate = task.schedule[phase].learning_rate_at(0) if phase < len(task.schedule) else 0.0
    return begin_phase(fresh, optimizer, rate, phase=phase, correlation=fresh.cursor.correlation)
