"""The main job as a user runs it, on the tiny preset: what it prints, writes, refuses, and how it goes on."""

import csv
import dataclasses
import html
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest
import short_run
from filelock import FileLock
from tiny_run import ONE, arguments

from experiments.market_rri import main
from svdnet_jax.config.schema import input_size
from svdnet_jax.errors import LogError
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.reporting.log import read_log
from svdnet_jax.retrieval import Embeddings, evaluate
from svdnet_jax.retrieval.distributions import distance_distributions
from svdnet_jax.runs import checkpoint
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.report import _distances
from svdnet_jax.runs.restore import read_run_log
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import begin_phase, init_state

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parents[2]
M = {"rank1", "rank5", "rank10", "rank20", "mAP", "mAP_market", "mINP"}
CLOCK = ("images_per_second", "seconds")


@pytest.fixture
def again(finished, tmp_path):
    """A copy of the finished run to play with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def timeless(folder):
    """The log without what the clock says and without the lines about resuming."""
    records = read_log(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in records if r["event"] != "resume"]


def final_state(folder, config):
    """The last checkpoint, of a run that is over, with its key as plain numbers."""
    fresh = init_state(create_model(config.model, 12), input_size(config.data), seed=1)
    like = begin_phase(
        fresh, optax.identity(), 0.0, phase=len(build_schedule(config)), correlation=fresh.cursor.correlation
    )
    with checkpoint.open_checkpoints(folder / "checkpoints", lambda metrics: metrics["mAP"]) as saved:
        state = checkpoint.restore(saved, checkpoint.read_latest_stored(saved).step, like)
    return state.replace(rng=jax.random.key_data(state.rng))


def test_the_folder_holds_what_the_design_promises(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "figures",
        "report.html",
    }
    figures = {path.name for path in (finished / "figures").glob("*.png")}
    assert figures == {f"{name}.png" for name in FIGURES}
    assert json.loads((finished / "config.json").read_text())["preset"] == "tiny"
    environment = json.loads((finished / "environment.json").read_text())
    assert {"python", "packages", "devices", "commit"} <= environment.keys()


FIGURES = ("alike", "cmc", "contact_sheet", "curves", "distances", "gram", "ranked_lists", "rounds", "singular_values")


def test_the_log_has_the_format_that_other_programs_read(finished):
    records = read_log(finished / "metrics.jsonl")
    phases = [record for record in records if record["event"] == "phase"]
    assert [(r["phase"], r["round"]) for r in phases] == [
        ("base", 0),
        ("restraint", 1),
        ("relaxation", 1),
        ("restraint", 2),
        ("relaxation", 2),
    ]
    for record in phases:
        assert {"step", "loss", "accuracy", "correlation", "seconds"} <= record.keys()
        for name in ("embedding", "pooled"):
            assert record[name].keys() == M
            assert all(0 <= value <= 1 for value in record[name].values())
    svds = [record for record in records if record["event"] == "decorrelate"]
    assert [record["round"] for record in svds] == [1, 2]
    for record in svds:
        assert record["correlation"]["after"] == pytest.approx(1, abs=1e-5)
        assert record["embedding"].keys() == record["pooled"].keys() == M
    steps = [record for record in records if record["event"] == "step"]
    assert len(steps) == 56 // 4
    assert records[0]["event"] == "start"
    assert records[-1]["event"] == "end"
    assert records[-1]["stopped"] == "maximum"


def test_training_learns(finished):
    base = [record for record in read_log(finished / "metrics.jsonl") if record["event"] == "phase"][0]
    assert base["loss"] < np.log(12), "a loss above chance"


def test_saved_embeddings_give_the_logged_numbers(finished):
    last = [record for record in read_log(finished / "metrics.jsonl") if record["event"] == "phase"][-1]
    for name in ("embedding", "pooled"):
        query, gallery = (Embeddings.load(finished / "embeddings" / name / f"{s}.npz") for s in ("query", "gallery"))
        assert evaluate(query, gallery).metrics() == last[name]


def base(folder, name):
    return [Embeddings.load(folder / "embeddings" / "base" / name / f"{split}.npz") for split in ("query", "gallery")]


def test_the_embeddings_of_step_0_are_kept(finished):
    first = [record for record in read_log(finished / "metrics.jsonl") if record["event"] == "phase"][0]
    for name in ("embedding", "pooled"):
        query, gallery = base(finished, name)
        assert evaluate(query, gallery).metrics() == first[name]
        assert re.fullmatch(f"[0-9a-f]{{16}}-{name}", query.model)
        assert query.model == gallery.model


def test_the_table_of_ranks_is_that_of_the_embeddings(finished):
    query, gallery = (Embeddings.load(finished / "embeddings" / "embedding" / f"{s}.npz") for s in ("query", "gallery"))
    with (finished / "figures" / "ranks.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10 * len(query.pids)
    first = [line for line in lines if line["rank"] == "1"]
    assert [line["query"] for line in first] == query.names.tolist()
    rank1 = evaluate(query, gallery).rank(1)
    assert np.mean([line["right"] == "1" for line in first]) == pytest.approx(rank1)  # all queries count here


def distances(folder):
    """The caption of the figure of distances."""
    (found,) = re.findall("<figcaption>(Distances [^<]*)</figcaption>", (folder / "report.html").read_text())
    return html.unescape(found)


def test_the_report_compares_distances_before_and_after_the_rounds(finished):
    last = finished / "embeddings" / "embedding"
    moments = base(finished, "embedding"), [Embeddings.load(last / f"{s}.npz") for s in ("query", "gallery")]
    before, after = (distance_distributions(*sides) for sides in moments)
    text = distances(finished)
    assert "by the Eigenlayer's output (after Step 0 → after the last round)" in text
    assert f"d' {before.separation:.2f} → {after.separation:.2f}" in text


def test_what_there_is_to_compare_depends_on_the_run(again, tiny):
    folder = again / "embeddings"
    query, gallery = (
        {k: Embeddings.load(folder / k / f"{s}.npz") for k in ("embedding", "pooled")} for s in ("query", "gallery")
    )

    def caption(config, query=query, gallery=gallery):
        return {name: text for name, (text, _) in _distances(RunDir(again), config, query, gallery).items()}

    assert "(after Step 0 → after the last round)" in caption(tiny)["distances"]
    without_rounds = dataclasses.replace(tiny, rri=dataclasses.replace(tiny.rri, rounds=0))
    assert "(after Step 0): d'" in caption(without_rounds)["distances"]  # whatever lies in the folder
    baseline = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, embedding_dim=0))
    assert "by the pooled feature" in caption(baseline)["distances"]
    alone = ({k: dataclasses.replace(e, pids=0 * e.pids + 1) for k, e in side.items()} for side in (query, gallery))
    assert caption(tiny, *alone) == {}
    (folder / "base" / "embedding" / "gallery.npz").unlink()  # as in a run that older code began
    assert "(after the last round): d'" in caption(tiny)["distances"]


def test_the_report_is_self_contained(finished):
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(FIGURES)
    assert "synthetic pedestrians" in page
    assert "95 % intervals over the 8 people of the test set (of 8 people an interval is too narrow" in page
    assert "This does not show what the decorrelation did" in page


def test_what_is_printed(finished, workshop, capsys):
    """The finished run again: it says what it trains on, computes nothing anew and prints the table."""
    before = (finished / "metrics.jsonl").read_bytes()
    assert main(arguments(finished, workshop / "data")) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"\d+ queries of 8 other identities, \d+ of them valid", out)
    assert out.startswith(
        "Devices: 8 x cpu (cpu), --parallel auto No --data.root given: built-in synthetic pedestrians."
    )
    assert re.search(
        r"Network: 375,132 parameters \(.*eigenlayer 32,768.*\); [\d.]+ million operations an image of 32 x 16", out
    )
    assert "2 relaxation" in out
    assert "mAP_market" in out
    assert str(finished / "report.html") in out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_other_data_under_a_run_are_refused(again, workshop, capsys):
    for path in (again / "checkpoints").glob("*/_CHECKPOINT_METADATA"):
        content = json.loads(path.read_text())
        content["custom_metadata"]["place"]["data"] = "0123456789abcdef"
        del content["custom_metadata"]["sha256"]  # else refused as damaged before
        path.write_text(json.dumps(content))
    assert main(arguments(again, workshop / "data")) == 2
    assert "the images or identities of synthetic pedestrians are not those" in capsys.readouterr().err


def test_damage_is_refused_and_what_the_message_says_helps(again, workshop, capsys):
    """A digit of the log, then one number of the latest checkpoint; the one before is there to go on from."""
    log, command = again / "metrics.jsonl", arguments(again, workshop / "data", *ONE)
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"loss": 2.', b'"loss": 1.', 1))
    assert main(command) == 2
    assert f"{log}: was changed" in capsys.readouterr().err
    with pytest.raises(LogError, match="was changed"):
        read_run_log(again)
    log.write_bytes(content)
    latest = max((again / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    for path in (latest / "state").rglob("d/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert re.search(
        rf"{latest}: the checkpoint is damaged.*to go on from step (48|52), whose checkpoint is sound", error
    )
    shutil.rmtree(latest)
    assert main(command) == 0
    before = [json.loads(line) for line in content.splitlines()]
    assert [(r["event"], r.get("step")) for r in timeless(again)] == [(r["event"], r.get("step")) for r in before]


def test_a_log_without_its_checkpoints_is_not_overwritten(again, workshop, capsys):
    shutil.rmtree(again / "checkpoints")
    before = {path: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert main(arguments(again, workshop / "data", "--seed", "5")) == 2
    assert "there is none to go on from. Nothing was changed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in again.rglob("*") if path.is_file()} == before


def test_settings_that_are_missing_are_those_of_the_checkpoint(again, workshop, capsys):
    """Not those of a command that was refused."""
    path = again / "config.json"
    path.unlink()
    assert main(arguments(again, workshop / "data", "--seed", "5")) == 2
    assert "seed: 0 -> 5" in capsys.readouterr().err
    assert not path.exists()


def test_a_failed_start_does_not_bind_the_folder(tmp_path, workshop, capsys):
    out = tmp_path / "run"
    assert main(arguments(out, workshop / "data", "--data.root", str(tmp_path / "nowhere"))) == 2
    assert main(arguments(out, workshop / "data", "--data.cache", "/etc/passwd")) == 2
    error = capsys.readouterr().err
    assert "other settings" not in error
    assert "--data.cache /etc/passwd" in error


def test_the_folder_is_free_again_whatever_happened(again, workshop, capsys):
    assert main(arguments(again, workshop / "data", "--seed", "5")) == 2
    with FileLock(again / ".lock", timeout=0):
        pass


def test_one_process_at_a_time_works_in_a_folder(again, workshop, capsys):
    with FileLock(again / ".lock"):
        assert main(arguments(again, workshop / "data")) == 2
    assert "another process is working in this folder" in capsys.readouterr().err


def test_the_report_names_the_code_that_trained(again, workshop):
    """Not the code that draws the report of a finished run once more."""
    path = again / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "the commit that trained"}))
    assert main(arguments(again, workshop / "data")) == 0
    assert "the commit that trained" in (again / "report.html").read_text()


def test_other_settings_in_the_same_folder_are_refused_by_name(again, workshop, capsys):
    before = (again / "metrics.jsonl").read_bytes()
    assert main(arguments(again, workshop / "data", "--rri.rounds", "3", "--seed", "5")) == 2
    error = capsys.readouterr().err
    assert "rri.rounds: 2 -> 3" in error
    assert "seed: 0 -> 5" in error
    assert "out:" not in error.replace("--out", "")
    assert (again / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "huge"], "--preset huge: unknown; choose one of synthetic, tiny"),
        (["--model.embedding-dim", "100000"], "--model.embedding-dim 100000"),
        (["--rri.restraint.freeze", "eigen"], "pattern 'eigen' matches no weight"),
        (["--data.root", "/nowhere"], "--data.root /nowhere: no such folder"),
    ],
)
def test_impossible_values_end_with_a_reason_and_code_2(options, message, tmp_path, capsys):
    assert main([*arguments(tmp_path / "run", tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("options", [["--rri.method", "svd"], ["--no-such-option"], ["--seed", "one"]])
def test_unknown_options_end_with_code_2(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments(tmp_path / "run", tmp_path, *options))
    assert stop.value.code == 2
    assert options[0].lstrip("-") in capsys.readouterr().err.replace("_", "-")


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help-all"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--preset",
        "--out",
        "--seed",
        "--data.root",
        "--rri.rounds",
        "--rri.method",
        "--rri.match",
    ):
        assert option in text


def command(out, cache, *more):
    return [sys.executable, "-m", "experiments.market_rri", *arguments(out, cache, *more)]


def start(out, cache, *more):
    return subprocess.Popen(command(out, cache, *more), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def lines(out):
    log = out / "metrics.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def kill_at(line, delay, out, cache, *more):
    """Starts the run and kills it with SIGKILL some seconds after its log has so many lines."""
    with start(out, cache, *more) as process:
        deadline = time.monotonic() + 300
        while lines(out) < line and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        assert process.poll() is None, "the run was over before it could be killed"
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("kills", "more"), [(1, short_run.OPTIONS), pytest.param(3, (), marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_killed_runs_end_like_the_unbroken_one(kills, more, tiny, workshop, tmp_path):
    """Whole and broken run both in processes of their own, since threads share sums in another way on two devices."""
    whole, broken, cache = tmp_path / "whole", tmp_path / "broken", workshop / "data"
    subprocess.run(command(whole, cache, *more), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    # The log of the tiny preset has 23 lines, that of the short run 14, both with a checkpoint after every second line
    # of a step: killed after 7 lines or more, at a different place each time, the run has something to go on from.
    for kill in range(kills):
        kill_at(7 + 4 * kill + random.randint(0, 3), random.uniform(0, 0.3), broken, cache, *more)
    finished = subprocess.run(command(broken, cache, *more), cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "resumed at step" in finished.stdout
    chex.assert_trees_all_equal(final_state(broken, tiny), final_state(whole, tiny))
    assert timeless(broken) == timeless(whole)
    for name in ("embedding", "pooled"):
        for ours, theirs in zip(base(broken, name), base(whole, name), strict=True):
            np.testing.assert_array_equal(ours.features, theirs.features)
