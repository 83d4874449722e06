"""`svdnet study NAME`: one of the paper's tables, or all of them."""

import ast
import difflib
import itertools
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import tyro

from svdnet_jax.cli.exits import exit_code_of, fail
from svdnet_jax.cli.train import read_preset
from svdnet_jax.config.flags import TYRO_FLAGS
from svdnet_jax.config.serialize import with_current_options
from svdnet_jax.config.unused import refuse_unused
from svdnet_jax.reporting.terminal import say, terminal

STUDIES = {
    "control": "what decorrelation adds: RRI against the same budget without it",
    "rounds": "retrieval and S(W) by round",
    "decorrelation": "US, U, UV', QD or nothing in place of W; matched columns; the classifier turned",
    "rotation": "orthogonality, or the shock to the classifier? A random rotation in place of the SVD",
    "dimensions": "how many outputs the Eigenlayer should have",
    "penalties": "orthogonality as a penalty in the loss",
    "truncated": "truncated SVD: a smaller Eigenlayer after training",
    "pcanet": "PCANet: filters without labels or gradients",
    "all": "all of them, and docs/results.md",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; exit codes as in `svdnet_jax.cli.exits`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        say(terminal(), _list())
        return 0 if arguments else 2
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1)
        meant = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(STUDIES)}"
        return fail(f"svdnet study {name}: no such study; {meant}", 2)
    return run(name, arguments[1:], f"svdnet study {name}")


def run(name: str, argv: Sequence[str] | None, prog: str) -> int:
    """Runs a study.

    Args:
        name: One of `STUDIES`.
        argv: Its arguments; None for the process's own.
        prog: The command, as shown by --help.
    """
    arguments, notices = with_current_options(sys.argv[1:] if argv is None else argv)
    for notice in notices:
        say(terminal(stderr=True), notice)
    if {"-h", "--help"} & {*arguments}:
        say(terminal(), _short_help(name, prog))
        raise SystemExit(0)

    def work() -> None:
        preset = read_preset(arguments, "synthetic")
        module = import_module(_module(name))
        kind = module.Options if name == "all" else module.STUDY.options
        options = tyro.cli(
            kind,
            prog=prog,
            default=kind(run=preset),
            args=["--help" if argument == "--help-all" else argument for argument in arguments],
            description=module.__doc__,
            config=TYRO_FLAGS,
        )
        refuse_unused(options.run)
        if name == "all":
            module.write(options)
        else:
            import_module("svdnet_jax.studies.study").conduct(module.STUDY, options, terminal())

    return exit_code_of(work)


def _list() -> str:
    """Returns the studies, a line each."""
    lines = [f"  {name:14} {text}" for name, text in STUDIES.items()]
    return "\n".join(["usage: svdnet study NAME [OPTION ...]", "", *lines, "", "svdnet study NAME --help says more."])


def _module(name: str) -> str:
    return f"svdnet_jax.studies.{'paper_tables' if name == 'all' else name}"


def _short_help(name: str, prog: str) -> str:
    """Returns the text of --help: the study's docstring and its own options, read without importing it."""
    module = _module(name)
    tree = _source(module)
    lines = [f"usage: {prog} [--preset NAME] [--seeds 0 1 2] [OPTION VALUE ...]", "", ast.get_docstring(tree) or "", ""]
    lines += ["Its own options:"]
    lines += [f"  --{option.replace('_', '-'):20} {text}" for option, text in _fields(module, _options(tree)).items()]
    return "\n".join([*lines, "", f"The others are those of its runs: svdnet train --help, or {prog} --help-all."])


def _source(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def _options(tree: ast.Module) -> ast.expr:
    """Returns what a study calls the class of its options: the third argument of its `Study`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STUDY":
            assert isinstance(node.value, ast.Call)
            return node.value.args[2]
    return ast.Name("Options")  # of all studies together


def _fields(module: str, options: ast.expr) -> dict[str, str]:
    """Returns the texts of the fields that have one, of a dataclass and of those that it is derived from.

    Args:
        module: Where its name is used.
        options: The name: of a class there, or of one in another study.
    """
    if isinstance(options, ast.Attribute):
        module = f"{module.rpartition('.')[0]}.{ast.unparse(options.value)}"
    found: dict[str, str] = {}
    for node in _source(module).body:
        if isinstance(node, ast.ClassDef) and node.name == "Options":
            for base in node.bases:
                found |= _fields(module, base)
            for field, text in itertools.pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    assert isinstance(text.value, ast.Constant)
                    found[field.target.id] = " ".join(str(text.value.value).split())
    return found
