"""Checkpoints by orbax; the only module that knows of it.

A checkpoint holds the whole `TrainState` and, as JSON beside it, the settings of the run and what the outside
world needs to go on (length of the log, seconds spent). Priority on start: the latest complete checkpoint of the
run folder, else a new run. A save is atomic: what a killed process leaves half-written has a temporary name
that is never restored.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from svdnet_jax.config import ConfigError
from svdnet_jax.training.state import TrainState


class Saved(NamedTuple):
    """The latest checkpoint of a folder."""

    step: int
    metadata: dict[str, Any]


@contextmanager
def checkpoints(
    folder: Path, best: Callable[[Any], float], read_only: bool = False
) -> Iterator[ocp.training.Checkpointer]:
    """Opens a folder of checkpoints, which keeps the latest and the best one.

    Args:
        folder: Made if it is not there.
        best: From the metrics given to `save` to the number of which the largest is kept.
        read_only: Touch nothing.
    """
    keep = ocp.training.preservation_policies
    checkpointer = ocp.training.Checkpointer(
        folder.resolve(),
        # The default policy skips a save while an older one is being written.
        save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        preservation_policy=keep.AnyPreservationPolicy(
            [keep.LatestN(1), keep.BestN(get_metric_fn=best, n=1, keep_checkpoints_without_metrics=False)]
        ),
        # Half-written checkpoints may belong to a run that is going on, when somebody only reads.
        cleanup_tmp_directories=not read_only,
    )
    try:
        yield checkpointer
    finally:
        checkpointer.close()


def save(
    checkpointer: ocp.training.Checkpointer,
    state: TrainState,
    metadata: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Writes a state, named by its step, and returns when it is safe on disk."""
    checkpointer.save(
        int(state.step),
        state,
        custom_metadata=dict(metadata),
        metrics=None if metrics is None else dict(metrics),
    )


def latest(checkpointer: ocp.training.Checkpointer) -> Saved | None:
    """Step and metadata of the latest complete checkpoint, None if there is none.

    Raises:
        ConfigError: It is damaged.
    """
    if checkpointer.latest is None:
        return None
    step = checkpointer.latest.step
    with _damage(checkpointer, step):
        return Saved(step, checkpointer.metadata(step).custom_metadata)


def restore(checkpointer: ocp.training.Checkpointer, step: int, like: TrainState) -> TrainState:
    """Reads the state of a step.

    Args:
        checkpointer: An open folder.
        step: One that `latest` named.
        like: A state of the same structure, shapes and dtypes; its values are not looked at.

    Raises:
        ConfigError: It is damaged.
    """
    abstract = jax.tree.map(ocp.arrays.to_shape_dtype_struct, like)
    with _damage(checkpointer, step):
        return checkpointer.load(step, abstract)


@contextmanager
def _damage(checkpointer: ocp.training.Checkpointer, step: int) -> Iterator[None]:
    """Says which checkpoint cannot be read; orbax fails in many ways on one with missing or cut files."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        where = f"{checkpointer.directory}/{step}"
        raise ConfigError(
            f"{where}: the checkpoint is damaged, or of another version ({type(error).__name__}: {reason}). "
            "Take that folder away to go on from an older checkpoint, or give another --out"
        ) from error
