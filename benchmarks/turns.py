"""Contenders that take turns: each in a process of its own, and only one at work at a time.

All are made ready first, one after another. Then each takes a turn of a few seconds, and so round after round: what
slows the machine down for a while slows down all of them, and medians over rounds can be compared.
"""

import math
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks.process import peak, reset_peak

Row = dict[str, Any]


class Ready(NamedTuple):
    """A contender that is ready to be called; the first call may compile."""

    call: Callable[[], Any]
    """Sends steps on their way, and gives what can be waited for."""
    wait: Callable[[Any], float]
    """Waits until everything sent is done, and gives the loss, or another number that has to be finite."""
    steps: int
    """Of a call."""
    memory: Callable[[], float] | None
    """Peak of an accelerator's memory in MB; None where it is that of the process."""
    numbers: Mapping[str, float] = MappingProxyType({})
    """Anything else to be told."""


class Failed(Exception):
    """A contender that gave up; the message says why."""


def take_turns(makers: Mapping[str, tuple[str, tuple[Any, ...]]], rounds: int, seconds: float) -> dict[str, Row]:
    """Measures contenders by turns.

    Args:
        makers: For each name the module and the arguments of its function ``prepare``, which gives `Ready`.
        rounds: Turns of each.
        seconds: Of a turn.

    Returns:
        For each what was measured, or ``{"error": ...}``.
    """
    found: dict[str, Row] = {}
    with _processes(makers) as pipes:
        for name in makers:
            found[name] = _ask(pipes[name], "prepare")
        for _ in range(rounds):
            for name, row in found.items():
                if "error" not in row:
                    found[name] = row | _ask(pipes[name], seconds)
        for name, row in found.items():
            if "error" not in row:
                found[name] = row | _ask(pipes[name], "report")
    return found


@contextmanager
def _processes(makers: Mapping[str, tuple[str, tuple[Any, ...]]]) -> Iterator[dict[str, Connection]]:
    """Starts one for each contender, all at once as they only import then, and ends them."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    started = []
    try:
        for name, (module, arguments) in makers.items():
            pipes[name], there = context.Pipe()
            process = context.Process(target=_serve, args=(there, module, arguments), daemon=False)
            process.start()
            there.close()
            started.append(process)
        yield pipes
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in started:
            process.join(10)
            if process.is_alive():
                process.kill()


def _ask(pipe: Connection, request: str | float) -> Row:
    try:
        pipe.send(request)
        return pipe.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return {"error": "its process ended"}


def _serve(pipe: Connection, module: str, arguments: tuple[Any, ...]) -> None:
    """Answers requests until the other end of the pipe is closed."""
    # Several processes share an accelerator: none may take most of its memory in advance.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    try:
        answers = _answers(import_module(module).prepare, arguments)
        next(answers)
        while True:
            pipe.send(answers.send(pipe.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        traceback.print_exc()
        pipe.send({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})


def _answers(prepare: Callable[..., Ready], arguments: tuple[Any, ...]) -> Iterator[Any]:
    """A generator: what it is sent are requests, what it yields are answers."""
    request = yield
    assert request == "prepare", request
    base = reset_peak()
    ready = prepare(*arguments)
    first, _ = _time(ready, 1)
    second, _ = _time(ready, 1)
    if ready.memory is None:
        reset_peak()
    request = yield {"first": first}
    times: list[float] = []
    loss = math.nan
    while request != "report":
        step, loss = _time(ready, max(1, round(request / second)))
        times.append(1000 * step / ready.steps)
        request = yield {"rounds": times}
    if not math.isfinite(loss):
        raise Failed(f"the loss is {loss}")
    middle = statistics.median(times)
    yield {
        "step_ms": middle,
        "compile": max(first - middle * ready.steps / 1000, 0.0),
        "memory": ready.memory() if ready.memory else peak() - base,
        "steps_per_call": ready.steps,
        "loss": loss,
        "numbers": dict(ready.numbers),
    }


def _time(ready: Ready, calls: int) -> tuple[float, float]:
    """Seconds of a call, and the loss after the last."""
    start = time.perf_counter()
    for _ in range(calls):
        sent = ready.call()
    loss = ready.wait(sent)
    return (time.perf_counter() - start) / calls, loss
