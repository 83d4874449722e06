"""A disk that is full at any moment: one line that names it, exit code 3, and the same result once there is room."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import short_run

from svdnet_jax.cli.exits import exit_code_of
from svdnet_jax.data.cache import write_prepared
from svdnet_jax.errors import ConfigError, MachineError
from svdnet_jax.reporting.log import read_log
from svdnet_jax.retrieval.embeddings import write_arrays
from svdnet_jax.runs import checkpoint
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.load import load_run
from svdnet_jax.safe_writing import working_folder, write_whole
from svdnet_jax.training.state import Cursor, TrainState

CLOCK = ("seconds", "images_per_second")


def mount(folder, size, *more):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}{''.join(more)}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A folder to mount a small disk on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def train(workshop, out):
    where = ("--data.cache", str(workshop / "data"), "--compute.cache", str(workshop / "compiled"))
    command = [sys.executable, "-m", "experiments.market_rri", "--preset", "tiny", "--parallel", "single"]
    return subprocess.run(
        [*command, *short_run.OPTIONS, *where, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def told(run):
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in read_log(run.log) if r["event"] != "resume"]


@pytest.fixture(scope="module")
def unbroken(workshop):
    """The run on a disk with room."""
    done = train(workshop, workshop / "with-room")
    assert done.returncode == 0, done.stderr
    return RunDir(workshop / "with-room")


SIZES = (40, 900, 3500, 4600, 5600, 6400)
"""Kilobytes: too few for the settings, the first checkpoint, the second, Step 0's embeddings, a later one, the report.
For more moments: `pytest -m slow tests/runs/test_full_disk.py` with others here."""


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_full_disk_is_named_and_costs_nothing(size, disk, workshop, unbroken):
    mount(disk, f"{size}k")
    done = train(workshop, disk / "run")
    assert done.returncode == 3, (done.returncode, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert str(disk) in line
    assert "No space left on device" in line
    mount(disk, "64m", ",remount")
    again = train(workshop, disk / "run")
    assert again.returncode == 0, again.stderr
    run = RunDir(disk / "run")
    assert told(run) == told(unbroken)
    both = (jax.tree.leaves(load_run(each.path).state.params) for each in (run, unbroken))
    for ours, theirs in zip(*both, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert run.report.exists()
    assert not [path for path in disk.rglob("*") if "partial" in path.name or "tmp" in path.name]


def test_a_checkpoint_that_does_not_fit_is_named_and_older_ones_stay(disk):
    mount(disk, "400k")
    state = TrainState(
        params={"eigenlayer": {"kernel": jnp.ones((200, 200))}},
        batch_stats={},
        pixels={},
        opt_state=(),
        step=jnp.asarray(1),
        rng=jax.random.key(0),
        cursor=Cursor(jnp.asarray(0), jnp.asarray(0), jnp.asarray(0.0)),
    )
    noise = jax.random.normal(state.rng, (600, 600))
    larger = state.replace(params={"eigenlayer": {"kernel": noise}}, step=jnp.asarray(2))

    def save(state):
        with checkpoint.open_checkpoints(disk / "checkpoints", lambda _: 0.0) as saved:
            checkpoint.save(saved, state, {"a": 1})

    save(state)
    said = "2: the checkpoint could not be written: No space left on device. It takes 1.4 MB"
    with pytest.raises(MachineError, match=said):
        save(larger)
    with checkpoint.open_checkpoints(disk / "checkpoints", lambda _: 0.0) as saved:
        assert checkpoint.steps(saved) == [1]
        chex.assert_trees_all_equal(checkpoint.restore(saved, 1, state).params, state.params)


def test_other_files_that_do_not_fit_are_named_and_leave_nothing(disk, dataset):
    mount(disk, "100k")
    for write in (
        lambda path: write_whole(path, bytes(200_000)),
        lambda path: write_arrays(path, {"features": np.ones((500, 200))}),
        lambda path: write_prepared(dataset, path),
    ):
        with pytest.raises(OSError, match="No space left on device") as raised:
            write(disk / "here")
        assert raised.value.filename == str(disk / "here")
        assert not [*disk.iterdir()]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/a"), 3, "MB are free); make room"),
        (OSError(errno.EROFS, "Read-only file system", "/tmp/a"), 3, "read-only now"),
        (OSError(errno.EMFILE, "Too many open files", "/tmp/a"), 3, "ulimit -n"),
        (MemoryError(), 3, "out of memory"),
        (MachineError("gone"), 3, "gone"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/tmp/a"), 3, "taken away while"),
        (ConfigError("what"), 2, "error: what"),
    ],
)
def test_what_the_machine_lacks_ends_training_with_3(error, code, said, capsys):
    def work():
        raise error

    assert exit_code_of(work) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_killed_processes_left_is_taken_away_and_what_others_use_stays(tmp_path):
    host, target = socket.gethostname(), tmp_path / "data"
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, used = (tmp_path / f".data-{host}-{number}" for number in (dead.pid, os.getppid()))
    foreign = tmp_path / f".data-elsewhere-{dead.pid}"
    for folder in (left, used, foreign):
        folder.mkdir()
    with working_folder(target) as work:
        assert work.parent == tmp_path
        assert not left.exists()
    assert {*tmp_path.iterdir()} == {used, foreign}
