"""`svdnet`: finds the command and hands it the rest of the line."""

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from svdnet_jax._version import __version__
from svdnet_jax.cli.exits import fail
from svdnet_jax.reporting.terminal import say, terminal

COMMANDS = {
    "train": "train, evaluate and report",
    "evaluate": "CMC and mAP of a run, of weights, or of embeddings in files",
    "embed": "embed images: a folder, a list, a manifest",
    "export": "write a network to a file: ONNX or StableHLO",
    "search": "find the nearest images",
    "serve": "a local page to look into a run",
    "compare": "runs beside their controls",
    "check-data": "look at every file of a data set",
    "study": "the paper's tables and figures: svdnet study NAME",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; exit codes as in `svdnet_jax.cli.exits`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if any("\0" in each for each in arguments):
        return fail("an argument holds a NUL byte, which no name of a file may have", 2)
    if command in ("-h", "--help"):
        say(terminal(), _help())
        return 0 if arguments else 2
    if command in ("-V", "--version"):
        say(terminal(), f"svdnet-jax {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        return fail(f"svdnet {command}: no such command; {meant}", 2)
    run: Callable[..., int] = import_module(f"svdnet_jax.cli.{command.replace('-', '_')}").main
    return run(arguments[1:])


def _help() -> str:
    lines = ["usage: svdnet COMMAND [OPTION ...]", "", "Person re-identification with SVDNet.", ""]
    lines += [f"  {name:11} {text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "svdnet COMMAND --help says more; svdnet --version."])
