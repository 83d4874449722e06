"""`python -m experiments.evaluate`: what it prints, and what it refuses with exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.evaluate import main
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate

KEYS = ["rank1", "rank5", "rank10", "rank20", "mAP", "mAP_market", "mINP", "valid_queries"]


@pytest.fixture
def files(tmp_path):
    """Query and gallery files whose metrics differ with the metric and with the camera rule."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(7, 8))

    def images(n, lowest):
        pids = rng.integers(lowest, 7, n)
        features = (centres[pids] + 1.2 * rng.normal(size=(n, 8))) * rng.uniform(0.5, 2, (n, 1))
        return Embeddings(features, pids, rng.integers(1, 3, n))

    images(9, 1).save(tmp_path / "q.npz")
    images(60, -1).save(tmp_path / "g.npz")
    return tmp_path


def arguments(folder, query="q.npz", gallery="g.npz"):
    return ["--query", str(folder / query), "--gallery", str(folder / gallery)]


def test_a_process_prints_one_json_object_and_nothing_else(files):
    command = [sys.executable, "-m", "experiments.evaluate", *arguments(files), "--json"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    found = json.loads(done.stdout)
    assert list(found) == KEYS
    report = evaluate(Embeddings.load(files / "q.npz"), Embeddings.load(files / "g.npz"))
    assert found == report.metrics() | {"valid_queries": 9}


@pytest.mark.parametrize(
    ("options", "metric", "cross_camera"),
    [
        ([], "euclidean", True),
        (["--metric", "cosine"], "cosine", True),
        (["--no-cross-camera"], "euclidean", False),
    ],
)
def test_options_reach_the_evaluation(files, capsys, options, metric, cross_camera):
    query, gallery = (Embeddings.load(files / name) for name in ("q.npz", "g.npz"))
    assert main([*arguments(files), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mAP"] == evaluate(query, gallery, metric, cross_camera).mAP
    assert main([*arguments(files), *options]) == 0
    assert capsys.readouterr().out == f"{evaluate(query, gallery, metric, cross_camera)}\n"


def refused(capsys, *argv):
    """What stderr says about a call that must give exit code 2 and print no result."""
    assert main([str(argument) for argument in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_files_that_cannot_be_used_are_refused(files, capsys):
    (files / "text.npz").write_text("no arrays")
    np.savez(files / "few.npz", features=np.ones((2, 8)))
    Embeddings(np.ones((2, 5)), [1, 2], [1, 1]).save(files / "short.npz")
    assert "nope.npz" in refused(capsys, *arguments(files, query="nope.npz"))
    assert "text.npz: not an .npz file" in refused(capsys, *arguments(files, gallery="text.npz"))
    assert "few.npz: no array pids, cameras" in refused(capsys, *arguments(files, gallery="few.npz"))
    assert "8 dimensions and gallery features 5" in refused(capsys, *arguments(files, gallery="short.npz"))


def test_no_valid_query_is_refused_with_the_fix(files, capsys):
    Embeddings(np.eye(2, 8), [1, 2], [1, 1]).save(files / "one.npz")
    one_camera = arguments(files, "one.npz", "one.npz")
    assert "--no-cross-camera" in refused(capsys, *one_camera, "--json")
    assert main([*one_camera, "--no-cross-camera"]) == 0


@pytest.mark.parametrize("wrong", [["--rerank"], ["--metric", "l1"], ["--block", "0"]])
def test_options_that_do_not_exist_are_refused(files, capsys, wrong):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments(files), *wrong])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert wrong[0] in captured.err


def test_both_files_are_needed(files, capsys):
    assert main(arguments(files)[:2]) == 2
    assert "give --query and --gallery" in capsys.readouterr().err
