"""The house rules that a machine can check: levels of imports, no hidden state, sizes of files."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A file imports only from lower levels; folders of one level do not know of each other.
LEVELS = {
    "errors": -2,
    "methods": -2,
    "lazy": -2,
    "linalg": -1,
    "_version": 0,
    "eigenlayer": 0,
    "config": 1,
    "arrays": 1,
    "safe_writing": 2,
    "matlab": 2,
    "distributed": 2,
    "models": 3,
    "data": 3,
    "retrieval": 3,
    "baselines": 3,
    "export": 4,
    "training": 4,
    "reporting": 5,
    "runs": 6,
    "studies": 7,
    "web": 7,
    "cli": 8,
    "__init__": 9,
}
FILES = sorted((ROOT / "svdnet_jax").rglob("*.py"))


def part(module):
    """The level's name of a dotted module within the package."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_import_from_lower_levels_only(path):
    here = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imports(path):
        assert module.split(".")[0] not in ("tensorflow", "experiments", "tests"), module
        if module.startswith("svdnet_jax"):
            there = part(module)
            assert here == there or LEVELS[there] < LEVELS[here], f"{here} imports {module}"


def test_orbax_is_known_to_one_module_only():
    users = [path.name for path in FILES if any("orbax" in module for module in imports(path))]
    assert users == ["checkpoint.py"]


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted((ROOT / "experiments").glob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_hidden_state(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"{path}:{node.lineno}: global"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("environ", "getenv"), f"{path}:{node.lineno}: environment variable"
    assert "pickle" not in {module.split(".")[0] for module in imports(path)}
    assert len(path.read_text().splitlines()) <= 300, f"{path}: more than one thing?"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_tests_that_need_pytorch_are_marked(path):
    """And so counted and named where they are skipped, which nothing else does."""
    text = path.read_text()
    top = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    if path.name != "torch_networks.py":  # what such tests import
        assert not {"torch", "torch_networks"} & top
    assert "importorskip" + '("torch' not in text


def test_only_run_dir_knows_the_names_in_a_run_folder():
    names = {"metrics.jsonl", "config.json", "environment.json", "report.html", "checkpoints", ".lock"}
    others = {
        ("load.py", "config.json"),  # of a model of the Hugging Face hub
        ("checkpoint.py", "checkpoints"),  # a link that orbax is led to
        ("comparison.py", "report.html"),  # another report, in another folder
        ("compare.py", "report.html"),
    }
    for path in [*FILES, *sorted((ROOT / "experiments").glob("*.py"))]:
        if path.name != "directory.py":
            constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            known = {(path.name, name) for name in names & {text for text in constants if isinstance(text, str)}}
            assert known <= others, path


def test_files_that_are_no_python_are_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package = ROOT / "svdnet_jax"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    named = settings["tool"]["setuptools"]["package-data"]["svdnet_jax"]
    assert files == {path for name in named for path in package.glob(name)}
