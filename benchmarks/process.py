"""What a benchmark says of its process and its machine."""

import math
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def reset_peak() -> float:
    """Starts to measure the peak of memory anew and gives what is held now, in MB; nan where that is not told."""
    if not (control := Path("/proc/self/clear_refs")).exists():
        return math.nan
    control.write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """The most memory that the process has held since `reset_peak`, in MB; nan where it is not told."""
    return _status("VmHWM")


def _status(name: str) -> float:
    status = Path("/proc/self/status")
    found = re.search(rf"{name}:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return int(found[1]) / 1024 if found else math.nan


def machine() -> str:
    """Cores that this process may use, and their kind."""
    return f"{len(os.sched_getaffinity(0))} cores {platform.machine()}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
