"""The command line shared by all training experiments: a preset, then single options over it."""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import tyro

from experiments.refusal import refuse
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Layout, Run
from svdnet_jax.distributed.multihost import joined, leave
from svdnet_jax.errors import ConfigError, DataError, LogError, Stopped, TrainingDiverged
from svdnet_jax.reporting.terminal import terminal
from svdnet_jax.runs.training import train as train_run

HOW = (tyro.conf.AvoidSubcommands,)
"""A phase that may be left out is there, with its options, if the preset has it; no subcommands."""


def train(argv: Sequence[str] | None, name: str, description: str, layout: Layout = "auto") -> int:
    """Runs a training experiment; 0 if all went well, 2 for input that cannot be used, 1 if training diverged.

    Args:
        argv: Arguments without the program's name; None for the process's own.
        name: The experiment's module.
        description: What it does, for --help.
        layout: How its data set is laid out; with auto, none has to be given.
    """

    def work() -> None:
        config = parse(argv, f"python -m experiments.{name}", description, layout)
        with joined(config.machines):
            train_run(config, terminal())

    return guarded(work)


def guarded(work: Callable[[], None]) -> int:
    """Does what trains, and turns what may go wrong into a message and an exit code; see `train`."""
    try:
        work()
    except (ConfigError, DataError, LogError) as error:
        return leave(refuse(str(error), 2))
    except TrainingDiverged as error:
        return leave(refuse(str(error), 1))
    except KeyboardInterrupt as stop:
        # As shells number what ended by a signal: 130 is Ctrl-C's.
        number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
        return leave(refuse(str(stop) or "stopped; the same command goes on from the last checkpoint", 128 + number))
    except jax.errors.JaxRuntimeError as error:
        # Of the devices, or of the connection to another process.
        memory = "; give --optimizer.accumulate 2, --model.recompute or --compute.images host, or a smaller batch"
        return leave(refuse(f"{error}{memory if 'RESOURCE_EXHAUSTED' in str(error) else ''}", 3))
    except Exception:
        traceback.print_exc()
        return leave(1)
    return 0


def preset_of(arguments: Sequence[str], default: str) -> Run:
    """The settings that a command line starts from.

    Raises:
        ConfigError: An unknown preset.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=default)
    chosen, _ = first.parse_known_args(list(arguments))
    if chosen.preset not in PRESETS:
        raise ConfigError(f"--preset {chosen.preset}: unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[chosen.preset]


def parse(argv: Sequence[str] | None, prog: str, description: str, layout: Layout = "auto") -> Run:
    """Settings from a command line; prints help or the mistake and exits (code 2) as is usual.

    Args:
        argv: Arguments without the program's name; None for the process's own.
        prog: The command, as shown by --help.
        description: What it does, likewise.
        layout: Of the experiment's data set; auto if it has a built-in one.

    Raises:
        ConfigError: An unknown preset, or no data where there is no built-in set.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    preset = preset_of(arguments, "synthetic" if layout == "auto" else "paper-resnet50")
    default = replace(preset, data=replace(preset.data, layout=layout))
    config = tyro.cli(Run, prog=prog, default=default, args=arguments, description=description, config=HOW)
    if layout != "auto" and config.data.root is None:
        raise ConfigError("--data.root: not given; this experiment has no built-in data. Give the unpacked data set")
    return config
