"""Whole commands on damaged files and with hostile options: in this process, ended as a shell would see it."""

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np

from svdnet_jax.cli.main import main
from svdnet_jax.config.schema import Config
from svdnet_jax.errors import MachineError
from svdnet_jax.retrieval.index import build_index, save_index
from svdnet_jax.runs import training

CODES = (0, 1, 2, 3)
REACHED = "reached: nothing was wrong"


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None
    printed: str

    @property
    def fault(self) -> str:
        """What is wrong with it; empty for a result, or a line with the code that belongs to it."""
        if self.code not in CODES:
            return f"ended with {self.code}"
        if "Traceback" in self.printed:
            return "traceback"
        if self.code in (2, 3) and not self.printed.strip():
            return f"code {self.code} and no line that says why"
        return ""


def command(arguments: Sequence[str]) -> Ended:
    """Runs `svdnet` with these arguments."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code: Any = main(arguments)
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        except BaseException as error:
            return Ended(None, f"{text.getvalue()}\nTraceback: {type(error).__name__}: {error}")
    code = 0 if REACHED in text.getvalue() else code
    return Ended(code, text.getvalue())


def of_a_run(run: Path, folder: Path) -> Iterator[tuple[str, list[Path], Callable[[], Ended]]]:
    """Yields commands that read a finished run: name, the files that are damaged, and the command.

    Args:
        run: A finished run of the tiny preset, copied first; beside it, its control, with ``-control`` in its name.
        folder: For copies and for what the commands write.
    """
    own, control, out = folder / "own", folder / "control", folder / "out"
    shutil.copytree(run, own)
    shutil.copytree(run.with_name(f"{run.name}-control"), control)
    out.mkdir()
    embedded = sorted((own / "embeddings").rglob("*.npz"))
    query, gallery = (next(path for path in embedded if path.stem == name) for name in ("query", "gallery"))
    small = [path for path in own.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    saved = [path for path in (own / "checkpoints").rglob("*") if path.is_file()]
    small, saved = sorted(small), sorted(saved)
    yield "evaluate --run", [*small, *saved], lambda: command(["evaluate", "--run", str(own)])
    beside = ["compare", "--runs", str(own), "--controls", str(control)]
    yield "compare", small, lambda: command(beside)
    yield "compare --out", small, lambda: command([*beside, "--out", str(out / "c")])
    files = ["--query", str(query), "--gallery", str(gallery)]
    more = ["--intervals", "--distances", "--camera-pairs"]
    yield "evaluate --query", [query, gallery], lambda: command(["evaluate", *files, *more])
    yield "search", [query, gallery], lambda: command(["search", *files, "--k", "3"])
    from svdnet_jax.retrieval.embeddings import Embeddings

    index = folder / "index.npz"
    save_index(build_index(Embeddings.load(gallery)), index)
    asked = ["search", "--index", str(index), "--query", str(query)]
    yield "search --index", [index], lambda: command(asked)


# Values of options: sound ones among them, so that what comes after the first check is reached too.
SMALL = ("1", "2", "3", "4", "8", "16", "32", "64")
INTEGERS = ("0", "1", "2", "3", "-1", "64", "1000000000", "99999999999999999999", "1.5", "nan", "x", "", "1e9")
FLOATS = ("0", "1", "0.5", "-1", "1e9", "1e20", "1e-300", "nan", "inf", "-inf", "1e999", "x", "")
TEXTS = (
    "",
    "x",
    "/nonexistent",
    "/dev/null",
    "/dev/zero",
    "/proc/self/mem",
    "\x1b[31m",
    "é\udcff",
    "a\0b",
    "~",
    "..",
    "*",
)


def values(kind: Any, rng: np.random.Generator) -> list[str]:
    """Returns words for an option of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return values(inner[int(rng.integers(len(inner)))], rng)
    if origin is tuple:
        count = len(inner) if Ellipsis not in inner else int(rng.integers(4))
        kinds = inner if Ellipsis not in inner else inner[:1] * count
        return [word for each in kinds for word in values(each, rng)]
    if origin is Literal:
        return [str(rng.choice([*map(str, inner), "bogus"]))]
    if hasattr(kind, "__metadata__"):
        return values(kind.__origin__, rng)
    if kind is int and rng.random() < 0.5:
        return [str(rng.choice(SMALL))]
    choice = {int: INTEGERS, float: FLOATS, NoneType: ("None",)}.get(kind, TEXTS)
    return [choice[int(rng.integers(len(choice)))]]


def options(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the options that the fields of a dataclass have on a command line, with their types."""
    hints = get_type_hints(kind, include_extras=False)
    for each in fields(kind):
        name, hint = prefix + each.name, hints[each.name]
        nested = [one for one in (hint, *get_args(hint)) if is_dataclass(one)]
        if nested:
            yield from options(nested[0], f"{'' if name == 'run' else name + '.'}")
        elif each.init:
            yield f"--{name.replace('_', '-')}", hint


def line_of(known: Sequence[tuple[str, Any]], rng: np.random.Generator) -> list[str]:
    """Returns one to three options with values."""
    words = []
    for at in rng.choice(len(known), size=int(rng.integers(1, 4)), replace=False):
        name, kind = known[int(at)]
        if kind is bool:
            words.append(name if rng.random() < 0.5 else name.replace("--", "--no-", 1))
        else:
            words += [name, *values(kind, rng)]
    return words


@contextlib.contextmanager
def training_not_begun() -> Iterator[None]:
    """Commands that train end where the first program would be compiled: all that is checked before is reached."""

    def reached(*_: object) -> None:
        raise MachineError(REACHED)

    real, training._prepare = training._prepare, reached  # type: ignore[assignment]
    try:
        yield
    finally:
        training._prepare = real


def hostile_lines(rng: np.random.Generator, folder: Path, run: Path) -> Iterator[list[str]]:
    """Yields command lines without end: training from a preset for the most part, other commands between."""
    from svdnet_jax.cli import embed, evaluate, search

    # Those of several machines would wait for the others.
    known = [each for each in options(Config) if not each[0].startswith("--machines")]
    others = {
        name: [*options(module.Options)]
        for name, module in (("evaluate", evaluate), ("search", search), ("embed", embed))
    }
    embedded = sorted((run / "embeddings" / "embedding").glob("*.npz"))
    files = ["--query", str(embedded[1]), "--gallery", str(embedded[0])]
    start = {
        "evaluate": files,
        "search": files,
        "embed": ["--images", str(folder), "--run", str(run), "--out", str(folder / "e.npz")],
    }
    while True:
        if rng.random() < 0.7:
            out = [
                "--preset",
                "tiny",
                "--out",
                str(folder / f"run{rng.integers(10**6)}"),
                "--data.cache",
                str(folder / "data"),
            ]
            yield ["train", *out, *line_of(known, rng)]
        else:
            name = str(rng.choice([*others]))
            yield [name, *start[name], *line_of(others[name], rng)]
