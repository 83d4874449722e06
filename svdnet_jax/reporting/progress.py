"""Shows a run on the terminal: a bar while it works, a line a border of phases, a table at the end.

All of it is made from the lines of the log. Where output is not a terminal (a file, a pipe, CI),
the bar becomes plain lines.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from svdnet_jax.reporting.log import Record, border_name, borders, is_measured
from svdnet_jax.reporting.terminal import clock, duration, printable, say
from svdnet_jax.training.schedule import ScheduledPhase

_EMBEDDINGS = ("embedding", "pooled")
_MEASURES = ("rank1", "mAP", "mAP_market")
_WIDE = 105
"""Columns that a bar takes with the accuracy."""


@contextmanager
def progress(
    schedule: Sequence[ScheduledPhase], console: Console, *, every: float = 2.0
) -> Iterator[Callable[[Record], None]]:
    """Shows a training run: phase, step of it and of the run, loss, accuracy, images/s, time passed and left.

    Args:
        schedule: Phases of the run; a rule may leave out the last ones.
        console: Where to show it.
        every: Without a terminal, seconds that lie at least between two lines for `step`.

    Yields:
        `show(record)`, to be called with every line of the log as it is written, and with `Working.record`.
    """
    phases, total_steps = {(each.kind, each.round): each for each in schedule}, schedule[-1].end
    bar = _bar(console, TextColumn("{task.fields[state]}", markup=False))
    task = bar.add_task("starting", total=total_steps, state="")
    last, started = -every, bar.get_time()

    def step_of(record: Record) -> str:
        phase = phases[record["phase"], record["round"]]
        return f"{record['step'] - phase.start}/{phase.settings.steps}"

    def show(record: Record) -> None:
        nonlocal last
        event = record["event"]
        if event == "resume":
            bar.reset(task, completed=record["step"], total=total_steps)
            say(bar.console, f"resumed at step {record['step']}")
        elif event == "working":
            name, doing = border_name(record), record["doing"]
            bar.update(task, description=f"{name} {step_of(record)}", completed=record["step"], state=doing)
            if not console.is_terminal and doing != "training":
                say(console, f"{name:13} {doing}")
        elif event == "step":
            name, state = border_name(record), _state(record)
            shown = state if console.width >= _WIDE else _state(record, short=True)
            bar.update(task, description=f"{name} {step_of(record)}", completed=record["step"], state=shown)
            if not console.is_terminal and time.monotonic() - last >= every:
                last = time.monotonic()
                place = f"step {step_of(record)}, {record['step']}/{total_steps} of the run"
                passed = clock(bar.get_time() - started)
                say(console, f"{name:13} {place}  {state}  {passed} passed, {_left(bar, task)} left")
        elif event in ("phase", "decorrelate"):
            bar.update(task, completed=record["step"])
            say(bar.console, _border(record))
        elif event == "end":
            bar.update(task, description="done", total=record["step"], completed=record["step"])
            say(bar.console, _end(record))

    with bar:
        yield show


@contextmanager
def counting(description: str, total: int, console: Console, *, every: float = 2.0) -> Iterator[Callable[[int], None]]:
    """Shows work on a known number of things, such as drawing or reading images.

    Args:
        description: What is done, "Drawing pedestrians".
        total: How many there are.
        console: Where to show it.
        every: Without a terminal, seconds that lie at least between two lines.

    Yields:
        `advance(count)`, to be called after each `count` of them.
    """
    bar = _bar(console)
    task = bar.add_task(printable(description), total=total)
    started = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal last, done
        done += count
        bar.advance(task, count)
        if not console.is_terminal and done < total and time.monotonic() - last >= every:
            last = time.monotonic()
            say(console, f"{description} {done}/{total}")

    with bar:
        yield advance
    if not console.is_terminal:
        say(console, f"{description} {done}/{total} in {duration(time.monotonic() - started)}")


def print_table(records: Sequence[Record], console: Console, *, title: str | None = None) -> None:
    """Prints a run's results, one row per border of phases: S(W), loss and both embeddings.

    Args:
        records: Lines of the log.
        console: Where to print; 80 columns are enough.
        title: What run this is.
    """
    table = Table(
        title=None if title is None else Text(printable(title)),
        title_justify="left",
        caption="rank-1, mAP in per cent; mAP: plain AP, mAP_market: AP by the trapezoid rule",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("\nphase", no_wrap=True)
    # The leading spaces keep columns apart and leave room for 100.0; the sum is 80 columns.
    heads = ["\n S(W)", "\n  loss"]
    for embedding in _EMBEDDINGS:
        heads += [f"{embedding:>8}\n  rank-1", "\n  mAP", "\nmAP_market"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for record in borders(records):
        decorrelated = record["event"] == "decorrelate"
        if not is_measured(record):
            table.add_row(border_name(record), f"{record['correlation']:.3f}")
            continue
        correlation, loss = record["correlation"], record["loss"]
        table.add_row(
            border_name(record),
            f"{correlation['after'] if decorrelated else correlation:.3f}",
            f"{loss['after'] if decorrelated else loss:.3f}",
            *(f"{100 * record[e][m]:.1f}" for e in _EMBEDDINGS for m in _MEASURES),
            style="dim" if decorrelated else None,
        )
    console.print(table)


class _TimeColumn(ProgressColumn):
    """The time left; once all is done, the time that it took."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.time_remaining
        return Text("" if seconds is None else duration(seconds), style="progress.remaining")


def _bar(console: Console, *columns: ProgressColumn) -> Progress:
    """Makes a bar. It keeps count and time also where it is not shown."""
    return Progress(
        TextColumn("{task.description:12}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        *columns,
        _TimeColumn(),
        console=console,
        disable=not console.is_terminal,
        # Long enough to take evaluations between phases into account, and for two lines of the log of a slow run.
        speed_estimate_period=7200.0,
    )


def _state(record: Record, *, short: bool = False) -> str:
    accuracy = "" if short else f"accuracy {100 * record['accuracy']:.1f} %  "
    return f"loss {record['loss']:.3f}  {accuracy}{record['images_per_second']:.0f} images/s"


def _left(bar: Progress, task: TaskID) -> str:
    """Returns the time left of the whole run, "?" before there is anything to judge by."""
    seconds = bar.tasks[bar.task_ids.index(task)].time_remaining
    return "?" if seconds is None else duration(seconds)


def _border(record: Record) -> str:
    if record["event"] == "decorrelate" and record["method"] == "none":
        return f"{record['round']} not decorrelated: the control"
    change: Any = record["correlation"]
    if not is_measured(record):
        return f"{border_name(record):13} S(W) {change:.3f}  not evaluated"
    if record["event"] == "decorrelate":
        loss = record["loss"]
        figures = (
            f"S(W) {change['before']:.3f} -> {change['after']:.3f}  loss {loss['before']:.3f} -> {loss['after']:.3f}"
        )
    else:
        figures = f"S(W) {change:.3f}  loss {record['loss']:.3f}"
    lines = [f"{border_name(record):13} {figures}", f"{'':13} {_retrieval(record)}"]
    lines += [f"{'':13} {_retrieval(on)}  on {name}" for name, on in record.get("others", {}).items()]
    return "\n".join(lines)


def _retrieval(record: Record) -> str:
    return "  ".join(
        f"{name} rank-1 {100 * record[name]['rank1']:.1f} mAP {100 * record[name]['mAP']:.1f}" for name in _EMBEDDINGS
    )


def _end(record: Record) -> str:
    reasons = {"maximum": "all rounds done", "stable": "S(W) is stable"}
    return f"{reasons[record['stopped']]} after {record['step']} steps, {duration(record['seconds'])} of training"
