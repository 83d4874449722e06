"""What the paper's tables and figures share: named runs over seeds from one Step 0 each, and their results as lines.

A study trains its variants in one folder that all studies share (--out, not given: runs/paper). Step 0 is trained once
for each seed and each setting that it depends on, and runs that another study has made are taken as they are; so the
same command again goes on where it was stopped. The results are lines of JSON, ``<out>/<study>.jsonl``: what the logs
say at borders of phases, with the variant. Tables and figures are made from these lines and from nothing else.

Nothing is chosen by the test set: every number is that of a fixed round of a fixed schedule.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, NamedTuple

import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError, TrainingDiverged
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.reporting.log import Record, read_log
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.runs.dataset import load_configured_dataset
from svdnet_jax.runs.directory import RunDir, load_identities, read_environment
from svdnet_jax.runs.environment import environment
from svdnet_jax.runs.restore import read_run_log
from svdnet_jax.safe_writing import is_figure, is_json, refuse_overwrite, write_whole
from svdnet_jax.studies.differences import mean_sums
from svdnet_jax.studies.jobs import cores, side_by_side
from svdnet_jax.studies.summary import Lines, about, at_round, choices, last_round
from svdnet_jax.studies.trained import Plan, plan, trained

WIDTH = 128
"""Columns of a printed table."""
IS_LINES = is_json("event", "variant", lines=True)
"""Whether a file holds the lines of a study."""
MOST = 10**6
"""Of any number but seeds that a study is told."""
DIGITS = 6
"""Decimals that are kept of a number."""


@dataclass(frozen=True)
class Options:
    """What every study can be told; the other options are those of its runs."""

    seeds: tuple[int, ...] = tuple(range(5))
    """Seeds of the runs, in place of --seed."""
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Factors on the learning rates of the rounds: each variant takes the best one on held-out identities. Where that
    is the first or the last, the grid goes on there. One factor: nothing is chosen."""
    held_out: int = 100
    """Training identities held out for that choice."""
    jobs: int = 0
    """Runs at a time, each on its share of the CPU cores. 0: as many as there are cores, on other devices one."""
    run: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    @property
    def folder(self) -> Path:
        """Where runs and results lie."""
        return self.run.out or Path("runs/paper")

    @property
    def processes(self) -> int:
        """How many runs are trained at a time."""
        import jax

        return self.jobs or (len(cores()) if jax.default_backend() == "cpu" else 1)


class Study(NamedTuple):
    """A study: one command, its tables, one figure."""

    name: str
    """Of the module and of what it writes."""
    title: str
    options: type[Options]
    measure: Callable[[Any, Console], list[Record]]
    """From options to lines; skips what is there."""
    tables: Callable[[Lines], list[Table]]
    figure: Callable[[Lines], Figure]
    limits: str
    """What the tables do not show."""


def conduct(study: Study, options: Options, console: Console) -> Path:
    """Runs what is missing of a study, writes its lines and its figure, and prints its tables.

    Returns:
        The file of lines.
    """
    if options.run.base_from or options.run.seed:
        raise ConfigError("--seed and --base-from: a study sets them for its runs; give --seeds")
    check_options(options)
    path, drawn = (options.folder / f"{study.name}.jsonl", options.folder / "figures" / f"{study.name}.png")
    refuse_overwrite("--out", path, IS_LINES)
    refuse_overwrite("--out", drawn, is_figure)
    lines = [_rounded(line) for line in study.measure(options, console)]
    write_whole(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    save(study.figure(lines), drawn)
    say(console, f"{text(study, lines)}\nlines: {path}\nfigure: {drawn}")
    return path


def check_options(options: Options) -> None:
    """Refuses options of a study that cannot work, before any work; those of its runs are checked with each.

    Raises:
        ConfigError: Names the option.
    """
    if not options.seeds or len({*options.seeds}) < len(options.seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, options.seeds))}: give one or more, each once")
    for each in fields(options):
        values = getattr(options, each.name)
        least, most = {"held_out": (2, MOST), "seeds": (0, 2**32 - 1)}.get(each.name, (0, MOST))
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, int | float) and not least <= value <= most:
                option = f"--{each.name.replace('_', '-')}"
                raise ConfigError(f"{option} {value}: must be from {least} to {most}")
    if not options.factors or min(options.factors) <= 0:
        raise ConfigError(f"--factors {' '.join(map(str, options.factors))}: give one or more, each above 0")
    if options.run.data.validation and max(len(options.factors), len(getattr(options, "weight_factors", ()))) > 1:
        # Both would be drawn from the same training identities.
        raise ConfigError(
            f"--data.validation {options.run.data.validation}: a study that chooses rates holds out --held-out "
            f"{options.held_out} training identities for that, so it would report on people that it chose by; leave it "
            "out, or give one factor, which chooses nothing"
        )


def text(study: Study, lines: Lines) -> str:
    """Returns the tables of a study, and what they rest on and do not show, as plain text.

    It has `WIDTH` columns, or as many as a table needs: a number that is cut is a wrong one.
    """
    file = StringIO()
    for number, table in enumerate(study.tables(lines)):
        needed = terminal(width=10 * WIDTH).measure(table).maximum
        console = terminal(width=max(WIDTH, needed), file=file)
        console.print("\n" * (number > 0), table, sep="", end="")
    notes = [fill(part, WIDTH) for part in (about(lines), choices(lines), study.limits) if part]
    printed = file.getvalue()
    return "\n".join(line.rstrip() for line in [*printed.splitlines(), *"\n".join(notes).splitlines()])


def train(options: Options, variants: Mapping[str, Config], console: Console) -> list[Record]:
    """Trains all variants with all seeds, but for what is there.

    Args:
        options: Of the study.
        variants: Settings by name; one without rounds is its Step 0.
        console: Where to show it.

    Returns:
        The lines of their logs at borders of phases, each with ``variant`` and ``seed``.

    Raises:
        TrainingDiverged: A run did, at the rate that was chosen with other seeds; says which run. A mean without that
            seed would be one of the seeds that went well.
    """
    among = plan(options.folder, variants, options.seeds)
    if among.runs:
        load_configured_dataset(options.run, console)  # drawn or prepared once, before several processes ask for it
        say(console, f"to train: {among}")
    if options.processes > 1:
        side_by_side(_train_seed, [(options, variants, seed, among) for seed in options.seeds], options.processes)
    lines, folders = [], {}
    for name, config in variants.items():
        folders[name] = [_trained(options, name, config, seed, console, among) for seed in options.seeds]
        for seed, folder in zip(options.seeds, folders[name], strict=True):
            lines += tagged(folder, name, seed)
    number = last_round(lines)
    return lines + [line for name in folders for line in _identities(name, folders[name], lines, number)]


def _train_seed(options: Options, variants: Mapping[str, Config], seed: int, among: Plan) -> None:
    """Trains all variants with one seed: one process works on a seed, as they share its Step 0."""
    console = terminal(plain=True)
    for name, config in variants.items():
        _trained(options, name, config, seed, console, among)


def _trained(options: Options, name: str, config: Config, seed: int, console: Console, among: Plan) -> Path:
    """Returns the folder of a finished run; where it diverged, says what that means for a study."""
    try:
        return trained(options.folder, name, config, seed, console, among)
    except TrainingDiverged as error:
        rates = " ".join(f"{rate:g}" for rate in config.rri.learning_rates)
        raise TrainingDiverged(
            f"{options.folder / f'{name}-{seed}'} (rates of the rounds: {rates}): {error}. There is no table without "
            "this run: a mean over the seeds that went well would hide it. In another --out, give smaller --factors or "
            "one factor for all; the other runs are intact"
        ) from None


def _identities(variant: str, folders: Sequence[Path], lines: Lines, number: int) -> list[Record]:
    """Returns a line with the results of a variant by identity after a round, the mean over its runs."""
    phases = [record["phase"] for record in at_round(lines, variant, number)]
    sums = mean_sums(
        [load_identities(RunDir(folder), number, phase) for folder, phase in zip(folders, phases, strict=True)]
    )
    if sums is None:
        return []
    kept = {name: each.to_json(digits=3) for name, each in sums.items()}
    return [{"event": "identities", "variant": variant, "seed": None, "round": number, **kept}]


def tagged(folder: Path, variant: str, seed: int) -> list[Record]:
    """Returns what a run's log says of its start, borders and end, with its variant and the machine."""
    lines: list[Record] = []
    for record in read_run_log(folder):
        if record["event"] in ("start", "phase", "decorrelate", "end"):
            line = {k: v for k, v in record.items() if k not in ("settings", "spectrum")}
            more = {"machine": machine(folder)} if record["event"] == "start" else {}
            lines.append({**line, "variant": variant, "seed": seed, **more})
    return lines


def machine(folder: Path | None = None) -> str:
    """Returns what a run was trained on; without a folder, what this process works on."""
    facts = environment() if folder is None else read_environment(RunDir(folder))
    if not {"devices", "device_kind", "cpus", "python", "packages"} <= facts.keys():
        return "an unknown machine"
    kinds = f"{len(facts['devices'])} x {facts['device_kind']}"
    return f"{kinds}, {facts['cpus']} CPU cores, Python {facts['python']}, jax {facts['packages']['jax']}"


def cached(path: Path, compute: Callable[[], list[Record]]) -> list[Record]:
    """Computes lines once: they are kept in a file beside what they are of."""
    if not path.exists():
        lines = compute()
        write_whole(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    return [*read_log(path)]


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value
