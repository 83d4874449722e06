"""Training of ResNet-50 as in the paper, beside the same network and step in PyTorch: ratios in one run.

    python -m benchmarks.training                                          small on a CPU, everything elsewhere
    python -m benchmarks.training --dtypes bfloat16 --sizes 224x224        a part, as of a GPU's ten minutes
    python -m benchmarks.training --missing                                what --out does not hold yet
    python -m benchmarks.training --kinds base --contenders svdnet_jax     ours alone

For each kind of phase, size and type, every contender has a process of its own, and they are measured by turns, a few
seconds each (benchmarks/turns.py); a number is the median over the rounds. Images are random bytes on the device.
PyTorch takes part where it is installed. Prints tables, and keeps the rows of each case as soon as it is measured.
"""

import multiprocessing
import platform
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.process import machine, versions
from benchmarks.table import keep_rows, read_rows, training_table
from benchmarks.training_case import Case, step_flops
from benchmarks.turns import Row, take_turns

Contender = Literal["svdnet_jax", "torch", "torch channels_last", "torch compile", "torch graphs"]
Kind = Literal["base", "restraint", "relaxation"]
DType = Literal["float32", "bfloat16"]
VARIANTS = {
    "torch": "eager",
    "torch channels_last": "channels_last",
    "torch compile": "compile",
    "torch graphs": "graphs",
}
CEILING = "matrix product"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")
KEYS = "device", "kind", "height", "width", "dtype", "batch"
"""Rows that agree in these are of one run."""


@dataclass(frozen=True)
class Options:
    """What to measure; what is left out depends on the device that JAX finds."""

    sizes: tuple[str, ...] = ()
    """Height x width. On a CPU 224x224, elsewhere 256x128 too."""
    dtypes: tuple[DType, ...] = ()
    """What the backbone computes in. On a CPU float32, elsewhere bfloat16 too."""
    kinds: tuple[Kind, ...] = ("base", "restraint", "relaxation")
    """Of phase."""
    contenders: tuple[Contender, ...] = ()
    """Ours, PyTorch as it is, with channels_last, compiled too (warms up for a minute; not on a CPU), and compiled with
    CUDA graphs (only if named)."""
    batch_size: int = 0
    """Images of a step. On a CPU 8, elsewhere 32."""
    seconds: float = 0.0
    """Of a turn. On a CPU 4, elsewhere 1."""
    rounds: int = 5
    """Turns of each contender."""
    missing: bool = False
    """Leave out cases that --out holds of this device."""
    note: str = ""
    """Of these rows, such as: other work ran."""
    out: Path = Path("docs/benchmarks-training.jsonl")
    """Keeps the rows, in place of those of the same case."""


def main(options: Options) -> int:
    """Measures one case after another."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        where = pool.submit(look).result()
    where |= {"machine": machine(), "versions": versions(PACKAGES), "date": time.strftime("%Y-%m-%d")}
    if options.note:
        where["note"] = options.note
    held = read_rows(options.out) if options.missing and options.out.exists() else []
    done, failed = {tuple(row[key] for key in KEYS) for row in held}, 0
    chosen = [case for case in cases(options, where["platform"]) if (where["device"], *_key(case)) not in done]
    for number, case in enumerate(chosen, start=1):
        names = contenders(options, case.platform)
        rows, errors = measure(case, names, options.rounds, options.seconds or _of(case.platform, 4.0, 1.0))
        for name, error in errors.items():
            print(f"{name}: {error}", file=sys.stderr)
        failed += len(errors)
        if rows:
            rows = [row | where for row in rows]
            keep_rows(rows, options.out, KEYS)
            print(f"{number} of {len(chosen)}\n{training_table(rows)}", end="\n\n", flush=True)
    return 1 if failed else 0


def look() -> dict[str, str]:
    """What JAX works on, in a process that ends and so holds no accelerator."""
    import jax

    device = jax.devices()[0]
    found = device.device_kind
    if device.platform == "cpu" and (text := Path("/proc/cpuinfo")).exists():
        names = re.search(r"model name\s*:\s*(.+)", text.read_text())
        found = names[1] if names else platform.processor() or found
    return {"platform": device.platform, "device": found}


def cases(options: Options, platform: str) -> list[Case]:
    """All that the options ask for, on what JAX works on."""
    from benchmarks.training_ours import case_of

    sizes = options.sizes or _of(platform, ("224x224",), ("224x224", "256x128"))
    dtypes = options.dtypes or _of(platform, ("float32",), ("bfloat16", "float32"))
    batch = options.batch_size or _of(platform, 8, 32)
    shapes = []
    for size in sizes:
        found = re.fullmatch(r"(\d+)x(\d+)", size)
        if not found:
            raise SystemExit(f"--sizes {size}: give height x width, such as 256x128")
        shapes.append((int(found[1]), int(found[2])))
    return [
        case_of(kind, *shape, dtype, batch, platform) for dtype in dtypes for shape in shapes for kind in options.kinds
    ]


def contenders(options: Options, platform: str) -> list[str]:
    """Those who take part."""
    some = ("svdnet_jax", "torch", "torch channels_last")
    chosen = options.contenders or _of(platform, some, (*some, "torch compile"))
    return [name for name in chosen if name == "svdnet_jax" or find_spec("torch")]


def measure(case: Case, names: list[str], rounds: int, seconds: float) -> tuple[list[Row], dict[str, str]]:
    """A case: rows of those who took part, and why others did not."""
    makers: dict[str, tuple[str, tuple[Any, ...]]] = {
        CEILING: ("benchmarks.training_ceiling", (case.dtype, case.platform))
    }
    for name in names:
        ours = name == "svdnet_jax"
        makers[name] = (
            ("benchmarks.training_ours", (case,)) if ours else ("benchmarks.training_torch", (case, VARIANTS[name]))
        )
    found = take_turns(makers, rounds, seconds)
    errors = {name: row["error"] for name, row in found.items() if "error" in row}
    flops = step_flops(case)
    ceiling = None
    if CEILING not in errors:
        side = found[CEILING]["numbers"]["side"]
        ceiling = 2 * side**3 / found[CEILING]["step_ms"] * 1000
    rows = []
    for name in names:
        if name not in errors:
            row = found[name]
            per_second = 1000 / row["step_ms"]
            numbers = {
                "images_per_second": case.batch * per_second,
                "flops": flops,
                "ceiling": ceiling,
                "mfu": flops * per_second / ceiling if ceiling else None,
            }
            rows.append({"contender": name} | dict(zip(KEYS[1:], _key(case), strict=True)) | row | numbers)
    return rows, errors


def _key(case: Case) -> tuple[Any, ...]:
    return tuple(getattr(case, name) for name in KEYS[1:])


def _of(platform: str, on_cpu: Any, elsewhere: Any) -> Any:
    return on_cpu if platform == "cpu" else elsewhere


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
