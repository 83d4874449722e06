"""Ctrl-C and SIGTERM while a run trains: noted, looked for, and everything as it was afterwards."""

import signal
import threading
from contextlib import suppress

import pytest
from tiny_run import ONE, arguments

from experiments.market_rri import main
from svdnet_jax.cli.exits import exit_code_of
from svdnet_jax.errors import Stopped
from svdnet_jax.reporting.log import read_log
from svdnet_jax.runs import training
from svdnet_jax.training.stopping import BY_DEFAULT, asked_to_stop

pytestmark = pytest.mark.unoptimized


def handlers():
    return {number: signal.getsignal(number) for number in BY_DEFAULT}


@pytest.fixture(autouse=True)
def ordinary():
    """Python's own handlers, before and after."""
    before = handlers()
    for number, handler in BY_DEFAULT.items():
        signal.signal(number, handler)
    yield
    assert handlers() == BY_DEFAULT
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", list(BY_DEFAULT))
def test_the_first_signal_is_noted(number, capfd):
    with asked_to_stop() as look:
        assert look() == 0
        signal.raise_signal(number)
        assert look() == number
    assert "Stopping" in capfd.readouterr().err


def test_the_second_stops_at_once_and_cannot_be_swallowed():
    with asked_to_stop() as look:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # a callback of JAX's would end here, and all go on
        with pytest.raises(KeyboardInterrupt):
            look()


def test_one_of_several_processes_stops_at_once_and_leaves_sigterm_alone():
    with asked_to_stop(several=True) as look:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            look()


def test_other_handlers_and_other_threads_are_left_alone():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a process in the background
    with asked_to_stop():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = []

    def work():
        with asked_to_stop() as look:
            found.append((look(), handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(0, BY_DEFAULT)]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Stopped(7, signal.SIGTERM), 143)])
def test_the_command_says_how_to_go_on(error, code, capsys):
    def work():
        raise error

    assert exit_code_of(work) == code
    assert "the same command goes on from" in capsys.readouterr().err


def test_a_run_that_is_stopped_goes_on_with_the_same_command(workshop, tmp_path, capsys, monkeypatch):
    """Ctrl-C while the first line about training is written, which is when the fifth step is on its way."""
    write = training.log_record

    def log_record(output, record):
        if record["event"] == "step":
            signal.raise_signal(signal.SIGINT)
        write(output, record)

    monkeypatch.setattr(training, "log_record", log_record)
    short = ("--rri.rounds", "0", "--base.steps", "8", "--base.milestones", "6", *ONE)
    command = arguments(tmp_path / "run[0]", workshop / "data", *short)
    assert main(command) == 130
    assert "stopped after step 5, which is saved; the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(training, "log_record", write)
    assert main(command) == 0
    assert str(tmp_path / "run[0]" / "report.html") in capsys.readouterr().out
    records = read_log(tmp_path / "run[0]" / "metrics.jsonl")
    assert [(r["event"], r.get("step")) for r in records] == [
        ("start", None),
        ("step", 4),
        ("resume", 5),
        ("step", 8),
        ("phase", 8),
        ("end", 8),
    ]
