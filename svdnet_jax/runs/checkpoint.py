"""Checkpoints by orbax; the only module that knows of it.

A checkpoint holds the whole `TrainState` and, as JSON beside it, the settings of the run and what the outside
world needs to go on (length of the log, seconds spent). Priority on start: the latest complete checkpoint of the
run folder, else a new run. A save is atomic: what a killed process leaves half-written has a temporary name
that is never restored.

Orbax stores no checksum that its reader verifies, so each checkpoint carries two SHA-256 of ours: of the numbers of the
state and of the JSON. Both are verified whenever it is read.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from svdnet_jax.errors import CheckpointError, ConfigError, MachineError
from svdnet_jax.runs.quiet import logs_quiet, readers_quiet
from svdnet_jax.training.state import TrainState

KEPT = 2
"""Latest checkpoints that stay, so that there is one to go on from when the last is damaged."""
REASON = 300
"""Characters of somebody else's error message that are shown."""
HASHES = "sha256"
"""Where the metadata of a checkpoint has its hashes."""
_PLAIN = re.compile(r"[A-Za-z0-9/._=+,@ -]*")
"""Paths that orbax takes as they are. It looks for files by patterns that begin with its own folder, so that brackets,
`*`, `?` and backslashes mean something else there; `gs:` is a bucket to it; and its C++ wants UTF-8."""


class Checkpoints(NamedTuple):
    """An open folder of checkpoints."""

    folder: Path
    orbax: ocp.training.Checkpointer


class StoredCheckpoint(NamedTuple):
    """What a checkpoint holds beside its state."""

    step: int
    metadata: dict[str, Any]
    hash: str | None
    """Of the state; None in a checkpoint of an older version, which cannot be verified."""


@contextmanager
def open_checkpoints(folder: Path, best: Callable[[Any], float], read_only: bool = False) -> Iterator[Checkpoints]:
    """Opens a folder of checkpoints, which keeps the latest `KEPT` and the best one.

    Args:
        folder: Made if it is not there.
        best: From the metrics given to `save` to the number of which the largest is kept.
        read_only: Touch nothing.

    Raises:
        ConfigError: The folder cannot be used.
        CheckpointError: What is in it cannot be listed.
    """
    keep = ocp.training.preservation_policies
    with ExitStack() as stack:
        path = stack.enter_context(_plain(folder))
        stack.enter_context(logs_quiet())
        if read_only:
            # Between one read and the next too.
            stack.enter_context(readers_quiet())
        with _damage(folder, None):
            orbax = ocp.training.Checkpointer(
                path,
                # The default policy skips a save while an older one is being written.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=keep.AnyPreservationPolicy(
                    [keep.LatestN(KEPT), keep.BestN(get_metric_fn=best, n=1, keep_checkpoints_without_metrics=False)]
                ),
                # Half-written checkpoints may belong to a run that is going on, when somebody only reads.
                cleanup_tmp_directories=not read_only,
            )
        try:
            yield Checkpoints(folder, orbax)
        except BaseException:
            # Closing fails once more where a save has failed, and would hide why.
            with suppress(Exception):
                orbax.close()
            raise
        orbax.close()


def save(
    saved: Checkpoints, state: TrainState, metadata: Mapping[str, Any], metrics: Mapping[str, float] | None = None
) -> None:
    """Writes a state, named by its step, and returns when it is safe on disk.

    The first checkpoint of a folder is read back: where checkpoints cannot be read, that shows now and not at the end.

    Raises:
        MachineError: It cannot be written.
        ConfigError: It cannot be read back.
    """
    step, first = int(state.step), not steps(saved)
    hashes = {"state": state_hash(state), "metadata": _text_hash(metadata)}
    where = f"{saved.folder / str(step)}: the checkpoint"
    try:
        written = saved.orbax.save(
            step,
            state,
            custom_metadata={**metadata, HASHES: hashes},
            metrics=None if metrics is None else dict(metrics),
        )
    except Exception as error:  # orbax's and its libraries' own, and the system's
        raise MachineError(
            f"{where} could not be written: {_reason(error)}. It takes {_megabytes(_bytes(state))} and "
            f"{_megabytes(_free(saved.folder))} are free. Older checkpoints and the log are as they were: make room, "
            "or see to the file system, and the same command goes on from the last one to the same result"
        ) from error
    if not written:
        raise ConfigError(f"{where} was not written: orbax declined, as if it were there already. Give another `out`")
    if first:
        try:
            restore(saved, step, state)
        except CheckpointError as error:
            raise ConfigError(
                f"{where} was written and then read back, and is not what was saved ({_reason(error)}). Nothing "
                "that a run saves there could be used; give another `out`, on another file system"
            ) from error


def steps(saved: Checkpoints) -> list[int]:
    """Returns steps of the complete checkpoints, from the oldest to the latest."""
    return [each.step for each in saved.orbax.checkpoints]


def read_latest_stored(saved: Checkpoints) -> StoredCheckpoint | None:
    """Returns what the latest complete checkpoint holds beside its state, None if there is none.

    Raises:
        CheckpointError: It cannot be read, or is not what was saved.
    """
    complete = steps(saved)
    return read_stored(saved, complete[-1]) if complete else None


def read_stored(saved: Checkpoints, step: int) -> StoredCheckpoint:
    """Returns what the checkpoint of a step holds beside its state.

    Raises:
        CheckpointError: It cannot be read, or is not what was saved.
    """
    with _damage(saved.folder, step):
        metadata = dict(saved.orbax.metadata(step).custom_metadata)
        # One of an older version has none.
        hashes = metadata.pop(HASHES, None)
        if hashes is not None and hashes["metadata"] != _text_hash(metadata):
            raise ValueError("its settings and its place in the run are not those that were saved")
    return StoredCheckpoint(step, metadata, None if hashes is None else hashes["state"])


def restore(saved: Checkpoints, step: int, like: TrainState) -> TrainState:
    """Reads the state of a step.

    Args:
        saved: An open folder.
        step: One of `steps`.
        like: A state of the same structure, shapes and dtypes; its values are not looked at.

    Raises:
        CheckpointError: It cannot be read, or is not what was saved.
    """
    expected = read_stored(saved, step).hash
    abstract = jax.tree.map(ocp.arrays.to_shape_dtype_struct, like)
    with _damage(saved.folder, step):
        state = saved.orbax.load(step, abstract)
        if expected is not None and state_hash(state) != expected:
            raise ValueError("its numbers are not those that were saved: bits have changed on the way or on the disk")
    return state


def state_hash(state: TrainState) -> str:
    """Hashes path, type, shape and bytes of every array of a state, which this process has whole (SHA-256)."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(jax.device_get(leaf), order="C")
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _text_hash(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """Returns a path to the folder that orbax takes as it is: its own, or a temporary link to it."""
    whole = folder.resolve()
    if _PLAIN.fullmatch(str(whole)):
        yield whole
        return
    with ExitStack() as stack:
        try:
            whole.mkdir(parents=True, exist_ok=True)
            link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svdnet-jax-"))) / "checkpoints"
            link.symlink_to(whole, target_is_directory=True)
            if not _PLAIN.fullmatch(str(link)):
                raise OSError("its name has such characters too")
        except OSError as error:
            raise ConfigError(
                f"{whole}: orbax cannot write under this name, and no link to it could be made in "
                f"{tempfile.gettempdir()} ({error}). Name the folder, and those above it, with letters, digits and "
                "any of . _ = + , @ - only, or set TMPDIR to a folder where links can be made"
            ) from None
        yield link


@contextmanager
def _damage(folder: Path, step: int | None) -> Iterator[None]:
    """Says which checkpoint cannot be read; orbax fails in many ways on one with missing, cut or changed files."""
    try:
        with readers_quiet():
            yield
    except CheckpointError:
        raise
    except Exception as error:
        where = folder if step is None else folder / str(step)
        if step is None and (metrics := _damaged_metrics(folder)):
            raise CheckpointError(
                None,
                f"{metrics}: is damaged ({_reason(error)}). Take its folder away: it only tells which checkpoint was "
                "best, and nothing else is lost",
            ) from error
        raise CheckpointError(
            step, f"{where}: the checkpoint is damaged, or of another version ({_reason(error)})"
        ) from error


def _damaged_metrics(folder: Path) -> Path | None:
    """Returns the first file of metrics that is no JSON."""
    for path in sorted(folder.glob("*/metrics/metrics")):
        try:
            json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return path
    return None


def _bytes(state: TrainState) -> int:
    """Returns about how much a state takes on disk."""
    return sum(leaf.size * 4 for leaf in jax.tree.leaves(state))


def _free(folder: Path) -> int:
    """Returns the bytes that are free where a folder is; 0 where it is gone."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _reason(error: Exception) -> str:
    """Returns the first line of an error that says something: others tell where in their code it was raised."""
    if "No space left" in (text := str(error).strip()):
        return os.strerror(errno.ENOSPC)
    text = text.partition("\n")[0][:REASON]
    return text if isinstance(error, CheckpointError) else f"{type(error).__name__}: {text}"
