"""Texts of the library name settings as in Python; a command turns them into its options."""

import ast
import re
from pathlib import Path

import pytest

from svdnet_jax.config.names import ARGUMENTS, as_options, setting_names

ROOT = Path(__file__).parents[2]
FILES = [path for path in sorted((ROOT / "svdnet_jax").rglob("*.py")) if path.parts[-2] not in ("cli", "studies")]


def test_all_settings_are_known():
    assert {
        "seed",
        "out",
        "data.batch_size",
        "data.synthetic.junk",
        "rri.final.steps",
        "loss.penalty.kind",
    } <= setting_names()
    assert "data.Batch" not in setting_names()


@pytest.mark.parametrize("name", sorted(setting_names()))
def test_a_setting_becomes_its_option(name):
    assert as_options(f"`{name}` 3: must be 4") == f"--{name.replace('_', '-')} 3: must be 4"


def test_what_is_no_setting_stays():
    for text in ("`nothing` here", "`eigenlayer/*`", "``data.root``x", "`Data.root`", "data.root", "it's `out"):
        assert as_options(text) == text
    assert as_options("evaluate with `eval.cross_camera` False") == "evaluate with --eval.no-cross-camera"
    assert as_options("`rri.rounds` 2, `seed` 1") == "--rri.rounds 2, --seed 1"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_of_the_library_names_an_option_or_an_experiment(path):
    """Those who call the library have no command line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise | ast.Yield | ast.Return | ast.Assign) or (
            isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say"
        ):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and path.name != "report.py":
                    named = re.findall(r"(?<![\w(-])--[a-z][\w.-]+|experiments\.\w+", part.value)
                    # Of git; and colors of a page.
                    assert set(named) <= {"--error-unmatch", "--always", "--dirty", "--abbrev"}, f"{path}:{node.lineno}"


def test_names_in_refusals_are_settings_or_arguments():
    """A name in backticks that no command would translate is a promise that nobody keeps."""
    unknown = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        names = set(re.findall(r"`([a-z][a-z0-9_.]*)`", part.value)) - setting_names() - ARGUMENTS
                        unknown |= dict.fromkeys(names, path)
    assert unknown == {}
