"""`svdnet train`: trains SVDNet from a preset and single options over it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import tyro

from svdnet_jax.cli.exits import exit_code_of, fail
from svdnet_jax.cli.help import short_help
from svdnet_jax.cli.hints import hint_of
from svdnet_jax.config.flags import TYRO_FLAGS
from svdnet_jax.config.layouts import Layout
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import with_current_options
from svdnet_jax.config.unused import refuse_unused
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.terminal import say, terminal


def main(argv: Sequence[str] | None = None, prog: str = "svdnet train", layout: Layout = "auto") -> int:
    """Runs the command line; exit codes as in `svdnet_jax.cli.exits`.

    Args:
        argv: Arguments without the program's name; None for the process's own.
        prog: The command, as shown by --help.
        layout: Of the data set; with auto, none has to be given.
    """
    arguments, notices = with_current_options(sys.argv[1:] if argv is None else argv)
    for notice in notices:
        say(terminal(stderr=True), notice)
    try:
        preset = read_preset(arguments, "synthetic" if layout == "auto" else "paper-resnet50")
    except ConfigError as error:
        return fail(str(error), 2)
    if {"-h", "--help"} & {*arguments}:
        say(terminal(), short_help(prog, preset))
        raise SystemExit(0)
    if hint := hint_of(arguments, preset.data):
        return fail(hint, 2)

    def work() -> None:
        from svdnet_jax.distributed.multihost import distributed_context
        from svdnet_jax.runs.training import train

        config = parse(arguments, prog, preset, layout)
        with distributed_context(config.machines):
            train(config, terminal())

    return exit_code_of(work)


def read_preset(arguments: Sequence[str], default: str) -> Config:
    """Returns the settings that a command line starts from.

    Raises:
        ConfigError: An unknown preset.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default=default)
    chosen, _ = parser.parse_known_args(list(arguments))
    if chosen.preset not in PRESETS:
        raise ConfigError(f"`preset` {chosen.preset}: unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[chosen.preset]


def parse(arguments: Sequence[str], prog: str, preset: Config, layout: Layout = "auto") -> Config:
    """Returns the settings of a command line; prints all options for --help-all, or the mistake, and exits.

    Args:
        arguments: Without the program's name.
        prog: The command, as shown by --help-all.
        preset: What the options change.
        layout: Of the data set; auto if there is a built-in one.

    Raises:
        ConfigError: No data where there is no built-in set, or a setting that has no effect.
    """
    default = replace(preset, data=replace(preset.data, layout=layout))
    shown = ["--help" if argument == "--help-all" else argument for argument in arguments]
    description = f"Every option; {prog} --help shows those that people use most."
    config = tyro.cli(Config, prog=prog, default=default, args=shown, description=description, config=TYRO_FLAGS)
    if layout != "auto" and config.data.root is None:
        raise ConfigError("`data.root`: not given; this experiment has no built-in data. Give the unpacked data set")
    from svdnet_jax.runs.directory import RunDir

    # A run that an older version began goes on by the command that began it.
    if not RunDir(config.folder).has_checkpoint:
        refuse_unused(config)
    return config
