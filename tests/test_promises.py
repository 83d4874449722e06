"""Every option that a message, a docstring or a document names is there."""

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from svdnet_jax.cli import study

ROOT = Path(__file__).parent.parent
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    **{
        name: import_module(f"svdnet_jax.cli.{name}").main
        for name in ("evaluate", "embed", "export", "search", "serve", "check_data", "compare")
    },
    **{name: import_module(f"experiments.{name}").main for name in ("market_rri", "duke_rri", "cuhk03_rri")},
    "train": import_module("svdnet_jax.cli.train").main,
    **{name: partial(study.run, name, prog="study") for name in study.STUDIES},
}
COMMANDS |= {"check-data": COMMANDS["check_data"], "paper_tables": COMMANDS["all"]}
WITH_PRESET = {"train", "market_rri", "duke_rri", "cuhk03_rri", "paper_tables", *study.STUDIES}
TEXTS = [
    path
    for pattern in ("svdnet_jax/**/*.py", "experiments/*.py", "*.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name not in ("hints.py", "CHANGELOG.md")  # about options of other toolkits, and of before
]
NAMED = re.compile(r"(?<![\w-])--[a-zA-Z][\w.-]*\w")
SECTIONS = {"--data", "--compute", "--machines", "--loss.penalty"}
"""Said of all options of a section."""
OTHERS = re.compile(r"git|srun|benchmarks\.|--help|--version|`--missing`|`--dtypes|pip install|var\(--|: #")
"""Lines about other programs, and colors of a page."""


def options(command, capsys):
    """The options that a command's help lists; those of the last restraint are there where the preset has one."""
    preset = ["--preset", "paper-caffenet"] if command in WITH_PRESET else []
    with pytest.raises(SystemExit):
        COMMANDS[command]([*preset, "--help-all" if preset else "--help"])
    # At the beginning of a line, in a frame or not.
    listed = re.findall(r"^(?:│ ?| +)((?:-\w, )?--[^\s,]+(?:, --[^\s,]+)*)", capsys.readouterr().out, re.M)
    return {option for line in listed for option in NAMED.findall(line)} | ({"--preset"} if preset else set())


def test_every_option_that_is_named_in_a_text_is_one_of_its_command_or_of_any(capsys):
    known = {command: options(command, capsys) for command in COMMANDS}
    assert {"search", "market_rri", "paper_tables", "check_data"} < known.keys()
    assert all(len(found) > 3 for found in known.values())
    there = set().union(*known.values()) | SECTIONS
    wrong = []
    for path in TEXTS:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            if OTHERS.search(line):
                continue
            named = set(NAMED.findall(line)) - there
            for command, rest in re.findall(
                r"(?:python -m experiments\.|svdnet study |svdnet )([\w-]+)([^`#&\n]*)", line
            ):
                # In lists of examples what comes after a gap is about the one before it.
                named |= set(NAMED.findall(rest.strip().partition("   ")[0])) - known.get(command, there)
            wrong += [f"{path.name}:{number}: {option}" for option in sorted(named)]
    assert wrong == []
