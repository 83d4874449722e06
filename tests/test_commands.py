"""Every whole command line of a document or a docstring is one that its parser takes, up to where the work begins."""

import re
import shlex
from typing import NamedTuple

import pytest
import tyro
from test_promises import COMMANDS, TEXTS

from svdnet_jax.cli import evaluate, search, serve
from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import RESUMABLE_FIELDS, diff, to_json
from svdnet_jax.config.unused import refuse_unused
from svdnet_jax.config.validate import validate
from svdnet_jax.runs.base_run import OF_ROUNDS, without_rounds

LINE = re.compile(r"^(?:svdnet (?:study )?|python -m experiments\.)([\w-]+) *(.*)$")
CHECKS = {"evaluate": evaluate._check, "search": search._check, "serve": serve._check}
"""What a command refuses before any work."""


class Parsed(BaseException):  # which no command catches
    """Ends a command when its options are known."""


class Line(NamedTuple):
    """A command line of a text."""

    name: str
    arguments: list[str]


def lines_of(text):
    """The command lines of a text that are whole: not within a sentence, and without a shell's variables."""
    for line in re.sub(r" *\\\n\s*", " ", text).splitlines():
        for command in re.split(r" && ", re.split(r"  +(?=\w)| +#", line.strip())[0]):
            match = LINE.match(command)
            if match and match[1] in COMMANDS and not {*"`$|"} & {*command}:
                arguments = shlex.split(match[2].partition(" > ")[0])
                if not arguments or arguments[0].startswith("--"):
                    yield Line(match[1], arguments)


def parsed(line):
    """The options of a command line; a test fails where it is refused."""
    with pytest.raises(Parsed) as stopped:
        COMMANDS[line.name](line.arguments)
    return stopped.value.args[0]


@pytest.fixture
def stopping(monkeypatch, tmp_path):
    parse = tyro.cli

    def stop(*given, **named):
        raise Parsed(parse(*given, **named))

    monkeypatch.setattr(tyro, "cli", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_crops").mkdir()


@pytest.mark.parametrize("path", [path for path in TEXTS if any(lines_of(path.read_text("utf-8")))], ids=str)
def test_the_command_lines_of_a_text_are_taken(path, stopping):
    trained = {}
    for line in lines_of(path.read_text("utf-8")):
        if {"--help", "--help-all"} & {*line.arguments}:
            continue
        options = parsed(line)
        config = options if isinstance(options, Config) else getattr(options, "run", None)
        if isinstance(config, Config):
            validate(config)
            refuse_unused(config)
            trained[config.folder] = config
            check_base(config, trained)
        CHECKS.get(line.name, lambda options: None)(options)


def check_base(config, trained):
    """Looks whether the run whose Step 0 is taken over was trained for it, by a line before."""
    if config.base_from is None:
        return
    base = trained[config.base_from]
    assert base.rri.rounds == 0, "has rounds of its own"
    free, wanted = (*RESUMABLE_FIELDS, *OF_ROUNDS), to_json(without_rounds(config))
    assert [line for line in diff(to_json(base), wanted) if not line.startswith(free)] == []


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("    svdnet embed --images a --out b   as they are", "embed", ["--images", "a", "--out", "b"]),
        ("svdnet train --data.root mine.csv # or a folder", "train", ["--data.root", "mine.csv"]),
        ("svdnet study control", "control", []),
        ('svdnet check-data --data.root "a b" > log.txt', "check-data", ["--data.root", "a b"]),
        ("python -m experiments.market_rri \\\n  --seed 1", "market_rri", ["--seed", "1"]),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(line, name, arguments):
    assert [*lines_of(line)] == [Line(name, arguments)]


def test_sentences_and_variables_are_no_command_lines():
    assert [*lines_of("`svdnet train --seed 1`\nsvdnet train $C\nsvdnet evaluate reads\nsvdnet COMMAND --help\n")] == []


@pytest.mark.parametrize("line", ["svdnet train --rri.rounds many", "svdnet embed --images a", "svdnet search --kk 3"])
def test_a_line_with_a_mistake_is_noticed(line, stopping, capsys):
    (found,) = lines_of(line)
    with pytest.raises(SystemExit):
        COMMANDS[found.name](found.arguments)
