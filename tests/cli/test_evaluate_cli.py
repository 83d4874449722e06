"""`svdnet evaluate`: what it prints, and what it refuses with exit code 2."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference_metrics as reference
from test_metrics import clusters

from svdnet_jax.cli.evaluate import main
from svdnet_jax.cli.measures import Measures, less_pooled, run_evaluation
from svdnet_jax.retrieval.camera_pairs import camera_pairs
from svdnet_jax.retrieval.distributions import distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.intervals import report_differences, report_intervals
from svdnet_jax.retrieval.metrics import evaluate, ranked_list
from svdnet_jax.retrieval.multi_query import multi_query
from svdnet_jax.retrieval.rerank import Rerank
from svdnet_jax.retrieval.single_shot import evaluate_single_shot

KEYS = ["rank1", "rank5", "rank10", "rank20", "mAP", "mAP_market", "mINP", "valid_queries"]


@pytest.fixture
def files(tmp_path):
    """Query and gallery files whose metrics differ with the metric and with the camera rule."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(7, 8))

    def images(n, lowest):
        pids = rng.integers(lowest, 7, n)
        features = (centers[pids] + 1.2 * rng.normal(size=(n, 8))) * rng.uniform(0.5, 2, (n, 1))
        return Embeddings(features, pids, rng.integers(1, 3, n))

    images(9, 1).save(tmp_path / "q.npz")
    images(60, -1).save(tmp_path / "g.npz")
    return tmp_path


def arguments(folder, query="q.npz", gallery="g.npz"):
    return ["--query", str(folder / query), "--gallery", str(folder / gallery)]


def test_a_process_prints_one_json_object_and_nothing_else(files):
    command = [sys.executable, "-m", "experiments.evaluate", *arguments(files), "--json"]
    root = Path(__file__).parents[2]
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


def test_what_is_asked_for_is_measured(files, capsys):
    asked = [
        "--rerank",
        "--k1",
        "5",
        "--k2",
        "2",
        "--lambda",
        "0.4",
        "--single-shot",
        "3",
        "--camera-pairs",
        "--distances",
    ]
    pair = [Embeddings.load(files / name) for name in ("q.npz", "g.npz")]
    assert main([*arguments(files), *asked, "--metric", "cosine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    report = evaluate(*pair, "cosine", rerank=Rerank(5, 2, 0.4))
    assert list(found) == [*KEYS, "rerank", "without_rerank", "single_shot", "camera_pairs", "distances"]
    assert {name: found[name] for name in KEYS} == report.metrics() | {"valid_queries": 9}
    assert found["rerank"] == {"k1": 5, "k2": 2, "lambda": 0.4}
    assert found["without_rerank"] == evaluate(*pair, "cosine").metrics()
    assert found["without_rerank"]["mAP"] != found["mAP"]
    shot = evaluate_single_shot(*pair, "cosine", repeats=3)
    assert found["single_shot"] == shot.metrics() | {"repeats": 3}
    assert found["camera_pairs"] == camera_pairs(report, *pair).to_json()
    distances = distance_distributions(*pair, "cosine")
    assert found["distances"] == json.loads(json.dumps(distances.to_json()))
    assert main([*arguments(files), *asked, "--metric", "cosine"]) == 0
    parts = evaluate(*pair, "cosine"), report, shot, camera_pairs(report, *pair), distances
    assert capsys.readouterr().out == "\n\n".join(str(part) for part in parts) + "\n"


def test_intervals_are_those_of_the_library_and_json_knows_no_nan(files, capsys):
    assert main([*arguments(files), "--intervals", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["intervals"]
    query = Embeddings.load(files / "q.npz")
    expected = report_intervals(evaluate(query, Embeddings.load(files / "g.npz")), query.pids)
    assert found == {name: [each.low, each.high] for name, each in expected.items()}
    assert main([*arguments(files), "--intervals"]) == 0
    low, high = found["mAP"]
    assert f"  mAP        {100 * low:6.2f} to {100 * high:6.2f} %" in capsys.readouterr().out
    one = query.pids == query.pids[0]
    Embeddings(query.features[one], query.pids[one], query.cameras[one]).save(files / "one.npz")
    assert main([*arguments(files, "one.npz"), "--intervals", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["intervals"].values()) == {None}
    assert main([*arguments(files, "one.npz"), "--intervals", "--rerank", "--k1", "5"]) == 0
    said = capsys.readouterr().out
    assert "no intervals: all valid queries are of one person" in said
    assert "one person, no interval" in said
    assert "nan" not in said


def test_intervals_say_how_many_people_they_are_over_and_what_has_no_spread(files, capsys):
    assert main([*arguments(files), "--intervals"]) == 0
    said = capsys.readouterr().out
    query, gallery = (Embeddings.load(files / name) for name in ("q.npz", "g.npz"))
    report = evaluate(query, gallery)
    people = len(np.unique(query.pids[report.first_hit > 0]))
    assert people < 10
    assert f"over the {people} people of the test set" in said
    assert f"of {people} people an interval is too narrow" in said
    assert report.rank(20) == 1.0
    assert re.search(r"^  rank20     100\.00 to 100\.00 %  all people alike", said, re.M)


def test_re_ranking_is_compared_on_the_same_people(files, capsys):
    assert main([*arguments(files), "--intervals", "--rerank", "--k1", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    query, gallery = (Embeddings.load(files / name) for name in ("q.npz", "g.npz"))
    plain, again = evaluate(query, gallery), evaluate(query, gallery, rerank=Rerank(k1=5))
    expected = report_differences(again, plain, query.pids)
    assert found["less_without_rerank"]["mAP"]["difference"] == pytest.approx(again.mAP - plain.mAP)
    for name, each in expected.items():
        assert found["less_without_rerank"][name] == {"difference": each.value, "interval": [each.low, each.high]}
    assert main([*arguments(files), "--intervals", "--rerank", "--k1", "5"]) == 0
    value, low, high = (f"{100 * number:+6.2f}" for number in expected["mAP"])
    assert f"  mAP        {value} %  {low} to {high}" in capsys.readouterr().out
    kept = gallery.pids != query.pids[0]
    others = Embeddings(gallery.features[kept], gallery.pids[kept], gallery.cameras[kept])
    with pytest.raises(ValueError, match="same queries"):
        report_differences(plain, evaluate(query, others), query.pids)


def test_the_two_embeddings_of_a_network_are_compared_on_the_same_people(files):
    query, gallery = (Embeddings.load(files / name) for name in ("q.npz", "g.npz"))
    narrow = [Embeddings(side.features[:, :3], side.pids, side.cameras, side.names) for side in (query, gallery)]
    asked = Measures(intervals=True)
    found = {
        "embedding": run_evaluation(*narrow, "euclidean", True, asked),
        "pooled": run_evaluation(query, gallery, "euclidean", True, asked),
    }
    less = less_pooled(found)
    assert less["mAP"].value == pytest.approx(found["embedding"].report.mAP - found["pooled"].report.mAP)
    assert less["mAP"].low < less["mAP"].value < less["mAP"].high
    assert less_pooled({"": found["pooled"]}) is None
    assert less_pooled({name: replace(each, intervals=None) for name, each in found.items()}) is None


def test_multi_query_is_that_of_the_library(files, capsys):
    query, gallery = (Embeddings.load(files / name) for name in ("q.npz", "g.npz"))
    pooled = multi_query(query, "cosine")
    assert len(pooled.pids) < len(query.pids)
    assert main([*arguments(files), "--multi-query", "--metric", "cosine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mAP"] == evaluate(pooled, gallery, "cosine").mAP
    assert found["valid_queries"] == evaluate(pooled, gallery, "cosine").valid_queries


@pytest.mark.parametrize("json_only", [False, True])
def test_figures_are_drawn_where_asked(files, capsys, json_only):
    folder = files / "figures"
    assert main([*arguments(files), "--rerank", "--figures", str(folder), *(["--json"] if json_only else [])]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("camera_pairs.png", "cmc.png", "distances.png", "ranks.csv")
    ]
    query, gallery = (Embeddings.load(files / name) for name in ("q.npz", "g.npz"))
    with (folder / "ranks.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows, right, distances = ranked_list(query, gallery, 2, 10)
    mine = [line for line in lines if line["query"] == query.names[2]]
    assert [line["name"] for line in mine] == gallery.names[rows].tolist()
    assert [line["right"] == "1" for line in mine] == right.tolist()
    assert [float(line["distance"]) for line in mine] == pytest.approx(distances)
    out = capsys.readouterr().out
    assert json.loads(out) if json_only else f"figures: {folder / 'cmc.png'}" in out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--rerank", "--k1", "0"], "--k1 and --k2 of at least 1 and at most 1000; found 0 and 6"),
        (["--rerank", "--lambda", "2"], "must be in [0, 1]; found 2.0"),
        (["--single-shot", "-1"], "--single-shot -1: must be from 0 to 10000"),
        (["--single-shot", "1000000000"], "--single-shot 1000000000: must be from 0 to 10000"),
        (["--rerank", "--k1", "1000000000"], "--k1 and --k2 of at least 1 and at most 1000; found 1000000000 and 6"),
        (["--rerank", "--k2", "1" + 20 * "0"], "found 20 and 100000000000000000000"),
    ],
)
def test_impossible_settings_are_refused(files, capsys, wrong, said):
    assert said in refused(capsys, *arguments(files), *wrong)


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
    assert "few.npz: no array pids, cameras; expected" in refused(capsys, *arguments(files, gallery="few.npz"))
    assert "8 dimensions and gallery features 5" in refused(capsys, *arguments(files, gallery="short.npz"))


def test_no_valid_query_is_refused_with_the_fix(files, capsys):
    Embeddings(np.eye(2, 8), [1, 2], [1, 1]).save(files / "one.npz")
    one_camera = arguments(files, "one.npz", "one.npz")
    assert "--no-cross-camera" in refused(capsys, *one_camera, "--json")
    assert main([*one_camera, "--no-cross-camera"]) == 0


@pytest.mark.parametrize("wrong", [["--re-rank"], ["--metric", "l1"], ["--block", "0"]])
def test_options_that_do_not_exist_are_refused(files, capsys, wrong):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments(files), *wrong])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert wrong[0] in captured.err


FOREIGN = {
    "as MATLAB numbers": {"features": np.float64, "pids": np.int32, "cameras": np.uint8},
    "small": {"features": np.float16, "pids": np.int16, "cameras": np.int8},
    "other bytes first": {"features": ">f4", "pids": ">i8", "cameras": ">i2"},
}


@pytest.mark.parametrize("types", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_files_of_other_programs_give_the_numbers_of_the_protocol(types, metric, tmp_path, capsys):
    pair = [Embeddings(np.float16(e.features), e.pids, e.cameras - 1) for e in clusters(3)]
    for name, images in zip(("q.npz", "g.npz"), pair, strict=True):
        arrays = {array: getattr(images, array).astype(kind) for array, kind in types.items()}
        np.savez_compressed(
            tmp_path / name, **arrays | {"features": np.asfortranarray(arrays["features"])}, more="text"
        )
    assert main([*arguments(tmp_path), "--metric", metric, "--json"]) == 0
    found, expected = json.loads(capsys.readouterr().out), reference.evaluate(*pair, metric)
    assert {-1, 0} < set(pair[1].pids.tolist())
    for name in ("mAP", "mAP_market", "mINP"):
        assert found[name] == pytest.approx(expected[name], abs=1e-9), name
    assert [found[f"rank{k}"] for k in (1, 5, 10, 20)] == pytest.approx(
        [expected["cmc"][k - 1] for k in (1, 5, 10, 20)]
    )
    assert found["valid_queries"] == expected["valid_queries"]


def test_a_query_that_finds_itself_is_noted_beside_the_numbers(files, capsys):
    same = arguments(files, "q.npz", "q.npz")
    assert main([*same, "--no-cross-camera", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rank1"] == 1.0
    assert "note: the first right answer of 9 of 9 queries has the very feature of the query" in captured.err
    assert main([*arguments(files), "--no-cross-camera"]) == 0
    assert capsys.readouterr().err == ""
    query = Embeddings.load(files / "q.npz")
    _, images = np.unique([query.pids, query.cameras], axis=1, return_counts=True)
    alone = sum(images == 1)  # the mean of one image is the image
    assert 0 < alone < len(images)
    assert main([*same, "--no-cross-camera", "--multi-query"]) == 0
    assert f"{alone} of {len(images)} queries" in capsys.readouterr().err


def test_identities_numbered_from_zero_are_noted_and_an_option_numbers_them_from_one(files, capsys):
    for name in ("q.npz", "g.npz"):
        e = Embeddings.load(files / name)
        nobody = e.pids == 0  # no distractors, whom numbering from 0 has no place for
        Embeddings(e.features, np.where(nobody, 6, e.pids), e.cameras).save(files / name)
    expected = evaluated(capsys, *arguments(files), "--distances", "--single-shot", "2")
    assert "no pid is 0 in query or gallery; leave it out" in refused(capsys, *arguments(files), "--pids-from-zero")
    for name in ("q.npz", "g.npz"):
        e = Embeddings.load(files / name)
        Embeddings(e.features, np.where(e.pids < 0, -1, e.pids - 1), e.cameras).save(files / name)
    assert main(arguments(files)) == 0
    captured = capsys.readouterr()
    assert "queries have the pid 0, which marks distractors" in captured.err
    assert "svdnet evaluate --pids-from-zero" in captured.err
    found = evaluated(capsys, *arguments(files), "--distances", "--single-shot", "2", "--pids-from-zero")
    assert found == expected
    assert evaluated(capsys, *arguments(files), "--distances", "--single-shot", "2") != expected


def evaluated(capsys, *argv):
    """What --json says."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_file_of_another_program_with_both_sides_is_read(files, capsys):
    expected = evaluated(capsys, *arguments(files))
    sides = {short: Embeddings.load(files / f"{short}.npz") for short in "qg"}
    held = {
        f"{short}{end}": getattr(e, kind)
        for short, e in sides.items()
        for kind, end in (("features", "f"), ("pids", "_pids"), ("cameras", "_camids"))
    }
    np.savez(files / "torchreid.npz", **held)
    assert evaluated(capsys, *arguments(files, "torchreid.npz", "torchreid.npz")) == expected


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--k1", "10"], "--k1, --k2 and --lambda are of the re-ranking; give --rerank too"),
        (["--lambda", "0.5"], "give --rerank too"),
        (["--save", "x"], "--save, --export and --data are for a network"),
        (["--data.root", "x"], "--save, --export and --data are for a network"),
        (["--size", "64", "32"], "--preset and --size are for --weights"),
        (["--preset", "tiny"], "--preset and --size are for --weights"),
        (["--run", "x"], "give --query and --gallery, or --run, or --weights"),
    ],
)
def test_options_that_would_change_nothing_are_refused(more, said, files, capsys):
    assert said in refused(capsys, *arguments(files), *more)


def test_both_files_are_needed(files, capsys):
    assert main(arguments(files)[:2]) == 2
    assert "give --query and --gallery" in capsys.readouterr().err
    assert "--pids-from-zero is for files of embeddings" in refused(capsys, "--run", "x", "--pids-from-zero")
