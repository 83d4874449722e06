"""A trained network on other data, and as the start of another run."""

import json
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from experiments import evaluate as evaluate_cli
from experiments.market_rri import main
from svdnet_jax.models.pretrained import write_pretrained
from svdnet_jax.reporting.log import read_log
from svdnet_jax.training.initial import as_pretrained
from svdnet_jax.training.trained import load_trained


@pytest.fixture(scope="module")
def trained(workshop):
    out = workshop / "teacher"
    options = ["--preset", "tiny", "--out", str(out), "--data.cache", str(workshop / "data"), "--rri.rounds", "1"]
    assert main(options) == 0
    return out


def evaluate(capsys, *options):
    assert evaluate_cli.main([*map(str, options), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_evaluated_from_its_folder_gives_what_its_log_says(trained, workshop, capsys):
    last = [record for record in read_log(trained / "metrics.jsonl") if record["event"] == "phase"][-1]
    root = next((workshop / "data").glob("synthetic-*"))
    found = evaluate(capsys, "--run", trained, "--data.root", root, "--data.cache", workshop / "data")
    for kind in ("embedding", "pooled"):
        assert {name: found[kind][name] for name in last[kind]} == pytest.approx(last[kind])


def test_a_run_is_evaluated_on_a_manifest_of_other_people(trained, workshop, tmp_path, capsys):
    root = next((workshop / "data").glob("synthetic-*"))
    lines = ["path,identity,camera,split"]
    for split, folder in (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test")):
        for path in sorted((root / folder).glob("0*.jpg")):
            lines.append(f"{path},{path.name[:4]},{path.name[6]},{split}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    found = evaluate(
        capsys, "--run", trained, "--data.root", tmp_path / "mine.csv", "--data.cache", tmp_path, "--save", tmp_path
    )
    saved = evaluate(capsys, "--query", tmp_path / "pooled/query.npz", "--gallery", tmp_path / "pooled/gallery.npz")
    assert saved == found["pooled"]


def test_a_run_starts_from_the_backbone_of_another(trained, workshop, tmp_path):
    out = tmp_path / "student"
    more = ["--model.weights", str(trained), "--rri.rounds", "0", "--base.steps", "4", "--base.milestones", "3"]
    arguments = ["--preset", "tiny", "--out", str(out), "--data.cache", str(workshop / "data"), *more]
    # With a rate of almost nothing the weights stay where they started.
    assert main([*arguments, "--optimizer.learning-rate", "1e-12"]) == 0
    old, new = load_trained(trained).state, load_trained(out).state
    chex.assert_trees_all_close(new.params["backbone"], old.params["backbone"], atol=1e-9)
    assert float(abs(np.asarray(new.eigenlayer - old.eigenlayer)).max()) > 1e-3
    # What a run started from is not needed to go on.
    moved = trained.rename(trained.with_name("moved"))
    assert main([*arguments, "--optimizer.learning-rate", "1e-12"]) == 0
    moved.rename(trained)
    start = read_log(out / "metrics.jsonl")[0]
    assert start["weights"] == f"{trained}, {int(old.step)} steps"


def test_weights_in_a_file_are_evaluated_as_they_are(trained, workshop, tmp_path, capsys):
    state = load_trained(trained).state
    write_pretrained(tmp_path / "mine.safetensors", as_pretrained(state, "test", ("caffe",)))
    root = next((workshop / "data").glob("synthetic-*"))
    data = ("--data.root", root, "--data.cache", workshop / "data")
    alone = evaluate(capsys, "--weights", tmp_path / "mine.safetensors", "--preset", "tiny", *data)
    assert list(alone) == ["pooled"]
    assert alone["pooled"] == pytest.approx(evaluate(capsys, "--run", trained, *data)["pooled"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run", "nowhere"], "nowhere: no run folder"),
        (["--weights", "nowhere.h5"], "--model.weights nowhere.h5: no such file"),
        (["--weights", "x.h5", "--preset", "big"], "--preset big: unknown"),
        (["--run", "a", "--weights", "b"], "give --query and --gallery, or --run, or --weights"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(options, message, capsys):
    assert evaluate_cli.main(options) == 2
    assert message in capsys.readouterr().err


def test_stored_statistics_of_random_weights_are_refused(capsys, tmp_path):
    assert main(["--preset", "paper-resnet50", "--out", str(tmp_path)]) == 2
    assert "has no statistics to freeze" in capsys.readouterr().err


BARE = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "array_record", "grain", "h5py", "safetensors", "torch"):
    sys.modules[name] = None
from experiments.market_rri import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_prepared_folder_trains_where_little_is_installed(trained, workshop, tmp_path):
    prepared = next((workshop / "data").glob("prepared-*"))
    options = ["--preset", "tiny", "--rri.rounds", "1", "--data.root", prepared, "--out", tmp_path / "run"]
    command = [sys.executable, "-c", BARE, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_log(folder / "metrics.jsonl")[-2] for folder in (tmp_path / "run", trained))
    # Two fake devices in here, one in there: XLA may order sums in another way.
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_reading_leaves_a_run_as_it_is(trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    jax.block_until_ready(load_trained(trained).state.params)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
