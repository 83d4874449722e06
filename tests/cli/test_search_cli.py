"""`svdnet search`: what it builds, answers and refuses with exit code 2."""

import csv
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_data import write

from svdnet_jax.cli import ranked_answers
from svdnet_jax.cli.search import main
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import build_index, load_index, search

ROOT = Path(__file__).parents[2]
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss-cpu is not installed")


@pytest.fixture
def files(tmp_path):
    """A gallery of 30 images along a line, and 25 queries on it."""
    line = np.arange(30)[:, None] * [1.0, 0.0] + [0, 8]
    names = [f"g{i:02d}.jpg" for i in range(30)]
    Embeddings(line, np.arange(30) // 3 - 1, np.arange(30) % 3, names, "12ab-pooled").save(tmp_path / "g.npz")
    queries = Embeddings(line[5:] + 0.125, [-1] * 25, [0] * 25, [f"q{i:02d}.jpg" for i in range(25)], "12ab-pooled")
    queries.save(tmp_path / "q.npz")
    return tmp_path


def called(capsys, folder, *argv):
    """What stdout says of a call that must succeed; file names are those in the folder."""
    assert main([str(folder / a) if str(a).endswith((".npz", ".csv")) else str(a) for a in argv]) == 0
    return capsys.readouterr().out


def refused(capsys, folder, *argv):
    """What stderr says about a call that must give exit code 2 and print no result."""
    assert main([str(folder / a) if str(a).endswith(".npz") else str(a) for a in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def expected(folder, k, metric="euclidean"):
    """What --json is to hold, from the library."""
    query, gallery = (Embeddings.load(folder / name) for name in ("q.npz", "g.npz"))
    found = search(build_index(gallery, metric=metric), query, k)
    return [
        {
            "query": name,
            "nearest": [
                {
                    "name": str(gallery.names[row]),
                    "pid": int(gallery.pids[row]),
                    "camera": int(gallery.cameras[row]),
                    "distance": float(distance),
                    "row": int(row),
                }
                for row, distance in zip(found.rows[i], found.distances[i], strict=True)
            ],
        }
        for i, name in enumerate(query.names)
    ]


def test_an_index_is_built_in_one_call_and_asked_in_another(files, capsys):
    said = called(capsys, files, "--gallery", "g.npz", "--index", "new/i.npz", "--metric", "cosine")
    assert said == f"{files}/new/i.npz: 30 images of the model 12ab-pooled, kind exact, cosine distance\n"
    found = json.loads(called(capsys, files, "--index", "new/i.npz", "--query", "q.npz", "--k", 4, "--json"))
    assert found == {"results": expected(files, 4, "cosine")}


def test_a_process_prints_one_json_object_and_nothing_else(files):
    command = [sys.executable, "-m", "experiments.search", "--gallery", "g.npz", "--query", "q.npz", "--k", "3"]
    command = [str(files / a) if a.endswith(".npz") else a for a in [*command, "--index", "i.npz", "--json"]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout) == {"results": expected(files, 3)}
    assert "i.npz: 30 images" in done.stderr


def test_the_first_queries_are_printed_and_all_are_written(files, capsys):
    printed = called(capsys, files, "--gallery", "g.npz", "--query", "q.npz", "--k", 2, "--out", "new/all.csv")
    lines = printed.splitlines()
    # Off by (1/8, 1/8) from image 5, and by (7/8, 1/8) from image 6: exact in float32.
    assert lines[:4] == [
        "q00.jpg",
        "  rank    distance      pid  camera  name",
        "     1      0.1768        0       2  g05.jpg",
        "     2      0.8839        1       0  g06.jpg",
    ]
    assert (lines.count(lines[1]), "q19.jpg" in lines, "q20.jpg" in lines) == (20, True, False)
    assert lines[-1] == "These are the first 20 of 25 queries; --out FILE and --json give all."
    with (files / "new" / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["query", "rank", "name", "pid", "camera", "distance", "row"]
    flat = [
        {"query": answer["query"], "rank": rank} | image
        for answer in expected(files, 2)
        for rank, image in enumerate(answer["nearest"], start=1)
    ]
    assert rows == [{name: str(value) for name, value in row.items()} for row in flat]


def test_identities_that_are_texts_are_shown_and_written(files, capsys):
    gallery = Embeddings.load(files / "g.npz")
    replace(gallery, people={1: "=anna"}).save(files / "g.npz")
    called(capsys, files, "--gallery", "g.npz", "--index", "i.npz")
    said = called(capsys, files, "--index", "i.npz", "--query", "q.npz", "--k", 2, "--out", "all.csv")
    assert said.splitlines()[3].split()[2:] == ["=anna", "0", "g06.jpg"]
    first, *rows = csv.reader((files / "all.csv").read_text(encoding="utf-8").splitlines())
    assert first[-1] == "person"
    assert {("1", "'=anna"), ("2", "2")} <= {(row[3], row[-1]) for row in rows}  # no spreadsheet runs it
    called(capsys, files, "--index", "i.npz", "--query", "q.npz", "--out", "all.csv")  # it is ours
    found = json.loads(called(capsys, files, "--index", "i.npz", "--query", "q.npz", "--k", 2, "--json"))["results"]
    assert {(1, "=anna"), (2, "2")} <= {(image["pid"], image["person"]) for each in found for image in each["nearest"]}


def test_a_small_gallery_is_listed_whole_unless_more_is_asked_for(tmp_path, capsys):
    Embeddings(np.eye(5), [1] * 5, [0] * 5).save(tmp_path / "g.npz")
    Embeddings(np.eye(5)[:1] + 0.1, [1], [0]).save(tmp_path / "q.npz")
    found = json.loads(called(capsys, tmp_path, "--gallery", "g.npz", "--query", "q.npz", "--json"))
    assert [len(answer["nearest"]) for answer in found["results"]] == [5]
    said = refused(capsys, tmp_path, "--gallery", "g.npz", "--query", "q.npz", "--k", "10")
    assert "--k must be between 1 and the 5 images of the index; found 10" in said


def test_queries_that_find_themselves_are_noted(files, capsys):
    assert main(["--gallery", str(files / "g.npz"), "--query", str(files / "g.npz"), "--json"]) == 0
    assert "the nearest image of 30 of 30 queries has the feature of the query" in capsys.readouterr().err
    assert main(["--gallery", str(files / "g.npz"), "--query", str(files / "q.npz"), "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_an_index_that_is_read_is_not_written_over(files, capsys):
    """The very command that once put a table in the place of an index; and through links to it."""
    called(capsys, files, "--gallery", "g.npz", "--index", "i.npz")
    before = (files / "i.npz").read_bytes()
    (files / "hard.npz").hardlink_to(files / "i.npz")
    (files / "soft.npz").symlink_to("i.npz")
    for out in ("i.npz", "hard.npz", "soft.npz"):
        assert "would be written over" in refused(capsys, files, "--index", "i.npz", "--query", "q.npz", "--out", out)
    assert (files / "i.npz").read_bytes() == before
    for _ in range(2):  # its own table may be replaced, its own index too
        called(capsys, files, "--index", "i.npz", "--query", "q.npz", "--out", "t.csv")
        called(capsys, files, "--gallery", "g.npz", "--index", "i.npz")


def test_the_query_itself_is_passed_over_by_its_name(files, capsys):
    gallery = Embeddings.load(files / "g.npz")
    twice = gallery.names.copy()
    twice[7] = twice[3]  # two images of one name are both the query
    Embeddings(gallery.features, gallery.pids, gallery.cameras, twice, gallery.model).save(files / "t.npz")
    for k in (4, 7, 29, 30):
        asked = ("--gallery", "t.npz", "--query", "t.npz", "--k", k, "--exclude-self", "--json")
        answers = json.loads(called(capsys, files, *asked))["results"]
        for row, answer in enumerate(answers):
            left = [other for other in range(30) if twice[other] != twice[row]]
            order = sorted(left, key=lambda other: (abs(other - row), other))
            assert [image["row"] for image in answer["nearest"]] == order[:k]
    assert "passed over" not in capsys.readouterr().err
    assert main(["--gallery", str(files / "g.npz"), "--query", str(files / "q.npz"), "--exclude-self", "--json"]) == 0
    assert "--exclude-self passed over nothing" in capsys.readouterr().err
    assert "--k must be between 1 and the 30" in refused(
        capsys, files, "--gallery", "g.npz", "--query", "g.npz", "--exclude-self", "--k", "31"
    )


def test_answers_end_at_a_distance(files, capsys):
    asked = ("--gallery", "g.npz", "--query", "q.npz", "--max-distance", 1.2)
    answers = json.loads(called(capsys, files, *asked, "--json"))["results"]
    # At 0.18, 0.88 and 1.13 from the line's images, but for the last, beyond which there is none.
    assert [len(answer["nearest"]) for answer in answers] == [3] * 24 + [2]
    assert max(image["distance"] for answer in answers for image in answer["nearest"]) <= 1.2
    assert len(json.loads(called(capsys, files, *asked, "--k", 1, "--json"))["results"][0]["nearest"]) == 1
    assert "q00.jpg\n  nothing so near\n" in called(capsys, files, *asked[:-1], 0.1)


def test_nobody_is_unknown_and_not_minus_one(files, capsys):
    asked = ("--gallery", "g.npz", "--query", "g.npz", "--k", 4)
    assert "\n     1      0.0000  unknown       0  g00.jpg\n" in called(capsys, files, *asked, "--out", "all.csv")
    with (files / "all.csv").open(newline="") as file:
        assert [row["pid"] for row in csv.DictReader(file)][:4] == ["unknown", "unknown", "unknown", "0"]
    found = json.loads(called(capsys, files, *asked, "--json"))["results"][0]["nearest"]
    assert [image["pid"] for image in found] == [None, None, None, 0]


def test_pairs_of_the_gallery_that_are_near_are_listed(files, capsys):
    asked = ("--gallery", "g.npz", "--duplicates", 1)
    rows = [
        {"name": f"g{n:02d}.jpg", "other": f"g{n + 1:02d}.jpg", "distance": 1.0, "row": n, "other_row": n + 1}
        for n in range(29)
    ]
    assert json.loads(called(capsys, files, *asked, "--json")) == {"duplicates": rows}
    lines = called(capsys, files, *asked, "--out", "pairs.csv").splitlines()
    assert lines[:3] == [
        "29 pairs of 30 images are at most 1 apart",
        "  distance  names",
        "         1  g00.jpg  g01.jpg",
    ]
    assert (len(lines), lines[-1]) == (23, "These are the first 20; --out FILE and --json give all.")
    with (files / "pairs.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{name: str(value) for name, value in row.items()} for row in rows]
    called(capsys, files, "--gallery", "g.npz", "--index", "i.npz", "--metric", "cosine")
    first = json.loads(called(capsys, files, "--index", "i.npz", "--duplicates", 1e-3, "--json"))["duplicates"][0]
    assert first["distance"] < 1e-3
    assert called(capsys, files, *asked[:-1], 0) == "0 pairs of 30 images are at most 0 apart\n"


@pytest.fixture
def drawn(files, monkeypatch):
    """Pictures of the first gallery images and queries, each of a gray of its own, and the figures that were drawn."""
    for row in range(30):
        write(files / "photos" / "gallery" / f"g{row:02d}.jpg", (8 * row,) * 3)
    for row in range(25):
        write(files / "photos" / "query" / f"q{row:02d}.jpg", (250 - 8 * row,) * 3)
    figures = []
    monkeypatch.setattr(ranked_answers, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def test_the_first_answers_are_drawn_from_a_folder(files, drawn, capsys):
    gallery, query = (Embeddings.load(files / name) for name in ("g.npz", "q.npz"))
    renamed = [f"/their/machine/{name}" for name in query.names]
    pids = [5, 2, *[-1] * 23]
    Embeddings(query.features, pids, query.cameras, renamed, query.model).save(files / "q.npz")
    asked = ("--gallery", "g.npz", "--query", "q.npz", "--k", 3, "--pictures", files / "photos")
    called(capsys, files, *asked, "--figure", files / "found.png", "--json")
    (axes,) = drawn[0].axes
    texts = [text.get_text() for text in axes.texts]
    assert axes.get_title(loc="left") == "The first 8 of 25 queries: under each image its pid, camera and distance"
    assert [text for text in texts if text.endswith(("0.18", "0.88", "1.13"))][:7] == [
        *("✗ 0 c2  0.18", "✗ 1 c0  0.88", "✗ 0 c1  1.13"),
        *("✗ 1 c0  0.18", "✗ 1 c1  0.88", "✗ 0 c2  1.13"),
        "1 c1  0.18",
    ]
    assert (texts.count("unknown"), texts.count("5 c0")) == (6, 1)
    found = search(build_index(gallery), query, 3).rows[:8]
    grays = [int(np.asarray(image.get_array()).mean().round()) for image in axes.images]
    expected = [gray for number, rows in enumerate(found) for gray in (250 - 8 * number, *(8 * rows))]
    np.testing.assert_allclose(grays, expected, atol=2)  # of JPEG
    assert (files / "found.png").read_bytes().startswith(b"\x89PNG")
    shown = called(capsys, files, *asked, "--figure", files / "found.png")  # its own figure may be replaced
    assert shown.endswith(f"figure: {files / 'found.png'}\n")


def test_pictures_that_are_not_there_or_lie_elsewhere_are_refused(files, drawn, capsys):
    asked = ("--gallery", "g.npz", "--query", "q.npz", "--figure", files / "f.png")
    assert "--figure and --pictures go together" in refused(capsys, files, *asked)
    assert "--pictures nope: is no folder" in refused(capsys, files, *asked, "--pictures", "nope")
    (files / "photos" / "gallery" / "g05.jpg").unlink()
    with_folder = (*asked, "--pictures", files / "photos")
    assert "g05.jpg: is not in the folder of images" in refused(capsys, files, *with_folder)
    write(files / "secret.jpg")
    (files / "photos" / "gallery" / "g05.jpg").symlink_to(files / "secret.jpg")
    assert "leads out of the folder" in refused(capsys, files, *with_folder)
    (files / "f.png").write_bytes(b"somebody's picture")
    assert "exists and is not what this command writes" in refused(capsys, files, *with_folder)
    twice = ("--gallery", "g.npz", "--duplicates", "1", "--figure", files / "new.png", "--pictures", files / "photos")
    assert "--figure are for searches" in refused(capsys, files, *twice)


@needs_faiss
def test_an_index_without_features_has_no_duplicates(files, capsys):
    called(capsys, files, "--gallery", "g.npz", "--index", "i.npz", "--kind", "flat")
    assert "an index of kind flat holds no features" in refused(capsys, files, "--index", "i.npz", "--duplicates", 1)


@needs_faiss
def test_faiss_is_reached_with_its_options(tmp_path, capsys):
    features = np.random.default_rng(0).normal(size=(700, 8))
    Embeddings(features, [-1] * 700, [0] * 700).save(tmp_path / "g.npz")
    options = ("--kind", "ivf", "--options", "nlist", "50", "nprobe", "1")
    called(capsys, tmp_path, "--gallery", "g.npz", "--index", "i.npz", *options)
    assert load_index(tmp_path / "i.npz").faiss.nlist == 50
    found = json.loads(called(capsys, tmp_path, "--index", "i.npz", "--query", "g.npz", "--k", 300, "--json"))
    numbers = [len(answer["nearest"]) for answer in found["results"]]
    assert 1 <= min(numbers) < 300  # what was not found is not listed
    assert [answer["nearest"][0]["row"] for answer in found["results"]] == list(range(700))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "give --gallery or --index, and what to do with it: --query, --images or --duplic"),
        (("--gallery", "g.npz"), "give --gallery or --index, and what to do"),
        (("--index", "i.npz"), "give --gallery or --index, and what to do"),
        (("--query", "q.npz"), "give --gallery or --index, and what to do"),
        (("--gallery", "g.npz", "--index", "i.npz", "--json"), "--json and --out are for results; give --query"),
        (("--index", "i.npz", "--query", "q.npz", "--kind", "flat"), "for a new index, and an index that is read has"),
        (("--index", "nope.npz", "--query", "q.npz"), "nope.npz"),
        (("--index", "g.npz", "--query", "q.npz"), "g.npz: no array kind, metric, so this is no index"),
        (("--gallery", "g.npz", "--index", "g.npz"), "g.npz: would be written over"),
        (("--gallery", "g.npz", "--query", "q.npz", "--out", "q.npz"), "q.npz: would be written over"),
        (
            ("--gallery", "g.npz", "--index", "i.npz", "--query", "q.npz", "--out", "i.npz"),
            "i.npz: would be written over",
        ),
        (("--gallery", "g.npz", "--query", "q.npz", "--k", "31"), "--k must be between 1 and the 30 images"),
        (("--gallery", "g.npz", "--query", "q.npz", "--duplicates", "1"), "--query and --duplicates are different"),
        (("--gallery", "g.npz", "--images", "photos"), "--images, --run and --outside go together"),
        (("--gallery", "g.npz", "--query", "q.npz", "--run", "r"), "--images, --run and --outside go together"),
        (("--gallery", "g.npz", "--duplicates", "1", "--k", "0"), "are for searches; give --query or --images"),
        (("--gallery", "g.npz", "--index", "i.npz", "--exclude-self"), "are for searches; give --query or --images"),
        (("--gallery", "g.npz", "--query", "q.npz", "--max-distance", "nan"), "must be a distance of 0 or more"),
        (("--gallery", "g.npz", "--duplicates", "-1"), "--duplicates -1.0: must be a distance of 0 or more"),
        (("--gallery", "g.npz", "--query", "q.npz", "--options", "m", "3"), "kind exact has no options; found m"),
    ],
)
def test_what_does_not_go_together_is_refused(files, capsys, argv, message):
    assert message in refused(capsys, files, *argv)
    assert not (files / "i.npz").exists()


def test_a_query_of_another_model_is_refused(files, capsys):
    Embeddings(np.ones((1, 2)), [-1], [0], ["x.jpg"]).save(files / "x.npz")
    message = refused(capsys, files, "--gallery", "g.npz", "--query", "x.npz", "--k", "1")
    assert "the index is of the model 12ab-pooled and the query of an unknown model" in message


def test_a_missing_faiss_is_named_with_its_line(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    message = refused(capsys, files, "--gallery", "g.npz", "--index", "i.npz", "--kind", "hnsw")
    assert "pip install 'svdnet-jax[faiss]'" in message


def test_a_stop_says_so(files, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("svdnet_jax.cli.search.nearest", stop)
    assert main(["--gallery", str(files / "g.npz"), "--query", str(files / "q.npz")]) == 130
    assert capsys.readouterr().err == "stopped\n"
