"""No command writes over a file that it reads or did not make."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from svdnet_jax import safe_writing
from svdnet_jax.cli import check_data, compare, embed, evaluate, search
from svdnet_jax.cli.study import run
from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.retrieval.doubts import are_copies, doubts
from svdnet_jax.retrieval.embeddings import IS_EMBEDDINGS, Embeddings
from svdnet_jax.retrieval.index import build_index, save_index
from svdnet_jax.retrieval.metrics import evaluate as measure
from svdnet_jax.retrieval.rerank import Rerank
from svdnet_jax.runs.directory import open_run_dir
from svdnet_jax.safe_writing import refuse_inside, refuse_overwrite, write_whole
from svdnet_jax.studies import comparison, study

MINE = "my work of three weeks"


@pytest.fixture
def files(tmp_path):
    """Embeddings, an index, and somebody's own files."""
    random = np.random.default_rng(0)
    for name, n in (("q", 8), ("g", 40)):
        Embeddings(random.normal(size=(n, 6)), np.arange(n) % 4 + 1, random.integers(0, 2, n)).save(
            tmp_path / f"{name}.npz"
        )
    save_index(build_index(Embeddings.load(tmp_path / "g.npz")), tmp_path / "i.npz")
    (tmp_path / "mine").write_text(MINE)
    return tmp_path


def any_file(path):
    return True


def test_a_new_file_and_one_of_the_same_kind_may_be_written(files):
    refuse_overwrite("--out", files / "new" / "o.npz", IS_EMBEDDINGS, [files / "g.npz", None])
    refuse_overwrite("--out", files / "q.npz", IS_EMBEDDINGS, [files / "g.npz"])
    (files / "empty").touch()
    refuse_overwrite("--out", files / "empty", IS_EMBEDDINGS, [files / "g.npz"])


@pytest.mark.parametrize(
    ("out", "reads", "said"),
    [
        ("mine", "g.npz", "mine: exists and is not what this command writes there"),
        ("i.npz", "g.npz", "i.npz: exists and is not what this command writes there"),
        ("g.npz", "g.npz", "g.npz: would be written over"),
        ("new/../g.npz", "g.npz", "would be written over"),
        ("soft", "g.npz", "soft: would be written over, and this command reads or writes it as"),
        ("g.npz", "soft", "would be written over"),
        ("hard", "g.npz", "hard: would be written over"),
        ("NEW.npz", "new.npz", "NEW.npz: would be written over"),
        ("", "g.npz", "is a folder; give the name of a file"),
        ("/dev/stdout", "g.npz", "/dev/stdout: is not an ordinary file"),
        ("/dev/null", "g.npz", "/dev/null: is not an ordinary file"),
    ],
)
def test_what_must_stay_is_named(files, out, reads, said):
    (files / "new").mkdir()
    (files / "soft").symlink_to("g.npz")
    (files / "hard").hardlink_to(files / "g.npz")
    with pytest.raises(ConfigError) as refused:
        refuse_overwrite("--out", files / out, IS_EMBEDDINGS, [files / reads])
    assert said in str(refused.value)
    assert str(refused.value).startswith("--out ")


def test_a_dash_is_no_file():
    with pytest.raises(ConfigError, match="--out -: means no stream here"):
        refuse_overwrite("--out", Path("-"), any_file)


def test_a_folder_that_is_read_is_not_written_into(files):
    (files / "run" / "figures").mkdir(parents=True)
    for out in ("run", "run/figures", "run/new"):
        with pytest.raises(ConfigError, match="which this command reads"):
            refuse_inside("--out", files / out, [files / "run"])
    refuse_inside("--out", files / "runs", [files / "run", files / "q.npz"])


def test_a_file_is_whole_or_as_it_was_and_a_link_stays_a_link(files):
    (files / "link").symlink_to("mine")
    write_whole(files / "link", b"new")
    assert (files / "link").is_symlink()
    assert (files / "mine").read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_whole(files / "mine", "text")
    assert (files / "mine").read_bytes() == b"new"
    assert not list(files.glob("*.partial")) + list(files.glob(".*.partial"))


def test_kinds_are_told_by_content(files, tmp_path):
    save(Figure(), files / "f.png")
    (files / "foreign.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    (files / "lines.jsonl").write_text('{"event": "start", "variant": "us"}\nrest')
    (files / "table.csv").write_text("a,b\n1,2\n")
    assert safe_writing.is_figure(files / "f.png")
    assert not safe_writing.is_figure(files / "foreign.png")
    assert study.IS_LINES(files / "lines.jsonl")
    assert not study.IS_LINES(files / "mine")
    assert not study.IS_LINES(files / "f.png")
    assert safe_writing.is_csv(("a", "b"))(files / "table.csv")
    assert not safe_writing.is_csv(("a", "b"))(files / "mine")
    assert safe_writing.is_text("three", "weeks")(files / "mine")
    assert not safe_writing.is_text("three", "months")(files / "mine")
    assert search.IS_INDEX(files / "i.npz")
    assert not search.IS_INDEX(files / "g.npz")
    assert IS_EMBEDDINGS(files / "g.npz")
    assert not IS_EMBEDDINGS(files / "i.npz")
    assert not IS_EMBEDDINGS(files / "mine")


def put(path):
    """Somebody's own file, in the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MINE)
    return path


PAIR = ("--query", "q.npz", "--gallery", "g.npz")
WRITERS = {
    "search --index": (search, ("--gallery", "g.npz", "--index", "HERE"), "x"),
    "search --out": (search, (*PAIR, "--out", "HERE"), "x"),
    "evaluate --figures": (evaluate, (*PAIR, "--figures", "x"), "x/cmc.png"),
    "evaluate --save": (evaluate, ("--weights", "w.npz", "--save", "x"), "x/pooled/query.npz"),
    "evaluate --export": (evaluate, ("--weights", "w.npz", "--export", "HERE"), "x.safetensors"),
    "evaluate --export, the weights": (evaluate, ("--weights", "x.safetensors", "--export", "HERE"), "x.safetensors"),
    "embed --out": (embed, ("--weights", "w.npz", "--images", ".", "--out", "HERE"), "x"),
    "check_data --out": (check_data, ("--data.root", ".", "--out", "x"), "x/report.json"),
    "check_data --out, sheet": (check_data, ("--data.root", ".", "--out", "x"), "x/contact_sheet.png"),
    "control": ("control", ("--out", "x"), "x/control.jsonl"),
    "control, figure": ("control", ("--out", "x"), "x/figures/control.png"),
    "paper_tables": ("all", ("--stored", "--docs", "x"), "x/results.md"),
    "paper_tables, lines": ("all", ("--stored", "--docs", "x"), "x/runs/paper/control.jsonl"),
    "paper_tables, figures": ("all", ("--stored", "--docs", "x"), "x/figures/paper/control.png"),
}


@pytest.mark.parametrize(("command", "argv", "mine"), WRITERS.values(), ids=WRITERS)
def test_no_command_writes_over_what_it_did_not_make(command, argv, mine, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setattr(study, "train", None)  # is not reached
    path = put(files / mine)
    words = [mine if word == "HERE" else word for word in argv]
    assert (run(command, words, "study") if isinstance(command, str) else command.main(words)) == 2
    captured = capsys.readouterr()
    assert mine in captured.err
    assert "so it stays" in captured.err or "written over" in captured.err
    assert path.read_text() == MINE


@pytest.mark.parametrize("mine", ["rounds.png", "report.html"])
def test_compare_writes_over_nothing(mine, files, capsys, monkeypatch):
    monkeypatch.setattr(comparison, "load_pairs", lambda *_: [])
    monkeypatch.setattr(comparison, "table", None)  # is not reached
    path, argv = put(files / "x" / mine), ["--runs", str(files / "run"), "--controls", str(files / "run"), "--out"]
    assert compare.main([*argv, str(files / "x")]) == 2
    assert "so it stays" in capsys.readouterr().err
    assert path.read_text() == MINE
    (files / "run").mkdir()
    assert compare.main([*argv, str(files / "run" / "figures")]) == 2
    assert "which this command reads" in capsys.readouterr().err


def test_a_run_does_not_take_a_folder_of_other_settings_for_its_own(tmp_path):
    (tmp_path / "config.json").write_text('{"mine": true}')
    with (
        pytest.raises(ConfigError, match=r"config\.json: exists and is not what this command writes"),
        open_run_dir(Config(out=tmp_path)),
    ):
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == {"mine": True}
    (tmp_path / "config.json").unlink()
    for _ in range(2):
        with open_run_dir(Config(out=tmp_path)):
            pass


def people(seed=0, n=60, d=64, spread=0.4):
    """Images of people in two cameras, as a trained network sees them."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(12, d))

    def seen(n, camera):
        pids = np.arange(n) % 12 + 1
        return Embeddings(np.float32(centers[pids - 1] + spread * random.normal(size=(n, d)) + 2), pids, [camera] * n)

    return seen(24, 1), seen(n, 2)


def noted(query, gallery, **rerank):
    return doubts(measure(query, gallery, "cosine"), query, gallery, **rerank)


@pytest.mark.parametrize("spread", [1.0, 0.4, 0.1])
def test_honest_data_are_not_doubted(spread):
    assert noted(*people(spread=spread)) == []


COPIES = {
    "the same": lambda x: x,
    "float16": np.float16,
    "bfloat16": lambda x: (x.view(np.uint32) + np.uint32(2**15) & np.uint32(0xFFFF0000)).view(np.float32),
    "normalised": lambda x: x / np.linalg.norm(x, axis=1, keepdims=True),
    "times 3": lambda x: 3 * x,
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_copies_of_the_queries_in_the_gallery_are_noted(change):
    query, gallery = people()
    hidden = np.concatenate([gallery.features, change(query.features[:12]).astype(np.float32)])
    gallery = Embeddings(hidden, [*gallery.pids, *query.pids[:12]], [*gallery.cameras, *[2] * 12])
    (note,) = noted(query, gallery)
    assert note.startswith("the first right answer of 12 of 24 queries has the")
    assert "take it out of the gallery" in note


def test_a_few_near_pairs_are_not_taken_for_copies():
    query, gallery = people()
    near = np.arange(2)
    rows = np.array([0, 12])
    hidden = gallery.features.copy()
    hidden[rows] = query.features[near] * np.float32(1.0001)
    changed = Embeddings(hidden, gallery.pids, gallery.cameras)
    assert are_copies(query, changed, near, rows)[0]
    assert noted(query, changed) == []


def test_copies_within_the_gallery_and_small_sets_are_noted():
    query, gallery = people()
    twice = Embeddings(*(np.concatenate([getattr(gallery, x)] * 2) for x in ("features", "pids", "cameras")))
    assert noted(query, twice)[0].startswith("60 of 120 gallery images have the very feature of another one")
    few = Embeddings(gallery.features[:12], gallery.pids[:12], gallery.cameras[:12])
    assert noted(query, few) == [
        "the gallery has 12 images without junk: rank-k for larger k is 100 %, whatever the ranking."
    ]
    assert (
        "query and gallery have 84 images together, and re-ranking was to look at 101"
        in noted(query, gallery, rerank=Rerank(100))[0]
    )
