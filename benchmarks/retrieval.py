"""Evaluation, re-ranking and search at Market-1501's size, beside what the toolkits do: ratios in one run.

    python -m benchmarks.retrieval                  all of it: 9 minutes on 2 cores, 14 GB for the dense peers
    python -m benchmarks.retrieval --tasks search   one part
    python -m benchmarks.retrieval --share 0.25     a quarter of the images: two minutes
    python -m benchmarks.retrieval --limits         10 000 x 1 000 000, re-ranking 100 000: ours only, 3 minutes
    python -m benchmarks.retrieval --cython FILE    torchreid's compiled evaluation too (cythonize -i rank_cy.pyx)

Features are synthetic (benchmarks/features.py). Every contender runs in a process of its own: "first" is its first
call, compilation included, "seconds" the best of three, "memory" the peak above what the process held once
the features were made. faiss-cpu, scikit-learn and torchreid (pip install --no-deps torchreid) take part where they are
installed. Prints tables, and keeps the rows in docs/benchmarks.jsonl, from which the tables of docs/benchmarks.md come.
"""

import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

from benchmarks import contenders
from benchmarks.features import GALLERY, PEOPLE, QUERIES, market_sized
from benchmarks.process import machine, peak, reset_peak, versions
from benchmarks.table import keep_rows, table

Task = Literal["evaluation", "rerank", "search"]
PACKAGES = ("jax", "numpy", "scipy", "faiss-cpu", "scikit-learn", "torchreid")
KEYS = "task", "queries", "gallery"
"""Rows that agree in these are of one run."""


@dataclass(frozen=True)
class Options:
    """What to run."""

    tasks: tuple[Task, ...] = ("evaluation", "rerank", "search")
    share: float = 1.0
    """Of Market-1501's people, queries and gallery."""
    limits: bool = False
    """Sizes at which memory decides, ours only, instead of Market-1501's."""
    cython: Path | None = None
    """Compiled module of torchreid's evaluation."""
    out: Path = Path("docs/benchmarks.jsonl")
    """Keeps the rows, in place of those of the same task and size."""


def main(options: Options) -> int:
    """Runs the contenders one after another, each in a new process."""
    where = {"machine": _machine(), "versions": versions(PACKAGES), "date": time.strftime("%Y-%m-%d")}
    for task, size in _sizes(options):
        rows = []
        for name in getattr(contenders, task)(options.cython):
            if options.limits and name != "svdnet_jax":
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (task, name, size, options.cython, 1 if options.limits else 3))
            rows.append({"task": task, "name": name} | size | found | where)
            print(f"{task}, {size['gallery']} images: {name}: {found['seconds']:.2f} s", file=sys.stderr)
        keep_rows(rows, options.out, KEYS)
        print(table(rows), end="\n\n")
    return 0


def _sizes(options: Options) -> list[tuple[str, dict[str, int]]]:
    if options.limits:
        large = {"queries": 10_000, "gallery": 1_000_000, "people": 2250, "dimensions": 256}
        many = {"queries": QUERIES, "gallery": 100_000 - QUERIES, "people": PEOPLE}
        return [("evaluation", large), ("rerank", many)]
    market = {"queries": QUERIES, "gallery": GALLERY, "people": PEOPLE}
    market = {name: round(options.share * number) for name, number in market.items()}
    sizes: list[tuple[str, dict[str, int]]] = [(task, market) for task in options.tasks]
    if "search" in options.tasks:
        sizes.append(("search", market | {"gallery": round(options.share * 200_000)}))
    return sizes


def measure(task: str, name: str, size: dict[str, int], compiled: Path | None, calls: int) -> dict[str, Any]:
    """One contender, in this process: seconds, peak memory in MB and what it found."""
    query, gallery = market_sized(**size)
    jax.device_put(0.0).block_until_ready()
    before = reset_peak()
    call = getattr(contenders, task)(compiled)[name](query, gallery)
    seconds: list[float] = []
    # A contender of more than 20 seconds is called once: nothing of it is compiled.
    while len(seconds) <= calls and sum(seconds) < 20:
        start = time.perf_counter()
        numbers = call()
        seconds.append(time.perf_counter() - start)
    features = (query.features.nbytes + gallery.features.nbytes) / 2**20
    return {
        "first": seconds[0],
        "seconds": min(seconds[1:] or seconds),
        "memory": peak() - before,
        "features": features,
        "numbers": numbers,
    }


def _machine() -> str:
    device = jax.devices()[0]
    return machine() + ("" if device.platform == "cpu" else f", {device.device_kind}")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
