"""Compiles the programs of presets for accelerators that are not there: do they compile, what do they need and move?

    pip install -e '.[ahead]'
    python -m benchmarks.ahead_of_time --out docs/ahead-of-time.jsonl      appends to the lines that are there
    python -m benchmarks.ahead_of_time --table                             draws docs/devices.md's table anew

Nothing is run. Memory is the compiler's; bytes a step are those of operands and results of all instructions of a step,
as if no cache kept any, and `benchmarks.least` counts what they must be. A TPU's compiler keeps arrays on the chip from
one instruction to the next: those are not counted, so it may move less than that. The time is the larger of operations
and bytes over the device's published rates, which a run cannot beat. A program takes half a minute (H100) to three
minutes (TPU) on two CPU cores, the largest batch some five times that.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parent.parent
STORED, DOCUMENT = ROOT / "docs" / "ahead-of-time.jsonl", ROOT / "docs" / "devices.md"
KINDS = ("base", "restraint", "relaxation", "embed")
RATES = {
    "h100": {"bfloat16": 989e12, "float32": 495e12, "bytes": 3.35e12, "memory": 79.1e9},
    "v5e": {"bfloat16": 197e12, "float32": 197e12, "bytes": 819e9, "memory": 16e9},
}
"""Published: operations a second (float32 in JAX's default precision: TF32, and bfloat16 on a TPU), bytes a second and
bytes of memory. H100 SXM: NVIDIA's data sheet. v5e: cloud.google.com/tpu/docs/v5e."""
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
"""Of the process that compiles: without a driver, without the search for a TPU's neighbours."""
HEAD = (
    "| for | preset, phase | type | batch | compiles, s | memory, GB a device | GB a step | of the least "
    "| at least, ms | images/s at most | collectives | |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)
MARKED = re.compile(r"(<!-- ahead of time -->\n).*?(<!-- end -->)", re.DOTALL)


def compile_apart(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the line of a program that is compiled in another process, or the reason why it is not."""
    command = [sys.executable, "-m", "benchmarks.ahead_program", json.dumps(asked)]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = [line for line in ended.stderr.strip().splitlines() if line][-1:] or [f"ended with {ended.returncode}"]
        return dict(asked) | {"reason": reason[0][:300]}
    return json.loads(ended.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def needed(line: Mapping[str, Any]) -> float:
    """Returns the bytes that a program takes of a device."""
    return float(line["arguments"] + line["temporaries"])


def largest(asked: Mapping[str, Any], tell: Any) -> dict[str, Any]:
    """Returns the line of the largest batch that fits, in steps of 64 and to a sixteenth.

    Memory grows nearly in proportion to the batch, so each try is where the line through the last two meets the
    device's memory, and halfway where that is outside of what is known.
    """
    memory, step = RATES[device_of(asked)]["memory"], 64
    fits, fails, count = 0, 0, 4
    best: dict[str, Any] = {}
    known: dict[int, float] = {}
    while not fails or fails - fits > max(1, fits // 16):
        line = compile_apart(dict(asked) | {"batch": count * step})
        known |= {} if "reason" in line else {count: needed(line)}
        good = known.get(count, memory + 1) <= memory
        tell(f"  batch {count * step}: {'fits' if good else 'does not fit'}")
        fits, fails, best = (count, fails, line) if good else (fits, count, best)
        count = next_try(known, memory, fits, fails)
    return (best or line) | {"largest": True}


def next_try(known: Mapping[int, float], memory: float, fits: int, fails: int) -> int:
    """Returns the count to try next, more than one that fits and less than one that does not (0: none is known)."""
    margin = max(1, fits // 16)
    if len(known) < 2:
        return (fits + fails) // 2 if fails else 2 * fits
    (one, at_one), (two, at_two) = sorted(known.items())[-2:]
    guess = int(two + (memory - at_two) * (two - one) / max(at_two - at_one, 1.0))
    if not fails:
        return max(guess, fits + margin)
    return min(max(guess, fits + 1), fails - 1) if fits < guess < fails else (fits + fails + 1) // 2


def device_of(asked: Mapping[str, Any]) -> str:
    """Returns the name of a target's device: ``h100`` of ``h100x8``, ``v5e`` of ``v5e:2x2``."""
    return str(asked["target"]).partition("x")[0].partition(":")[0]


def row(line: Mapping[str, Any]) -> str:
    """Returns a row of the table."""
    phase = f"{line['preset']}, {line['kind']}" + ("" if line.get("parallel", "auto") == "auto" else ", pmap")
    name = f"{line['target']} | {phase} | {line['dtype']} | {line['batch']}"
    if "reason" in line:
        return f"| {name} | no: {line['reason']} | | | | | | | |"
    rates = RATES[device_of(line)]
    bound = max(line["operations"] / rates[line["dtype"]], line["moved"] / rates["bytes"])
    notes = [] if not line["to_alias"] or line["aliased"] >= line["to_alias"] else ["not all of the state taken over"]
    notes += [f"{line[name]} {name}" for name in ("float64", "host_calls") if line[name]]
    notes += ["the largest that fits"] if line.get("largest") else []
    times = f"{line['moved'] / line['least']:.2f}" if line.get("least") else ""
    collectives = f"{line['collectives']}, {line['collective_bytes'] / 1e6:.1f} MB" if line["collectives"] else "none"
    speed = float(f"{line['batch'] / bound:.3g}")  # three digits that count
    return (
        f"| {name} | {line['compile_s']:.0f} | {_short(needed(line) / 1e9)} | {_short(line['moved'] / 1e9)} "
        f"| {times} | {_short(1000 * bound)} | {speed:.0f} | {collectives} | {'; '.join(notes)} |"
    )


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def table(lines: list[dict[str, Any]]) -> str:
    """Returns the table; its first line says what it is not."""
    return "\n".join(["**Compiled, never run.**", "", HEAD, *map(row, lines)])


def programs(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields what is to be compiled."""
    for target, preset, dtype, kind in itertools.product(asked.targets, asked.presets, asked.dtypes, asked.kinds):
        yield {
            "target": target,
            "preset": preset,
            "kind": kind,
            "dtype": dtype,
            "batch": asked.batch,
            "parallel": asked.parallel,
        }


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=["h100x1", "h100x8", "v5e:2x2"])
    parser.add_argument("--presets", nargs="*", default=["paper-resnet50", "modern-resnet50-rri", "synthetic"])
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32"])
    parser.add_argument("--parallel", default="auto", choices=("auto", "pmap"))
    parser.add_argument("--batch", type=int, default=0, help="of all devices together; 0: the preset's")
    parser.add_argument("--largest", action="store_true", help="the largest batch that fits, by bisection")
    parser.add_argument("--out", type=Path, help="file of lines to append to")
    parser.add_argument("--table", action="store_true", help="draw the table of docs/devices.md and stop")
    asked, console = parser.parse_args(), Console(highlight=False, markup=False)
    if asked.table:
        lines = [json.loads(line) for line in STORED.read_text().splitlines()]
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(MARKED.sub(lambda found: f"{found[1]}{table(lines)}\n{found[2]}", text))
        return 0
    lines = []
    for each in programs(asked):
        lines.append(largest(each, console.print) if asked.largest else compile_apart(each))
        console.print(row(lines[-1]))
        if asked.out:
            with asked.out.open("a") as file:
                file.write(f"{json.dumps(lines[-1])}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
