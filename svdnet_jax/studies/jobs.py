"""Runs of a study side by side, each process on its share of the CPU cores.

A small network uses one core better than two: on two cores two runs at a time take two thirds of the time of one after
the other. Each process is given its cores before it imports JAX, which makes as many threads.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any, TypeVar

from svdnet_jax.errors import CheckpointError, ConfigError, MachineError, Stopped

Result = TypeVar("Result")


def cores() -> list[int]:
    """Returns the CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def side_by_side(work: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], jobs: int) -> list[Result]:
    """Calls a function with each of several arguments, so many at a time; with one job in this process.

    Args:
        work: A function of a module; it and its arguments go to other processes.
        arguments: Of each call.
        jobs: Processes at most.

    Raises:
        ConfigError: What the function raised, with its message; other errors likewise.
        MachineError: A process was ended by the system.
        KeyboardInterrupt: Asked to stop; each process has saved what it was at.
    """
    if (jobs := min(jobs, len(arguments))) < 2:
        return [work(*each) for each in arguments]
    context = multiprocessing.get_context("spawn")
    numbers, mine = context.Value("i", 0), cores()
    shares = [mine[number::jobs] or mine for number in range(jobs)]
    with ProcessPoolExecutor(jobs, context, _take_share, (numbers, shares)) as pool:
        futures = [pool.submit(_call, work, each) for each in arguments]
        try:
            return [future.result() for future in futures]
        except BrokenExecutor:
            raise MachineError(
                "a process of the study was ended by the system, mostly for want of memory. What it had saved is "
                "intact; the same command with --jobs 1 goes on from there"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _take_share(numbers: Any, shares: Sequence[Sequence[int]]) -> None:
    """Binds a new process to its cores."""
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, shares[number % len(shares)])


def _call(work: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Calls the function; exceptions that are made of more than a message do not travel between processes."""
    try:
        return work(*arguments)
    except Stopped:
        raise KeyboardInterrupt from None
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
