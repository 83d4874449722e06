"""Ctrl-C and SIGTERM while a run trains: it is to stop at a place from which it can go on.

Python turns Ctrl-C into an exception wherever it happens to be; in a callback of JAX's that exception is swallowed, and
training goes on. So while a run trains a signal is noted, and the loop looks for it after every call.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NOTED = b"\nStopping: the steps in flight are ended and saved. Ctrl-C again stops at once.\n"
BY_DEFAULT: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What is asked to stop by, and who handles that in Python; other handlers and deaf processes are left as they are."""


@contextmanager
def asked_to_stop(several: bool = False) -> Iterator[Callable[[], int]]:
    """Notes signals that ask this process to stop: Ctrl-C, and SIGTERM by which systems take machines back.

    Args:
        several: Of several processes none can save by itself: nothing is put off, and SIGTERM is left alone.

    Yields:
        A function that gives the number of the signal, 0 if there was none, and raises KeyboardInterrupt if there was
        a second one (or `several`). Outside of the main thread, which alone may handle signals, it always gives 0.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) == 1 and not several:
            os.write(2, NOTED)  # print() may be what the signal has come into
        elif number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            raise KeyboardInterrupt

    def look() -> int:
        if len(noted) > 1 or (noted and several):
            # Raised already by the handler; this is for where it was swallowed.
            raise KeyboardInterrupt
        return noted[0] if noted else 0

    wanted = [signal.SIGINT] if several else list(BY_DEFAULT)
    handled = [number for number in wanted if signal.getsignal(number) == BY_DEFAULT[number]]
    try:
        for number in handled:
            signal.signal(number, note)
    except ValueError:  # not the main thread
        handled = []
    try:
        yield look
    finally:
        for number in handled:
            signal.signal(number, BY_DEFAULT[number])
