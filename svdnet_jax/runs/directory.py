"""The folder of a run: its settings, its environment, and the Eigenlayer's matrix at a few borders."""

import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float

from svdnet_jax.config.schema import Run
from svdnet_jax.config.serialize import FREE, differences, to_json
from svdnet_jax.errors import ConfigError
from svdnet_jax.outputs import is_json, refuse_overwrite, write_whole
from svdnet_jax.reporting.log import check_log, read_log, refuse_to_lose
from svdnet_jax.runs.checkpoint import on_disk
from svdnet_jax.runs.load import is_run, latest_place

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


@contextmanager
def open_folder(config: Run) -> Iterator[Path]:
    """Makes the folder of a run, or finds it as the same settings left it, and keeps other processes out of it.

    The settings bind from the first checkpoint on: before it there is nothing to resume.

    Raises:
        ConfigError: The folder belongs to a run with other settings (named in the message), another process works in
            it, or it cannot be written.
        LogError: It holds a log that is worth something, and no checkpoint to go on from.
    """
    folder, written = config.folder, config.folder / "config.json"
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"--out {str(folder)!a}: not a name in UTF-8, which a report cannot name") from None
    with ExitStack() as stack:
        try:
            (folder / "figures").mkdir(parents=True, exist_ok=True)
            # Let go by the system however the process ends.
            stack.enter_context(FileLock(folder / ".lock", timeout=0))
            if not has_checkpoint(folder):
                refuse_to_lose(folder / "metrics.jsonl")
                refuse_overwrite("--out", written, is_json("preset", "rri"))
                write_json(written, to_json(config))
            elif written.exists():
                # Else the checkpoint tells its settings.
                refuse_other_settings(folder, json.loads(written.read_text()), to_json(config))
        except Timeout:
            raise ConfigError(f"--out {folder}: another process is working in this folder") from None
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"--out {folder}: cannot be used as a run folder: {error}") from None
        yield folder


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder has something to go on from."""
    return bool(on_disk(folder / "checkpoints"))


def read_run_log(folder: Path) -> list[dict[str, Any]]:
    """Reads the log of a run folder, which may belong to a run that is going on.

    Raises:
        LogError: It cannot be read, or its lines are not those that the latest checkpoint was taken with.
        ConfigError: The checkpoint is damaged.
    """
    path = folder / "metrics.jsonl"
    # Somebody may have kept the log and deleted the rest.
    place = latest_place(folder) if is_run(folder) else None
    if place and place.log_offset is not None:
        check_log(path, place.log_offset, place.log_hash)
    return read_log(path)


def refuse_other_settings(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Keeps a run from being resumed as another one.

    Raises:
        ConfigError: The settings differ in more than where things lie and how the work is done; names the options.
    """
    changed = [line for line in differences(old, new) if not line.startswith(FREE)]
    if changed:
        raise ConfigError(
            f"--out {folder}: holds a run with other settings: {'; '.join(changed)}. "
            "Give those again to resume it, or another --out for a new run"
        )


def environment() -> dict[str, Any]:
    """What the run runs on: versions, devices, and the commit of this code where git knows it."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        # This file may lie, untracked, inside somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)  # noqa: S603
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown: not a git checkout"
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # training from a prepared folder needs no tensorflow-datasets
        return "not installed"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    write_whole(path, json.dumps(content, indent=2).encode())


def save_matrix(folder: Path, border: str, W: Float[np.ndarray, "C D"]) -> None:
    """Keeps W at a border (``base``, ``decorrelate``, ``relaxation``) for the pictures; the latest of a name stays."""
    path = _matrix(folder, border)
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.save(content, W)
    write_whole(path, content.getvalue())


def load_matrix(folder: Path, border: str) -> Float[np.ndarray, "C D"] | None:
    """What `save_matrix` kept, None if there was no such border."""
    path = _matrix(folder, border)
    return np.load(path, allow_pickle=False) if path.exists() else None


def _matrix(folder: Path, border: str) -> Path:
    return folder / "eigenlayer" / f"{border}.npy"
