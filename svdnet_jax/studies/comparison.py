"""Runs beside their controls: what the decorrelation adds to training as long without it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from svdnet_jax.config.serialize import diff
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.log import Record, after_rounds, check_records, on_held_out, read_log
from svdnet_jax.reporting.report import write_report
from svdnet_jax.retrieval.intervals import Sums, caution
from svdnet_jax.runs.directory import RunDir, load_identities, read_environment, read_settings
from svdnet_jax.runs.restore import read_run_log
from svdnet_jax.studies.differences import Difference, difference, ends, mean_sums

ROWS = [(name, measure) for name in ("embedding", "pooled") for measure in ("rank1", "mAP", "mAP_market")]


class Pair(NamedTuple):
    """A run and its control."""

    run: list[Record]
    """Lines of its log."""
    control: list[Record]
    sums: tuple[Sums, Sums] | None = None
    """Results by identity after the last round, of both; None where a log alone was given, or an older run."""


def load_pairs(runs: Sequence[Path], controls: Sequence[Path]) -> list[Pair]:
    """Reads runs and their controls, from their folders or their logs.

    Raises:
        ConfigError: Not one control for each run; a pair that is none: another Step 0, other steps or another seed; or
            pairs that differ in more than the seed, or share one.
    """
    if len(runs) != len(controls):
        raise ConfigError(f"--controls: {len(controls)} given for {len(runs)} runs; give one for each, in order")
    pairs = []
    for run, control in zip(runs, controls, strict=True):
        ours, theirs = _read(run), _read(control)
        if theirs[0].get("method") != "none":
            raise ConfigError(f"--controls {control}: decorrelates by {theirs[0].get('method')}; a control must not")
        changed = [line for line in diff(ours[0], theirs[0]) if not line.startswith(("method:", "preset:"))]
        if changed:
            raise ConfigError(f"--controls {control}: not the control of {run}: {'; '.join(changed)}")
        if _budget(ours) != _budget(theirs):
            raise ConfigError(
                f"--controls {control}: not the steps of {run}, or not the learning rates of its Step 0; a run that "
                "stopped early has its control in as many --rri.rounds"
            )
        sums = [_sums(path, after_rounds(records)[-1]) for path, records in ((run, ours), (control, theirs))]
        pairs.append(Pair(ours, theirs, (sums[0], sums[1]) if sums[0] and sums[1] else None))
    for number, pair in enumerate(pairs[1:], start=1):
        _check_alike(pairs[:number], pair, (runs[0], runs[number]))
    return pairs


def _check_alike(before: Sequence[Pair], pair: Pair, names: tuple[Path, Path]) -> None:
    """Refuses a pair that is no further seed of those before: mean and interval over seeds would be of something else.

    Raises:
        ConfigError: It has the seed of one before, other settings, or other steps and learning rates.
    """
    first, seed = before[0], pair.run[0]["seed"]
    if seed in [each.run[0]["seed"] for each in before]:
        raise ConfigError(f"--runs {names[1]}: has the seed {seed}, as one before it; give one pair for each seed")
    free = ("seed:", "preset:", *(_OF_HELD_OUT if on_held_out(first.run) and on_held_out(pair.run) else ()))
    changed = [line for line in diff(first.run[0], pair.run[0]) if not line.startswith(free)]
    # One that stopped earlier has fewer of the same steps.
    if any(ours != theirs for ours, theirs in zip(_budget(first.run), _budget(pair.run), strict=False)):
        changed.append("other steps or learning rates")
    if changed:
        raise ConfigError(
            f"--runs {names[1]}: not {names[0]} with another seed: {'; '.join(changed)}; compare them one by one"
        )


_OF_HELD_OUT = ("fingerprint:", "identities:", "train:", "query:", "valid_queries:", "gallery:")
"""What differs from seed to seed where each holds out other people."""


def _sums(path: Path, record: Record) -> Sums | None:
    """Returns results by identity at a border, where a folder keeps them."""
    return load_identities(RunDir(path), record["round"], record["phase"]) if path.is_dir() else None


def report_beside_control(out: Path, run: Path, pair: Pair) -> Path:
    """Writes the report of a run once more, with its control beside it.

    Args:
        out: Where rounds.png is and report.html goes.
        run: The run's folder.
        pair: The run and its control.

    Returns:
        The report.

    Raises:
        ConfigError: The run's settings are missing or damaged.
    """
    records = pair.run
    drawn = {path.stem.replace("_", " "): path for path in sorted(RunDir(run).figures.glob("*.png"))}
    write_report(
        out / "report.html",
        title=f"SVDNet on {records[0]['dataset']}, beside the control",
        config=read_settings(RunDir(run)),
        environment=read_environment(RunDir(run)),
        records=records,
        control=pair.control,
        differences=differences(pair),
        figures=drawn | {"rounds": out / "rounds.png"},
        facts={
            "Data": str(records[0]["dataset"]),
            "Run": str(run),
            "Seed": str(records[0]["seed"]),
            "Largest learning rates of the rounds": rates(pair),
        },
    )
    return out / "report.html"


def table(pairs: Sequence[Pair]) -> Table:
    """Returns the last round's results in per cent, RRI and control, and the difference pair by pair."""
    last = _last(pairs)
    seeds = ", ".join(str(pair.run[0]["seed"]) for pair in pairs)
    # Runs that stopped by the rule may have ended after different rounds.
    ended = ", ".join(str(number) for number in dict.fromkeys(ours["round"] for ours, _ in last))
    made = Table(
        title=f"After round {ended}; seeds {seeds}",
        caption="per cent; mean and standard deviation over the seeds" if len(pairs) > 1 else "per cent",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    for head in ("", "base", _name(pairs[0]), "control", "difference"):
        # The leading spaces keep columns apart; all of it fits 80 columns.
        made.add_column(head and f"  {head}", justify="right" if head else "left", no_wrap=True)
    base = [after_rounds(pair.run)[0] for pair in pairs]
    made.add_row("S(W)", *_cells([[r["correlation"] for r in p] for p in last], [b["correlation"] for b in base], 2))
    for name, measure in ROWS:
        values = [[100 * record[name][measure] for record in pair] for pair in last]
        made.add_row(f"{name} {measure}", *_cells(values, [100 * b[name][measure] for b in base], 1))
    return made


def _name(pair: Pair) -> str:
    """Returns what the runs are called: RRI is by US, as in the paper, unless another method is said."""
    method = pair.run[0]["method"]
    return "RRI" if method == "us" else f"RRI by {method}"


def differences(*pairs: Pair) -> dict[str, Difference]:
    """Returns RRI minus control by embedding and measure, after the last round.

    Raises:
        ConfigError: The pairs were not measured on the same queries.
    """
    # Of several seeds that hold out other people each, there are no people to resample.
    apart = len(pairs) > 1 and on_held_out(pairs[0].run)
    ours, theirs = ([None if apart else pair.sums and pair.sums[side] for pair in pairs] for side in (0, 1))
    try:
        means = mean_sums(ours), mean_sums(theirs)
        known = (means[0], means[1]) if means[0] and means[1] else None
        rows = {}
        for name, measure in ROWS:
            values = np.array([[100 * record[name][measure] for record in records] for records in _last(pairs)]).T
            rows[f"{name} {measure}"] = difference((values[0], values[1]), known, name, measure)
    except ValueError as error:
        raise ConfigError(f"--runs, --controls: {error}; give pairs that were tested on the same data") from error
    return rows


def interval_table(pairs: Sequence[Pair]) -> Table:
    """Returns RRI minus control with 95 % intervals.

    Raises:
        ConfigError: The pairs were not measured on the same queries.
    """
    rows = differences(*pairs)
    made = Table(title="Difference, in per cent, with 95 % intervals", title_justify="left", caption_justify="left")
    made.box, made.padding = box.SIMPLE_HEAD, 0
    for head in ("", "difference", "over seeds", "over test identities"):
        made.add_column(head and f"  {head}", justify="right" if head else "left", no_wrap=True)
    for title, each in rows.items():
        people = ends(each.people) or "one person" if each.people else "not known"
        made.add_row(title, f"  {each.seeds.value:+.1f}", ends(each.seeds) or "one seed", people)
    made.caption = "over seeds: Student's t; over test identities: of the mean over the seeds, people resampled"
    if pairs[0].sums and (doubt := caution(len(pairs[0].sums[0]["embedding"].pids))):
        made.caption += f"\n{doubt}"
    return made


def _last(pairs: Sequence[Pair]) -> list[tuple[Record, Record]]:
    """Returns the last round of each run and control."""
    return [(after_rounds(pair.run)[-1], after_rounds(pair.control)[-1]) for pair in pairs]


def _cells(values: list[list[float]], base: list[float], digits: int) -> list[str]:
    ours, theirs = np.array(values).T
    columns = (np.array(base), ours, theirs, ours - theirs)
    signs = ("", "", "", "+")
    return [spread(column, digits, sign) for column, sign in zip(columns, signs, strict=True)]


def spread(values: np.ndarray, digits: int, sign: str = "") -> str:
    """Returns the mean and, of several values, their standard deviation; the leading spaces keep columns apart."""
    mean = f"{values.mean():{sign}.{digits}f}"
    return f"  {mean}" if len(values) == 1 else f"  {mean} ± {values.std(ddof=1):.{digits}f}"


def _read(path: Path) -> list[Record]:
    records: list[Record] = [*(read_run_log if path.is_dir() else read_log)(path)]
    if not records or records[-1]["event"] != "end":
        raise ConfigError(f"{path}: the run has not ended; run its command again to finish it")
    check_records(path, records)
    return records


def _budget(records: Sequence[Record]) -> list[tuple[object, ...]]:
    """Returns the step of every line about training, and the learning rate where it is one of Step 0.

    Rates of the rounds are each arm's own: one that repairs a classifier which was thrown off may spoil another.
    """
    steps = [record for record in records if record["event"] == "step"]
    base = len(steps) - len(_rounds(records))
    return [(r["step"], r["learning_rate"] if place < base else None) for place, r in enumerate(steps)]


def _rounds(records: Sequence[Record]) -> list[Record]:
    """Returns the lines about training after Step 0."""
    base = next(place for place, record in enumerate(records) if record["event"] == "phase")
    return [record for record in records[base:] if record["event"] == "step"]


def rates(pair: Pair) -> str:
    """Returns the largest learning rate of the rounds of a run and of its control, as text."""
    largest = (max((r["learning_rate"] for r in _rounds(side)), default=0.0) for side in (pair.run, pair.control))
    return "{} {:g}, control {:g}".format(_name(pair), *largest)


def rates_note(pairs: Sequence[Pair]) -> str:
    """Returns what to know where controls trained at other learning rates than their runs; empty where none did."""
    other = [
        pair
        for pair in pairs
        if [r["learning_rate"] for r in _rounds(pair.run)] != [r["learning_rate"] for r in _rounds(pair.control)]
    ]
    return (
        f"note: the rounds of {len(other)} of {len(pairs)} controls were trained at other learning rates than those of "
        f"their runs (the largest: {rates(other[0])}): fair where each was chosen from one grid on held-out people"
        if other
        else ""
    )
