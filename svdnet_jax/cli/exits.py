"""How a command ends: exit codes, and the line that says why.

0: done. 1: training diverged, or `check-data` found something. 2: input that cannot be used. 3: the machine: devices,
the connection to other hosts. 128 and the number of a signal: stopped by it, as shells count.
"""

import errno
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from svdnet_jax.errors import ConfigError, DataError, LogError, MachineError, Stopped, TrainingDiverged
from svdnet_jax.reporting.terminal import say, terminal

INTACT = "Log and checkpoints are intact: the same command goes on from the last checkpoint to the same result"
LACKING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the system that say nothing of the input."""


def fail(message: str, code: int) -> int:
    """Prints on stderr why nothing more is done, and returns the exit code."""
    say(terminal(stderr=True), f"error: {message}" if code < 128 else message)
    return code


def explain(error: BaseException) -> str:
    """Returns what the system or memory lacks, in one line, with where and what to do."""
    if isinstance(error, MemoryError):
        return "out of memory: give smaller batches, --compute.images host, or fewer images at a time"
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "make room there, or write elsewhere",
        errno.EDQUOT: "make room there, or write elsewhere",
        errno.EROFS: "the file system is read-only now; see to it, or write elsewhere",
        errno.EACCES: "see to its permissions",
        errno.ENOENT: "it is gone; was it taken away while the command ran?",
        errno.EMFILE: "raise the number of open files, ulimit -n",
        errno.ENFILE: "the machine has too many files open",
        errno.ENOMEM: "out of memory",
    }.get(error.errno, "see to the disk or file system")
    free = ""
    if error.errno == errno.ENOSPC and error.filename:
        free = f" ({_free(Path(str(error.filename))) / 1e6:.1f} MB are free)"
    return f"{where}{error.strerror}{free}; {remedy}"


def _free(path: Path) -> int:
    """Returns the bytes that are free where a file is or would be."""
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return 0


def fail_on(error: BaseException) -> int:
    """Prints what was wrong, and returns 3 if the machine lacks something, else 2: input that cannot be used."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in LACKING):
        return fail(explain(cause), 3)
    return fail(str(error), 2)


def exit_code_of(work: Callable[[], None]) -> int:
    """Does what trains, and turns what may go wrong into a message and an exit code."""
    # Training needs jax; help and refusals do not.
    import jax

    from svdnet_jax.distributed.multihost import exit_process

    try:
        work()
    except (ConfigError, DataError, LogError) as error:
        return exit_process(fail_on(error))
    except (MachineError, OSError, MemoryError) as error:
        intact = "" if isinstance(error, MachineError) else f". {INTACT}"
        return exit_process(fail(f"{explain(error)}{intact}", 3))
    except TrainingDiverged as error:
        return exit_process(fail(str(error), 1))
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
        return exit_process(
            fail(str(stop) or "stopped; the same command goes on from the last checkpoint", 128 + number)
        )
    except jax.errors.JaxRuntimeError as error:
        # Of the devices, or of the connection to another process.
        memory = "; give --optimizer.grad-accum-steps 2, --model.remat or --compute.images host, or a smaller batch"
        return exit_process(fail(f"{error}{memory if 'RESOURCE_EXHAUSTED' in str(error) else ''}", 3))
    except Exception:
        traceback.print_exc()
        return exit_process(1)
    return 0
