"""What libraries print in threads of theirs stays out of the terminal after a checkpoint could not be read."""

import _thread
import gc
import sys
import threading
import warnings

import pytest

from svdnet_jax.runs.quiet import OwnThreads, readers_quiet


def say_in(start, text: str) -> None:
    """Writes on stderr in a thread that a function starts, and waits for it."""
    done = threading.Event()

    def say() -> None:
        print(text, file=sys.stderr)
        done.set()

    start(say)
    assert done.wait(10)


def foreign(work) -> None:
    """Starts a thread that the module threading has not heard of, as those of C++ are."""
    _thread.start_new_thread(work, ())


def test_threads_that_python_did_not_start_are_not_heard(capsys):
    with readers_quiet():
        say_in(foreign, "theirs")
        say_in(lambda work: threading.Thread(target=work).start(), "a thread of ours")
        print("ours", file=sys.stderr)
    say_in(foreign, "later")
    assert capsys.readouterr().err.split("\n") == ["a thread of ours", "ours", "later", ""]


@pytest.mark.filterwarnings("error")
def test_coroutines_that_a_failed_read_gives_up_are_not_told():
    async def given_up() -> None: ...

    filters = [*warnings.filters]
    with readers_quiet():
        given_up()
        gc.collect()
    assert warnings.filters == filters
    with pytest.warns(RuntimeWarning, match="never awaited"):
        (lambda: given_up() and None)()


def test_after_an_error_they_are_not_heard_any_more(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # put back after the test, as pytest does with the filters
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"), readers_quiet():
            raise ValueError("damaged")
    say_in(foreign, "theirs")
    print("ours", file=sys.stderr)
    assert capsys.readouterr().err == "ours\n"
    assert isinstance(sys.stderr, OwnThreads)
    assert not isinstance(sys.stderr.stream, OwnThreads)
    assert sys.stderr.isatty() == sys.stderr.stream.isatty()
