"""Runs beside their controls: what the decorrelation adds to training as long without it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from svdnet_jax.config.serialize import diff
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.log import Record, after_rounds, check_records, read_log
from svdnet_jax.reporting.report import write_report
from svdnet_jax.runs.directory import RunDir, read_environment, read_settings
from svdnet_jax.runs.restore import read_run_log

ROWS = [(name, measure) for name in ("embedding", "pooled") for measure in ("rank1", "mAP", "mAP_market")]


def report_beside_control(out: Path, run: Path, records: list[Record], control: list[Record]) -> Path:
    """Writes the report of a run once more, with its control beside it.

    Args:
        out: Where rounds.png is and report.html goes.
        run: The run's folder.
        records: Its log.
        control: The control's log.

    Returns:
        The report.

    Raises:
        ConfigError: The run's settings are missing or damaged.
    """
    drawn = {path.stem.replace("_", " "): path for path in sorted(RunDir(run).figures.glob("*.png"))}
    write_report(
        out / "report.html",
        title=f"SVDNet on {records[0]['dataset']}, beside the control",
        config=read_settings(RunDir(run)),
        environment=read_environment(RunDir(run)),
        records=records,
        control=control,
        figures=drawn | {"rounds": out / "rounds.png"},
        facts={"Data": str(records[0]["dataset"]), "Run": str(run), "Seed": str(records[0]["seed"])},
    )
    return out / "report.html"


def load_pairs(runs: Sequence[Path], controls: Sequence[Path]) -> list[tuple[list[Record], list[Record]]]:
    """Logs of runs and their controls.

    Raises:
        ConfigError: Not one control for each run, or a pair that is none: other steps, learning rates or seed.
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
                f"--controls {control}: not the steps and learning rates of {run}; a run that stopped early has its "
                "control in as many --rri.rounds"
            )
        pairs.append((ours, theirs))
    return pairs


def table(pairs: Sequence[tuple[list[Record], list[Record]]]) -> Table:
    """Returns the last round's results in per cent, RRI and control, and the difference pair by pair."""
    last = [[after_rounds(log)[-1] for log in pair] for pair in pairs]
    seeds = ", ".join(str(run[0]["seed"]) for run, _ in pairs)
    made = Table(
        title=f"After round {last[0][0]['round']}; seeds {seeds}",
        caption="per cent; mean and standard deviation over the seeds" if len(pairs) > 1 else "per cent",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    for head in ("", "base", "RRI", "control", "difference"):
        # The leading spaces keep columns apart; all of it fits 80 columns.
        made.add_column(head and f"  {head}", justify="right" if head else "left", no_wrap=True)
    base = [after_rounds(run)[0] for run, _ in pairs]
    made.add_row("S(W)", *_cells([[r["correlation"] for r in p] for p in last], [b["correlation"] for b in base], 2))
    for name, measure in ROWS:
        values = [[100 * record[name][measure] for record in pair] for pair in last]
        made.add_row(f"{name} {measure}", *_cells(values, [100 * b[name][measure] for b in base], 1))
    return made


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
    """Returns the step and learning rate of every line about training."""
    return [(r["step"], r["learning_rate"]) for r in records if r["event"] == "step"]
