"""How a command ends: exit codes, and the line that says why.

0: done. 1: training diverged, or `check-data` found something. 2: input that cannot be used. 3: the machine: devices,
the connection to other hosts. 128 and the number of a signal: stopped by it, as shells count.
"""

import signal
import traceback
from collections.abc import Callable

from svdnet_jax.errors import ConfigError, DataError, LogError, Stopped, TrainingDiverged
from svdnet_jax.reporting.terminal import say, terminal


def fail(message: str, code: int) -> int:
    """Prints on stderr why nothing more is done, and returns the exit code."""
    say(terminal(stderr=True), f"error: {message}" if code < 128 else message)
    return code


def exit_code_of(work: Callable[[], None]) -> int:
    """Does what trains, and turns what may go wrong into a message and an exit code."""
    # Training needs jax; help and refusals do not.
    import jax

    from svdnet_jax.distributed.multihost import exit_process

    try:
        work()
    except (ConfigError, DataError, LogError) as error:
        return exit_process(fail(str(error), 2))
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
