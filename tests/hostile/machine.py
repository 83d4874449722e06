"""A machine that fails: runs killed at random moments, and disks that are full after a random number of bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from tiny_run import arguments

from svdnet_jax.reporting.log import read_log
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.load import load_run

ROOT = Path(__file__).parents[2]
CLOCK = ("images_per_second", "seconds")
CHAIN = 10
"""Times that one run is killed before it may end."""
LARGEST = 6800
"""Kilobytes that hold all of a tiny run."""


def start(out: Path, cache: Path, *more: str) -> "subprocess.Popen[str]":
    """Starts the tiny preset, on one device: threads of several share sums in another way."""
    command = [sys.executable, "-m", "experiments.market_rri", *arguments(out, cache, "--parallel", "single", *more)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole(out: Path, cache: Path) -> float:
    """Runs to the end; returns the seconds that takes when programs are compiled."""
    for folder in (out.with_name(f"{out.name}-first"), out):
        began = time.monotonic()
        _, errors = (process := start(folder, cache)).communicate()
        assert process.returncode == 0, errors
    return time.monotonic() - began


def difference(one: Path, other: Path) -> str:
    """Returns what differs between the logs or the weights of two runs; empty if nothing does."""
    logs = [
        [{k: v for k, v in r.items() if k not in CLOCK} for r in read_log(RunDir(run).log) if r["event"] != "resume"]
        for run in (one, other)
    ]
    if logs[0] != logs[1]:
        return "the logs differ"
    leaves = [jax.tree.leaves(load_run(run).state.params) for run in (one, other)]
    same = all(np.array_equal(ours, theirs) for ours, theirs in zip(*leaves, strict=True))
    return "" if same else "the weights differ"


def killed(unbroken: Path, seconds: float, cache: Path, folder: Path, rng: np.random.Generator) -> tuple[int, str]:
    """Kills one run up to ten times, wherever it is, and lets it end.

    Returns:
        How often it was killed, and what was wrong; empty if it ended as the unbroken one.
    """
    kills = 0
    while kills < CHAIN:
        process = start(folder, cache)
        try:
            process.wait(timeout=float(rng.uniform(0.3, 1.0)) * seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.communicate()
            continue
        _, errors = process.communicate()
        if process.returncode:
            return kills, f"exit code {process.returncode}: {errors[-300:]}"
        break
    _, errors = (process := start(folder, cache)).communicate()
    if process.returncode or "Traceback" in errors:
        return kills, f"exit code {process.returncode}: {errors[-300:]}"
    return kills, difference(unbroken, folder)


def full_disk(unbroken: Path, cache: Path, folder: Path, kilobytes: int) -> str:
    """Runs on a disk of some kilobytes, then with room; returns what was wrong.

    Raises:
        PermissionError: No disk can be made here: that is root's.
    """
    folder.mkdir(exist_ok=True)
    _mount(folder, f"size={kilobytes}k")
    try:
        _, errors = (process := start(folder / "run", cache)).communicate()
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        if process.returncode != 3 or len(lines) != 1 or "No space left" not in lines[0] or "Traceback" in errors:
            return f"{kilobytes} KB: exit code {process.returncode}, {errors[-300:]}"
        _mount(folder, "remount,size=64m")
        _, errors = (process := start(folder / "run", cache)).communicate()
        if process.returncode:
            return f"{kilobytes} KB, then with room: exit code {process.returncode}, {errors[-300:]}"
        return difference(unbroken, folder / "run")
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def _mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
