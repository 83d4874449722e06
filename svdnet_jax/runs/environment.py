"""Versions, devices and the commit of this code, for environment.json."""

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from svdnet_jax.reporting.terminal import printable

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def environment() -> dict[str, Any]:
    """Returns versions, devices, the commit of this code where git knows it, the command and when it began."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # This file may lie, untracked, inside somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)  # noqa: S603
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown: not a git checkout"
    return {
        "command": printable(shlex.join(sys.argv)),
        "begun": time.strftime("%Y-%m-%d %H:%M:%S %z"),
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
