"""What the terminal shows: plain lines where there is none, a bar where there is, the result table."""

import io
import re
from dataclasses import replace

import pytest
from fake_run import fake_run
from rich.console import Console

from svdnet_jax.config.schema import Config
from svdnet_jax.reporting.progress import counting, print_table, progress
from svdnet_jax.training.events import Working
from svdnet_jax.training.schedule import build_schedule


def plain():
    return Console(file=io.StringIO(), width=80)


def terminal():
    return Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")


def plan(rounds=1, steps=900):
    """The phases that `fake_run` tells of."""
    config = Config()
    base = replace(config.base, steps=steps, milestones=())
    return build_schedule(replace(config, base=base, rri=replace(config.rri, rounds=rounds)))


def lines_of(console):
    return console.file.getvalue().splitlines()


def show_all(console, records, every=0.0):
    with progress(plan(max(record.get("round", 0) for record in records)), console, every=every) as show:
        for record in records:
            show(record)


def test_without_a_terminal_a_run_is_plain_lines():
    console, records = plain(), fake_run(rounds=2)
    show_all(console, records)
    text = console.file.getvalue()
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text) is None  # no control code but the line end
    lines = text.splitlines()
    steps = [r for r in records if r["event"] == "step"]
    assert sum("images/s" in line for line in lines) == len(steps)
    first = lines[0]
    place = r"base +step 30/900, 30/1260 of the run +loss 4\.102 +accuracy 1\.7 % +602 images/s +0:00 passed, \? left"
    assert re.fullmatch(place, first)
    assert any(re.match(r"2 restraint +step 60/90, 1140/1260 of the run", line) for line in lines)
    assert any(re.match(r"2 relaxation +step 90/90, 1260/1260 of the run", line) for line in lines)
    assert any("1 W = US" in line and "0.046 -> 1.000" in line for line in lines)
    assert any("embedding rank-1 64.6 mAP 51.2" in line for line in lines)
    assert lines[-1] == "all rounds done after 1260 steps, 4 min 01 s of training"


def test_time_left_is_that_of_the_whole_run():
    now = 0.0
    console = Console(file=io.StringIO(), width=80, get_time=lambda: now)
    with progress(plan(rounds=0, steps=300), console, every=0.0) as show:
        for step in (100, 110, 120):
            now += 20.0  # the first line is no measure of speed: it includes compilation
            show(fake_run()[1] | {"step": step})
    # 10 steps take 20 s, so 190 take 380 s and 180 take 360 s.
    assert [line.rpartition("images/s")[2].strip() for line in lines_of(console)] == [
        "0:20 passed, ? left",
        "0:40 passed, 6 min 20 s left",
        "1:00 passed, 6 min 00 s left",
    ]


def test_a_line_of_a_long_run_has_hours():
    now = 0.0
    console = Console(file=io.StringIO(), width=80, get_time=lambda: now)
    with progress(plan(rounds=0, steps=30_000), console, every=0.0) as show:
        for step in (100, 110, 120):
            now += 1861.0
            show(fake_run()[1] | {"step": step})
    assert [line.rpartition("images/s")[2].strip() for line in lines_of(console)] == [
        "31:01 passed, ? left",
        "1:02:02 passed, 64 d 09 h left",
        "1:33:03 passed, 64 d 09 h left",
    ]


@pytest.mark.parametrize("make", [plain, terminal])
def test_compiling_and_evaluating_are_said_while_they_last(make):
    console, (base, restraint, _) = make(), plan(rounds=1)
    shown = []
    with progress([base, restraint], console) as show:
        for event in (
            Working("compiling", restraint, 900),
            Working("training", restraint, 900),
            Working("evaluating", restraint, 990),
        ):
            show(event.record)
            if console.is_terminal:
                bar = console._live_stack[-1].get_renderable()
                written = Console(file=io.StringIO(), width=100)
                written.print(bar)
                shown.append(" ".join(written.file.getvalue().split()))
    if console.is_terminal:
        places = ("1 restraint 0/90", "1 restraint 0/90", "1 restraint 90/90")
        for line, place, doing in zip(shown, places, ("compiling", "training", "evaluating"), strict=True):
            assert line.startswith(place)
            assert doing in line
    else:  # a line each, but none that training goes on
        assert [line.split() for line in lines_of(console)] == [
            ["1", "restraint", "compiling"],
            ["1", "restraint", "evaluating"],
        ]


def test_step_lines_keep_their_distance_and_borders_are_always_shown():
    console, records = plain(), fake_run(rounds=1)
    show_all(console, records, every=3600.0)
    lines = lines_of(console)
    assert sum("images/s" in line for line in lines) == 1
    assert sum(line.startswith(("base ", "1 ")) and "S(W)" in line for line in lines) == 4


def test_a_border_names_the_further_test_sets():
    console, [_, *records] = plain(), fake_run(rounds=0)
    measured = {name: {"rank1": 0.25, "mAP": 0.125} for name in ("embedding", "pooled")}
    show_all(console, [record | {"others": {"duke": measured}} for record in records if record["event"] == "phase"])
    assert "embedding rank-1 25.0 mAP 12.5  pooled rank-1 25.0 mAP 12.5  on duke" in lines_of(console)[-1]


def test_on_a_terminal_the_bar_shows_phase_step_and_results():
    console, records = terminal(), fake_run(rounds=1)
    show_all(console, records)
    text = console.file.getvalue()
    assert "\x1b[" in text
    assert "1 relaxation" in text
    assert "1080/1080" in text
    assert "rank-1 63.8" in text
    assert " left" not in text  # no plain line beside the bar


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_is_not_cut(width):
    now = 0.0
    console = Console(file=io.StringIO(), width=width, force_terminal=True, get_time=lambda: now)
    with progress(plan(rounds=4), console) as show:
        for record in [r for r in fake_run(rounds=4) if r["event"] == "step"][:-1]:
            now += 600.0
            show(record)
        written = Console(file=io.StringIO(), width=width)
        written.print(console._live_stack[-1].get_renderable())
    (line,) = written.file.getvalue().splitlines()
    assert "4 relaxation 60/90" in line
    assert "1590/1620" in line
    assert "images/s 10 min 00 s" in line
    assert ("accuracy" in line) == (width == 120)


def test_a_run_stopped_early_ends_with_a_full_bar():
    console, records = terminal(), fake_run(rounds=1)
    records[-1] = records[-1] | {"stopped": "stable"}
    with progress(plan(rounds=4), console) as show:
        for record in records:
            show(record)
    assert "1080/1080" in console.file.getvalue().rpartition("done")[2]
    assert "S(W) is stable after 1080 steps" in console.file.getvalue()


def test_a_resumed_run_goes_on_counting_from_its_step():
    console = terminal()
    with progress(plan(rounds=0, steps=200), console) as show:
        show({"event": "resume", "step": 100})
    assert "resumed at step 100" in console.file.getvalue()
    assert "100/200" in console.file.getvalue()


def test_plain_lines_are_never_wrapped():
    console = Console(file=io.StringIO(), width=20)
    show_all(console, fake_run(rounds=1)[:2])
    assert len(lines_of(console)) == 1


def test_the_control_says_that_nothing_was_decorrelated():
    console = plain()
    show_all(console, fake_run(rounds=1, method="none"))
    assert "1 not decorrelated: the control" in lines_of(console)


def test_counting_without_a_terminal():
    console = plain()
    with counting("Drawing pedestrians", 30, console, every=0.0) as advance:
        for _ in range(3):
            advance(10)
    lines = lines_of(console)
    assert lines[:2] == ["Drawing pedestrians 10/30", "Drawing pedestrians 20/30"]
    assert re.fullmatch(r"Drawing pedestrians 30/30 in \d+\.\d s", lines[2])
    assert len(lines) == 3


def test_counting_on_a_terminal():
    console = terminal()
    with counting("Drawing pedestrians", 30, console) as advance:
        advance(30)
    assert "30/30" in console.file.getvalue()


def test_the_table_holds_the_numbers_of_every_border():
    console = plain()
    print_table(fake_run(rounds=2), console, title="synthetic")
    lines = [line.rstrip() for line in lines_of(console)]
    assert lines[0] == "synthetic"
    rows = [line.split() for line in lines if re.match(r" (base|\d )", line)]
    assert [" ".join(row[:-8]) for row in rows] == [
        "base",
        *("1 W = US", "1 restraint", "1 relaxation"),
        *("2 W = US", "2 restraint", "2 relaxation"),
    ]
    # S(W), loss, then rank-1, mAP and mAP_market of embedding and pooled.
    assert rows[0][-8:] == ["0.046", "0.127", "63.0", "50.4", "49.2", "60.0", "48.0", "46.8"]
    assert rows[1][-8:-6] == ["1.000", "1.027"]  # after the decorrelation
    assert rows[-1][-8:] == ["0.225", "0.073", "64.6", "51.2", "50.0", "63.2", "49.6", "48.4"]
    heads = " ".join(lines[1:4]).split()
    assert heads[-9:] == ["phase", "S(W)", "loss", *["rank-1", "mAP", "mAP_market"] * 2]


def test_a_restraint_that_was_not_evaluated_has_its_line_and_its_row():
    console, run = plain(), fake_run(rounds=1, evaluate_restraint=False)
    with progress(plan(rounds=1), console) as show:
        for record in run:
            show(record)
    assert "1 restraint   S(W) 1.000  not evaluated" in lines_of(console)
    console = plain()
    print_table(run, console)
    rows = {" ".join(line.split()[:2]): line.split()[2:] for line in lines_of(console)}
    assert rows["1 restraint"] == ["1.000"]
    assert len(rows["1 relaxation"]) == 8


@pytest.mark.parametrize("loss", [0.1, 12.3456])
def test_the_table_fits_in_eighty_columns_uncut(loss):
    base = next(r for r in fake_run() if r["event"] == "phase")
    perfect = dict.fromkeys(base["embedding"], 1.0)
    console = plain()
    print_table([base | {"loss": loss, "embedding": perfect, "pooled": perfect}], console)
    assert all(len(line) <= 80 for line in lines_of(console))
    assert "…" not in console.file.getvalue()
    assert console.file.getvalue().count("100.0") == 6
