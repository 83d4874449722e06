"""One short run of two processes of two devices each: same result as one process, and what happens when one dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import pytest
import short_run
from test_training import final_state, lines, timeless
from tiny_run import arguments

from svdnet_jax.config.schema import Config, Machines
from svdnet_jax.config.validate import validate
from svdnet_jax.distributed.mesh import create_mesh
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.log import read_log

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parents[2]
TIMEOUT = 8
"""Seconds after which a silent process counts as dead."""
MORE = 30
"""Seconds beside it for a busy machine to end a process."""
# The compiler shares out sums in another way, and 16 steps carry that on; weights are of the size of 0.1.
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def start(process, processes, port, out, cache, devices, *more):
    """One process of a run, on so many fake devices."""
    cluster = ["--machines.coordinator", f"localhost:{port}", "--machines.processes", str(processes)]
    cluster += ["--machines.process", str(process), "--machines.timeout", str(TIMEOUT)]
    command = [sys.executable, "-m", "experiments.market_rri", *arguments(out, cache, *short_run.OPTIONS, *more)]
    return subprocess.Popen(
        command + (cluster if processes > 1 else []),
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def together(out, cache, *more):
    port = free_port()
    return [start(process, 2, port, out, cache, 2, *more) for process in range(2)]


def alone(out, cache, *more):
    ended = start(0, 1, 0, out, cache, 4, *more)
    text, errors = ended.communicate(timeout=300)
    assert ended.returncode == 0, errors
    return text


@pytest.fixture(scope="module")
def one(workshop):
    """The run of one process with four devices."""
    out = workshop / "one"
    assert "Devices: 4 x cpu" in alone(out, workshop / "data")
    return out


@pytest.fixture(scope="module")
def two(workshop, one):
    """The same of two processes, and what they printed; in a folder that each of them reaches by a link of its own."""
    out = workshop / "two[1]"
    processes = together(out, workshop / "data")
    texts = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    return out, texts


@pytest.mark.slow
def test_two_processes_train_what_one_trains(one, two, tiny):
    found, expected = final_state(two[0], tiny), final_state(one, tiny)
    chex.assert_trees_all_close(found, expected, **CLOSE)
    ours, theirs = timeless(two[0]), timeless(one)
    assert [(r["event"], r.get("step")) for r in ours] == [(r["event"], r.get("step")) for r in theirs]
    for a, b in zip(ours, theirs, strict=True):
        if a["event"] in ("step", "phase"):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


@pytest.mark.slow
def test_the_first_process_speaks_and_writes(two):
    (first, _), (second, errors) = two[1]
    assert "Devices: 4 x cpu (cpu) of 2 processes, --parallel auto" in first
    assert "report:" in first
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []
    assert "error" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_the_others_end_when_one_is_killed_and_one_process_goes_on(dying, one, workshop, tiny, tmp_path):
    out = tmp_path / "run"
    processes = together(out, workshop / "data")
    deadline = time.monotonic() + 240
    while lines(out) < 7 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(process.poll() is None for process in processes), "the run was over before it could be killed"
    os.kill(processes[dying].pid, signal.SIGKILL)
    killed = time.monotonic()
    _, errors = processes[1 - dying].communicate(timeout=TIMEOUT + MORE)
    assert time.monotonic() - killed < TIMEOUT + MORE
    assert processes[1 - dying].returncode != 0
    assert "error: this process, one of several, did not come to its end" in errors
    assert "Traceback" not in errors
    assert "start the same command again" in errors
    processes[dying].communicate()
    assert len([record for record in read_log(out / "metrics.jsonl") if record["event"] == "end"]) == 0
    assert "resumed at step" in alone(out, workshop / "data")
    chex.assert_trees_all_close(final_state(out, tiny), final_state(one, tiny), **CLOSE)


def test_processes_that_do_not_agree_end_before_they_train(workshop, tmp_path):
    port = free_port()
    seeds = ("0", "5")
    processes = [start(i, 2, port, tmp_path / "x", workshop / "data", 1, "--seed", seeds[i]) for i in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "process 1: settings differ from those of process 0" in errors
    assert not (tmp_path / "x" / "metrics.jsonl").exists()


def test_a_run_of_several_is_not_for_pmap(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="^`parallel` pmap: works in one process, and there are 2; give auto"):
        create_mesh(Config(parallel="pmap"))


def test_a_process_that_finds_no_other_says_so(tmp_path):
    process = start(1, 2, free_port(), tmp_path / "x", tmp_path, 1)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "another one is gone or was never there" in errors


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        (Machines(coordinator="a:1", processes=2, process=2), "`machines.process` 2: must be below"),
        (Machines(processes=2), "`machines.processes` 2: must be left out unless"),
        (Machines(coordinator="host", processes=2), "`machines.coordinator` host: must be host:port, or auto"),
        (Machines(timeout=1), "`machines.timeout` 1: must be 5 or more"),
    ],
)
def test_impossible_machines_are_refused(machines, message):
    with pytest.raises(ConfigError, match=message):
        validate(Config(machines=machines))
