"""Every option that a message, a docstring or a document names is there."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    path.stem for path in (ROOT / "experiments").glob("*.py") if "sys.exit(main())" in path.read_text("utf-8")
)
WITH_PRESET = {"market_rri", "duke_rri", "cuhk03_rri", "paper_tables"} | {
    path.stem for path in (ROOT / "experiments").glob("*.py") if "study.Experiment(" in path.read_text("utf-8")
}
TEXTS = [
    path
    for pattern in ("svdnet_jax/**/*.py", "experiments/*.py", "*.md", "docs/*.md")
    for path in sorted(ROOT.glob(pattern))
]
NAMED = re.compile(r"(?<![\w-])--[a-zA-Z][\w.-]*\w")
SECTIONS = {"--data", "--compute", "--machines", "--loss.penalty"}
"""Said of all options of a section."""
OTHERS = re.compile(r"git|benchmarks\.|`--missing`|`--dtypes|pip install|var\(--|: #")
"""Lines about other programs, and colors of a page."""


def options(command, capsys):
    """The options that a command's help lists; those of the last restraint are there where the preset has one."""
    preset = ["--preset", "paper-caffenet"] if command in WITH_PRESET else []
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{command}").main([*preset, "--help"])
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
            named = set() if OTHERS.search(line) else set(NAMED.findall(line)) - there
            for command, rest in re.findall(r"python -m experiments\.(\w+)([^`#\n]*)", line):
                # In lists of examples what comes after a gap is about the one before it.
                named |= set(NAMED.findall(rest.strip().partition("   ")[0])) - known.get(command, there)
            wrong += [f"{path.name}:{number}: {option}" for option in sorted(named)]
    assert wrong == []
