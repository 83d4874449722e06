"""Several hosts in one run: start, agreement, and the end when one of them is gone.

JAX watches over them: a process that gives no sign of life for `Machines.timeout` seconds ends the others, and so does
process 0 at once, since it keeps the list. It ends them from within, with lines of its own and no chance for Python
to say more; so a small process beside each waits for its end and says what it means.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from svdnet_jax.config.schema import Machines
from svdnet_jax.errors import ConfigError

LOST = (
    "error: this process, one of several, did not come to its end: it was killed, or another one is gone or was never "
    "there (see the lines above). Nothing is lost but the steps since the last checkpoint: start the same command "
    "again, on as many processes as you like"
)
# Reads until the process that it watches ends; a word before that says that all was well.
_WATCH = "import sys; sys.stdin.read() or sys.exit(sys.argv[1])"


@contextmanager
def distributed_context(settings: Machines) -> Iterator[None]:
    """Makes this process one of several, before anything is computed; does nothing for a process by itself.

    A process that leaves by an exception does not wait for the others, which JAX ends `Machines.timeout` seconds later.

    Raises:
        ConfigError: The others cannot be found.
    """
    if settings.coordinator is None:
        yield
        return
    # In a session of its own, so that Ctrl-C does not end it.
    watch = [sys.executable, "-c", _WATCH, LOST]
    with subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True, text=True) as watcher:  # noqa: S603
        word = "over"
        try:
            _find_others(settings)
            yield
            jax.distributed.shutdown()
        except jax.errors.JaxRuntimeError:
            word = ""  # as when the connection to another one breaks: the watcher explains
            raise
        finally:
            watcher.communicate(word)


def _find_others(settings: Machines) -> None:
    # JAX would keep SIGTERM to itself, for a service that nothing here uses.
    jax.config.update("jax_enable_preemption_service", False)
    named = settings.coordinator != "auto"
    try:
        jax.distributed.initialize(
            coordinator_address=settings.coordinator if named else None,
            num_processes=settings.processes if named else None,
            process_id=settings.process if named else None,
            initialization_timeout=settings.timeout,
            heartbeat_timeout_seconds=settings.timeout,
            shutdown_timeout_seconds=settings.timeout,
        )
    except jax.errors.JaxRuntimeError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"`machines.coordinator` {settings.coordinator}: {error}") from None


def exit_process(code: int) -> int:
    """Ends this process at once if others may still wait for it; else gives the exit code back."""
    if code and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def is_lead_host() -> bool:
    """Returns whether this host is the one that writes."""
    return jax.process_index() == 0


@contextmanager
def lead_host_first() -> Iterator[None]:
    """Runs work of which the lead host leaves files behind that the others find."""
    if not is_lead_host():
        multihost_utils.sync_global_devices("the first process is done")
    yield
    if is_lead_host() and jax.process_count() > 1:
        multihost_utils.sync_global_devices("the first process is done")


def assert_same_on_all_hosts(what: str, text: str) -> None:
    """Makes sure that all processes have the same text.

    Raises:
        ConfigError: They do not; in all of them.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.uint32)
    theirs = np.asarray(multihost_utils.process_allgather(digest))
    others = [str(process) for process, row in enumerate(theirs) if (row != theirs[0]).any()]
    if others:
        raise ConfigError(f"process {', '.join(others)}: {what} differ from those of process 0; they must be the same")


def broadcast_from_lead(array: np.ndarray) -> np.ndarray:
    """Returns an array as the lead host has it."""
    return array if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(array))
