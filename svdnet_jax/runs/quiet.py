"""Keeps out of the terminal what orbax and its libraries say: their errors are raised here, in a line each."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOBase
from typing import Any


class OwnThreads(TextIOBase):
    """A stream that leaves out what threads write that Python did not start.

    TensorStore's do, in C++: where one read has failed, others that are under way print a traceback each.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes text, if it comes from a thread of Python's."""
        if not threading.current_thread().name.startswith("Dummy-"):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        """Returns the stream's number."""
        return int(self.stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return str(self.stream.encoding)


@contextmanager
def logs_quiet() -> Iterator[None]:
    """Keeps what orbax logs through absl, and its event loops through asyncio, out of the terminal.

    After an error it stays quiet: what is still being read or written in the background fails too, and says so later.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    yield
    for logger, disabled in zip(loggers, before, strict=True):
        logger.disabled = disabled


@contextmanager
def readers_quiet() -> Iterator[None]:
    """Keeps off the terminal what reading prints beside its error; after one for good, as what was begun goes on.

    That is what threads write which Python did not start, and that coroutines were given up.
    """
    stream, filters = sys.stderr, warnings.catch_warnings()
    filters.__enter__()
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    if not isinstance(stream, OwnThreads):
        sys.stderr = OwnThreads(stream)
    ours = sys.stderr
    yield
    if sys.stderr is ours:
        sys.stderr = stream
    filters.__exit__(None, None, None)
