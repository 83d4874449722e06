"""Tries to break the package, and prints what came of it: files, command lines, kills, full disks.

    python tests/hostile/table.py                                        what the table in docs/resuming.md is made with
    python tests/hostile/table.py --inputs 100 --lines 20 --kills 2 --disks 1

Each family is tried in a process of its own, so that its memory is its own; inputs are spread evenly over the families
of files. Failures are printed with what repeats them. Full disks need root, who may mount small ones.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for folder in ("..", "../..", "../runs", "../retrieval"):
    sys.path.insert(0, str((Path(__file__).parent / folder).resolve()))

import numpy as np  # noqa: E402
from commands import Ended, command, hostile_lines, of_a_run, training_not_begun  # noqa: E402
from damage import damaged  # noqa: E402
from machine import LARGEST, full_disk, killed, start, whole  # noqa: E402
from readers import READERS, REFUSALS  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

COMMANDS = ("evaluate --run", "compare", "compare --out", "evaluate --query", "search", "search --index")
HEADS = ("family", "tried", "refused", "faults", "worst s", "worst MB")
SLOW = 5.0
"""Seconds that a refusal may take."""
Trial = tuple[str, str, float]
"""What came of one: done, refused or fault; the fault in words; seconds."""


def one(read: Callable[[], object]) -> Trial:
    """Tries a reader or a command."""
    began = time.monotonic()
    try:
        found = read()
    except REFUSALS as error:
        kind, fault = ("refused", "") if str(error) else ("fault", f"{type(error).__name__} without a word")
    except Exception as error:
        kind, fault = "fault", f"{type(error).__name__}: {error}"
    else:
        fault = found.fault if isinstance(found, Ended) else ""
        kind = "fault" if fault else "refused" if isinstance(found, Ended) and found.code else "done"
        fault += f"\n{found.printed[-600:]}" if fault and isinstance(found, Ended) else ""
    seconds = time.monotonic() - began
    if kind == "refused" and seconds > SLOW:
        kind, fault = "fault", f"a refusal took {seconds:.1f} s"
    return kind, fault, seconds


def files(paths: list[Path], read: Callable[[], object], trials: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Damages one file at a time, tries, and puts it right again."""
    if (sound := one(read))[0] != "done":
        yield "fault", f"sound files: {sound[1]}", sound[2]
    for _ in range(trials):
        path = paths[int(rng.integers(len(paths)))]
        content = path.read_bytes()
        path.write_bytes(changed := damaged(content, rng))
        kind, fault, seconds = one(read)
        path.write_bytes(content)
        yield kind, f"{path.name}, {len(content)} bytes become {changed[:80]!r}...: {fault}" if fault else "", seconds


def lines(folder: Path, run: Path, trials: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Tries command lines with hostile options."""
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    with training_not_begun():
        for _, words in zip(range(trials), hostile_lines(rng, folder / "here", run), strict=False):
            kind, fault, seconds = one(lambda words=words: command(words))  # type: ignore[misc]
            yield kind, f"svdnet {' '.join(words)!r}: {fault}" if fault else "", seconds


def kills(folder: Path, run: Path, trials: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Kills runs until so many kills are done."""
    seconds, done, number = whole(folder / "whole", folder / "data"), 0, 0
    while done < trials:
        began, number = time.monotonic(), number + 1
        count, fault = killed(folder / "whole", seconds, folder / "data", folder / f"run{number}", rng)
        done += count
        for _ in range(count or 1):
            yield "fault" if fault else "done", fault, (time.monotonic() - began) / (count or 1)


def disks(folder: Path, run: Path, trials: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Runs on disks of so many sizes."""
    whole(folder / "whole", folder / "data")
    for number in range(trials):
        began = time.monotonic()
        fault = full_disk(
            folder / "whole", folder / "data", folder / f"disk{number}", int(rng.integers(8, LARGEST - 400))
        )
        yield "fault" if fault else "done", fault, time.monotonic() - began


def family(name: str, folder: Path, run: Path, trials: int, seed: int) -> dict[str, Any]:
    """Tries one family, in this process, and returns its row."""
    rng = np.random.default_rng(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name in READERS:
        target = READERS[name](folder)
        tried = files(target.paths, target.read, trials, rng)
    elif name in COMMANDS:
        _, paths, read = next(each for each in of_a_run(run, folder) if each[0] == name)
        one(read)  # compiles what it needs
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tried = files(paths, read, trials, rng)
    else:
        tried = {"lines": lines, "kills": kills, "disks": disks}[name](folder, run, trials, rng)
    row = {"family": name, "tried": 0, "refused": 0, "faults": 0, "worst s": 0.0, "worst MB": 0.0, "told": []}
    for kind, fault, seconds in tried:
        row["tried"] += 1
        row["refused"] += kind == "refused"
        row["faults"] += kind == "fault"
        if kind == "refused":
            row["worst s"] = max(row["worst s"], seconds)
        if fault and len(row["told"]) < 5:
            row["told"].append(fault)
    row["worst MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return row


def apart(name: str, trials: int, seed: int, folder: Path, run: Path) -> dict[str, Any]:
    """Returns the row of a family that is tried in another process, which may die of it."""
    folder.mkdir()
    words = ["--seed", str(seed), "--family", name, str(trials), str(folder), str(run)]
    ended = subprocess.run([sys.executable, __file__, *words], check=False, capture_output=True, text=True)
    row = folder / "row.json"
    if row.exists():
        return json.loads(row.read_text())  # type: ignore[no-any-return]
    told = [f"the process ended with {ended.returncode}: {ended.stderr[-2000:]}"]
    return dict.fromkeys(HEADS, 0) | {"family": name, "faults": 1, "told": told}


def tell(rows: list[dict[str, Any]], console: Console) -> None:
    """Prints the table."""
    table = Table(*HEADS)
    for row in rows:
        table.add_row(*(f"{row[head]:.1f}" if isinstance(row[head], float) else str(row[head]) for head in HEADS))
    console.print(table)


def main() -> int:
    """Prints the table; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in {"inputs": 2000, "lines": 500, "kills": 100, "disks": 20, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"default: {count}")
    parser.add_argument("--only", nargs="*", help="families, by name")
    parser.add_argument("--family", nargs=4, metavar=("NAME", "TRIALS", "FOLDER", "RUN"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.family:
        name, trials, place, run = asked.family
        row = family(name, Path(place), Path(run), int(trials), asked.seed)
        (Path(place) / "row.json").write_text(json.dumps(row))
        return 0
    console, rows, kinds = Console(highlight=False, markup=False), [], (*READERS, *COMMANDS)
    counts = dict.fromkeys(kinds, -(-asked.inputs // len(kinds)))
    counts |= {name: getattr(asked, name) for name in ("lines", "kills", "disks")}
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        for out, method in ((run, "us"), (run.with_name("run-control"), "none")):
            _, errors = (process := start(out, Path(place) / "data", "--rri.method", method)).communicate()
            assert process.returncode == 0, errors
        for name in asked.only or counts:
            began = time.monotonic()
            rows.append(row := apart(name, counts[name], asked.seed, Path(place) / name.replace(" ", "_"), run))
            faults = "".join(f"\n  {fault}" for fault in row["told"])
            console.print(
                f"{name}: {row['tried']} tried, {row['faults']} faults, {time.monotonic() - began:.0f} s{faults}"
            )
    tell(rows, console)
    return int(any(row["faults"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
