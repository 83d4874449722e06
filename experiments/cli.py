"""The command line shared by all training experiments: a preset, then single options over it."""

import argparse
import sys
from collections.abc import Sequence

import tyro

from svdnet_jax.config import ConfigError, Run
from svdnet_jax.presets import PRESETS


def parse(argv: Sequence[str] | None, prog: str, description: str) -> Run:
    """Settings from a command line; prints help or the mistake and exits (code 2) as is usual.

    Args:
        argv: Arguments without the program's name; None for the process's own.
        prog: The command, as shown by --help.
        description: What it does, likewise.

    Raises:
        ConfigError: An unknown preset.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="synthetic")
    chosen, _ = first.parse_known_args(arguments)
    if chosen.preset not in PRESETS:
        raise ConfigError(f"--preset {chosen.preset}: unknown; choose one of {', '.join(PRESETS)}")
    return tyro.cli(Run, prog=prog, default=PRESETS[chosen.preset], args=arguments, description=description)


def refuse(message: str, code: int) -> int:
    """Says on stderr why nothing more is done, and gives the exit code back."""
    print(f"error: {message}" if code != 130 else message, file=sys.stderr)
    return code
