"""What people read: names as they are on every stream, and times with their units."""

import ast
import csv
import io
import json
import os
import re
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from fake_run import fake_run
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from small_data import write

from svdnet_jax.cli.exits import fail
from svdnet_jax.config.schema import Config
from svdnet_jax.reporting.figures import training as figures
from svdnet_jax.reporting.progress import counting, print_table, progress
from svdnet_jax.reporting.terminal import clock, duration, printable, say, terminal
from svdnet_jax.training.schedule import build_schedule

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("svdnet_jax", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))]
HOSTILE = ["x[bold]", "a[/b]", "svdnet-jax[cuda]", ":smile:", "[link=x]y[/link]", "[red]é", r"\[b]", "100%", "{x}"]


def printed(show):
    """What is printed by a caller's own console, in which markup and pictures are on, and by ours."""
    own, ours = io.StringIO(), io.StringIO()
    show(Console(file=own, width=200))
    show(terminal(file=ours, width=200))
    return own.getvalue(), ours.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_printed_as_they_are(name, capsys):
    for text in printed(lambda console: say(console, f"report: {name}")):
        assert text == f"report: {name}\n"
    for text in printed(lambda console: print_table(fake_run(rounds=1), console, title=name)):
        assert text.splitlines()[0].rstrip() == name

    def count(console):
        with counting(name, 1, console) as advance:
            advance(1)

    assert all(text.startswith(f"{name} 1/1 in ") for text in printed(count))
    on_terminal = io.StringIO()
    count(Console(file=on_terminal, width=200, force_terminal=True, color_system=None))
    assert f"{name} " in on_terminal.getvalue()
    assert fail(f"--out {name}: no", 2) == 2
    assert capsys.readouterr().err == f"error: --out {name}: no\n"


def test_a_table_of_ours_takes_names_as_they_are():
    file = io.StringIO()
    table = Table("name", title="[b]", caption=":smile:")
    for name in HOSTILE:
        table.add_row(name)
    terminal(file=file, width=80).print(table)
    assert all(name in file.getvalue() for name in (*HOSTILE, "[b]", ":smile:"))


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node, node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_place_makes_consoles_and_prints_lines(path):
    if path.name == "terminal.py":
        return
    for node, name in calls(path):
        where = f"{path}:{node.lineno}: print by svdnet_jax.reporting.terminal"
        assert name != "Console", where
        assert not (name == "print" and isinstance(node.func, ast.Name)), where
        # A console prints tables; text goes through say.
        if name == "print":
            assert not any(isinstance(a, ast.JoinedStr | ast.Call) for a in node.args if not is_table(a)), where
        if name == "TextColumn":
            assert any(k.arg == "markup" for k in node.keywords), where


def is_table(node):
    return isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("table")


@given(st.text())
def test_what_is_printed_holds_no_codes_and_fits_any_file(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert printable(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


@given(st.binary(max_size=8).filter(lambda raw: b"\\" not in raw))
def test_a_file_name_can_be_found_again(raw):
    shown = printable(os.fsdecode(raw))
    back = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), shown.encode())
    assert re.sub(rb"\\u00([0-9a-f]{2})", lambda m: chr(int(m[1], 16)).encode(), back) == raw or "\\u" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.2, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (1172 * 60 + 20, "19 h 32 min"),
        (86399, "1 d 00 h"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
        (3 * 365 * 86400, "3 years"),
    ],
)
def test_times_have_their_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.9, "0:59"), (725, "12:05"), (3599, "59:59"), (3723, "1:02:03"), (100 * 3600, "100:00:00")],
)
def test_a_clock_has_hours_where_there_are_some(seconds, text):
    assert clock(seconds) == text


def test_the_bar_says_the_time_in_units_too():
    now = 0.0
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, color_system=None, get_time=lambda: now)
    config = Config()
    phases = build_schedule(replace(config, base=replace(config.base, steps=30_000), rri=replace(config.rri, rounds=0)))
    with progress(phases, console) as show:
        for step in (100, 110, 120):
            now += 20.0
            show(fake_run()[1] | {"step": step})
    assert "16 h 36 min" in file.getvalue()  # 29 880 steps of 2 s


def test_no_file_writes_minutes_and_seconds_in_a_way_of_its_own():
    written = re.compile(r"// ?60|% ?60|/ ?60\b|TimeRemainingColumn|TimeElapsedColumn")
    assert [p.name for p in SOURCES if p.name != "terminal.py" and written.search(p.read_text())] == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_stream_of_any_encoding_takes_any_text(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    console = terminal()
    say(console, "→ é \udce9 \x1b[31m.jpg")
    table = Table(title="ä → \u4e00")
    table.add_row("é" * 200)
    console.print(table)
    shown = {"ascii": r"\u2192 \xe9", "latin-1": r"\u2192 é", "utf-8": "→ é"}[encoding]
    assert raw.getvalue().decode(encoding).splitlines()[0] == rf"{shown} \xe9 \x1b[31m.jpg"


def test_figures_draw_dollars_and_underscores():
    shown = ["$x$_a", "_hidden", "5 $ and 6 $", "a\udce9b"]
    figure = figures.singular_values({name: [2.0, 1.0] for name in shown})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == [r"\$x\$_a", " _hidden", r"5 \$ and 6 \$", r"a\xe9b"]
    figure.draw_without_rendering()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a file name")
def test_a_file_name_that_is_no_text_goes_through_everything(tmp_path, capsys, monkeypatch):
    from svdnet_jax.cli import evaluate, search
    from svdnet_jax.data.found import find_images
    from svdnet_jax.retrieval.embeddings import Embeddings

    name = os.fsdecode(b"caf\xe9.jpg")
    write(tmp_path / "photos" / name, (9, 9, 9), size=(8, 16))
    write(tmp_path / "photos" / "b.jpg", (200, 9, 9), size=(8, 16))
    crops = find_images(tmp_path / "photos").crops
    assert [crop.name for crop in crops] == ["b.jpg", name]
    made = Embeddings([[0.0, 1.0], [1.0, 0.0]], [1, 2], [1, 2], [crop.name for crop in crops])
    file = tmp_path / os.fsdecode(b"caf\xe9.npz")
    made.save(file)
    assert Embeddings.load(file).names.tolist() == ["b.jpg", name]

    out = tmp_path / "near.csv"
    asked = ["--gallery", str(file), "--query", str(file), "--k", "1"]
    assert search.main([*asked, "--out", str(out)]) == 0
    assert r"caf\xe9.jpg" in capsys.readouterr().out
    assert [row["name"] for row in csv.DictReader(io.StringIO(out.read_text("utf-8")))] == ["b.jpg", r"caf\xe9.jpg"]
    assert search.main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"][1]["query"]
    assert os.fsencode(found) == b"caf\xe9.jpg"  # JSON keeps the very name
    assert search.main([*asked, "--index", str(tmp_path / os.fsdecode(b"\xe9.npz"))]) == 0
    assert r"\xe9.npz" in capsys.readouterr().out

    folder = tmp_path / os.fsdecode(b"fig\xe9")
    seen = Embeddings([[0.0, 1.0], [1.0, 0.0]], [1, 2], [3, 3])
    seen.save(tmp_path / "g.npz")
    asked = ["--query", str(file), "--gallery", str(tmp_path / "g.npz"), "--figures", str(folder)]
    assert evaluate.main(asked) == 0
    assert r"fig\xe9/cmc.png" in capsys.readouterr().out


def test_a_report_holds_any_name(tmp_path):
    from svdnet_jax.reporting.report import write_report

    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    name = "a<b>&$x \udce9\x1b"
    write_report(
        tmp_path / "report.html",
        title=name,
        config={"out": name},
        environment={},
        records=fake_run(rounds=1),
        figures={name: picture},
        facts={"Run": name},
    )
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<b>" not in page
    assert unescape(page).count(r"a<b>&$x \xe9\x1b") == 6
