"""The studies: what they train and share, and that documents are what their stored lines say."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import short_run
from fake_run import fake_run

from svdnet_jax import eigenlayer
from svdnet_jax.cli.study import run
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config
from svdnet_jax.config.validate import validate
from svdnet_jax.reporting.log import read_log
from svdnet_jax.runs.base_run import without_rounds
from svdnet_jax.studies import choice, control, decorrelation, dimensions, paper_tables, penalties, study, summary

pytestmark = pytest.mark.unoptimized

DOCS = Path(__file__).parents[2] / "docs"
FACTS = {"dataset": "d", "train": 96, "identities": 12, "valid_queries": 34, "gallery": 78, "machine": "m"}


def fake(variant, seed=0, rounds=2, **more):
    """The lines of a run that never was."""
    records = fake_run(rounds, "none" if variant.startswith("none") else "us")
    kept = [r for r in records if r["event"] != "step"]
    kept[0] = kept[0] | FACTS | {"method": kept[1]["event"]}
    return [{**record, "variant": variant, "seed": seed, **more} for record in kept]


def section(document, name):
    (found,) = re.findall(rf"<!-- table runs/paper/{name}\.jsonl -->\n```\n(.*?)\n```", document, re.S)
    return found


@pytest.mark.parametrize("name", paper_tables.STUDIES)
def test_the_document_is_what_the_stored_lines_say(name):
    stored = DOCS / "runs" / "paper" / f"{name}.jsonl"
    document = (DOCS / "results.md").read_text()
    assert section(document, name) == study.text(paper_tables.STUDIES[name], read_log(stored))
    assert "…" not in section(document, name), "a number that is cut is a wrong one"
    assert (DOCS / "figures" / "paper" / f"{name}.png").exists()


def test_what_is_written_by_hand_about_every_seed_is_what_the_lines_say():
    """The ranges of the first paragraph under the table of control."""
    lines = read_log(DOCS / "runs" / "paper" / "control.jsonl")
    ours, theirs = (summary.at_round(lines, name, -1) for name in ("us", "none"))
    said = re.search(
        r"RRI beats its control with every seed: in mAP by (\S+) to (\S+) points for the Eigenlayer's output and by "
        r"(\S+) to (\S+) for its input,\s+in rank-1 of the output by (\S+)\s+to\s+([\d.]+)\.\s",
        (DOCS / "results.md").read_text(),
    )
    wanted = []
    for path in (("embedding", "mAP"), ("pooled", "mAP"), ("embedding", "rank1")):
        difference = summary.values(ours, *path) - summary.values(theirs, *path)
        wanted += [f"{difference.min():.1f}", f"{difference.max():.1f}"]
    assert said
    assert [*said.groups()] == wanted


def arguments(workshop, *more, seeds=("0", "1")):
    where = (
        "--out",
        str(workshop / "studies"),
        "--docs",
        str(workshop / "docs"),
        "--more-seeds",
        *seeds,
        "--data.cache",
        str(workshop / "data"),
    )
    small = ("--preset", "tiny", "--seeds", *seeds, "--parallel", "single", *short_run.OPTIONS)
    # In this process, and nothing chosen: tests of their own look at that.
    once = ("--jobs", "1", "--factors", "1", "--compute.cache", str(workshop / "compiled"))
    return [*where, *small, *once, *more]


@pytest.fixture(scope="module")
def studied(workshop):
    """Two studies that share their runs, on the tiny preset."""
    assert run("all", arguments(workshop, "--only", "control", "rounds"), "study") == 0
    return workshop / "studies"


@pytest.mark.slow
def test_studies_share_step_0_and_runs(studied):
    folders = sorted(path.name for path in studied.iterdir() if (path / "metrics.jsonl").exists())
    assert [re.sub("base-[0-9a-f]{6}", "base", name) for name in folders] == [
        "base-0",
        "base-1",
        "none-0",
        "none-1",
        "us-0",
        "us-1",
    ]
    for seed in (0, 1):
        logs = [read_log(next(studied.glob(f"{name}-{seed}")) / "metrics.jsonl") for name in ("none", "us", "base-*")]
        steps = [[r for r in log if r.get("phase") == "base"] for log in logs]
        assert steps[0] == steps[1] == steps[2]


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(studied, workshop, capsys):
    before = {path: path.stat().st_mtime_ns for path in studied.glob("*/metrics.jsonl")}
    document = workshop / "docs" / "results.md"
    text = document.read_text()
    document.write_text(text + "\nWhat was learned.\n")
    assert run("all", arguments(workshop, "--only", "control", "rounds"), "study") == 0
    assert {path: path.stat().st_mtime_ns for path in studied.glob("*/metrics.jsonl")} == before
    assert document.read_text() == text + "\nWhat was learned.\n", "what people wrote stays"
    assert "After round 1; seeds 0, 1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_document_can_be_made_from_the_lines_alone(studied, workshop):
    document = workshop / "docs" / "results.md"
    text = document.read_text()
    stale = text.replace("pooled mAP", "another mAP")
    assert stale != text
    document.write_text(stale)
    assert run("all", arguments(workshop, "--stored", "--only", "control", "rounds"), "study") == 0
    assert document.read_text() == text
    assert run("all", arguments(workshop, "--stored", "--only", "penalties"), "study") == 2
    for name in ("control", "rounds"):
        lines = read_log(workshop / "docs" / "runs" / "paper" / f"{name}.jsonl")
        assert section(text, name) == study.text(paper_tables.STUDIES[name], lines)


@pytest.mark.slow
def test_each_study_has_its_own_command(studied, workshop, capsys):
    options = arguments(workshop)
    del options[2:7]  # --docs and --more-seeds, of all studies
    assert run("rounds", options, "study") == 0
    assert "control 1" in capsys.readouterr().out
    assert (studied / "figures" / "rounds.png").exists()
    assert run("rounds", [*options, "--seed", "3"], "study") == 2
    assert "give --seeds" in capsys.readouterr().err
    assert run("rounds", [*options, "--model.embedding-dim", "8"], "study") == 2, (
        "runs of the same name with other settings"
    )
    assert "model.embedding_dim: 128 -> 8" in capsys.readouterr().err


@pytest.mark.slow
def test_all_studies_on_the_tiny_preset(studied, workshop):
    """Of one seed; `studied` has shown two."""
    small = ("--below", "8", "--dims", "8", "128", "--kinds", "soft", "--weight-factors", "1")
    assert run("all", arguments(workshop, *small, seeds=("0",)), "study") == 0
    document = (workshop / "docs" / "results.md").read_text()
    for name, experiment in paper_tables.STUDIES.items():
        lines = read_log(workshop / "docs" / "runs" / "paper" / f"{name}.jsonl")
        assert section(document, name) == study.text(experiment, lines)
        assert (workshop / "docs" / "figures" / "paper" / f"{name}.png").exists()


@pytest.mark.slow
def test_studies_with_a_choice_share_their_runs(workshop, capsys, monkeypatch):
    """Of rates for both, and of weights for the penalty; the second study finds the runs of the first."""
    monkeypatch.setattr(choice, "BEYOND", 1.0)
    few = ("--kinds", "soft", "--factors", "1", "2", "--weight-factors", "1", "10", "--held-out", "4")
    folder = workshop / "chosen"
    options = arguments(workshop, *few, "--from-start", "--only", "control", "penalties", seeds=("0",))
    options[1] = str(folder)
    assert run("all", options, "study") == 0
    assert "of 10 runs, " in (printed := capsys.readouterr().out), "with two seeds Step 0, and two rates for both"
    assert "Weights, likewise: none-soft" in printed
    lines = read_log(folder / "penalties.jsonl")
    assert [(line["what"], line["variant"]) for line in lines if line["event"] == "choice"] == [
        ("rate", "none"),
        ("rate", "us"),
        ("weight", "none-soft"),
    ]


def all_variants(preset):
    run = PRESETS[preset]
    yield from decorrelation.variants(decorrelation.Options(run=run)).items()
    yield from dimensions.variants(dimensions.Options(run=run, dims=(64, run.model.embedding_dim))).items()
    yield from control.variants(study.Options(run=run)).items()


@pytest.mark.parametrize("preset", ["synthetic", "short-resnet50"])
def test_variants_are_valid_and_of_one_name_the_same(preset):
    found = {}
    for name, config in all_variants(preset):
        validate(config)
        assert found.setdefault(name, config) == config, name


def test_names_of_variants_say_what_they_are():
    found = decorrelation.variants(decorrelation.Options())
    assert {name: run.rri.match for name, run in found.items() if "unmatched" in name} == {
        "us-unmatched": False,
        "u-unmatched": False,
    }
    assert [name for name, run in found.items() if run.rri.rotate_classifier] == ["us-turned"]
    late = penalties.scaled("soft", 0.1)
    found = penalties.variants(
        penalties.Options(kinds=("soft",), from_start=("soft",)), {"soft": late}, control.variants(control.Options())
    )
    said = {name: (run.rri.method, run.loss.penalty.kind, run.loss.penalty.begin) for name, run in found.items()}
    assert said == {
        "none": ("none", "none", "start"),
        "us": ("us", "none", "start"),
        "none-soft": ("none", "soft", "rounds"),
        "us-soft": ("us", "soft", "rounds"),
        "none-soft-start": ("none", "soft", "start"),
    }


def test_each_command_by_itself_makes_the_table_of_the_document():
    found = paper_tables.budget(paper_tables.Options())
    assert found == {name: experiment.options() for name, experiment in paper_tables.STUDIES.items()}


def test_us_changes_no_distance_and_a_factor_counts_for_nothing():
    rng = np.random.default_rng(0)
    W = jnp.asarray(rng.normal(size=(12, 6)) + 1, jnp.float32)
    query, gallery = (rng.normal(size=(n, 12)).astype(np.float32) for n in (5, 9))
    new = {method: np.asarray(eigenlayer.decorrelate(W, method)) for method in ("us", "u", "uvt", "qd")}
    changes = {
        method: decorrelation.distance_change(query, gallery, np.asarray(W), matrix) for method, matrix in new.items()
    }
    assert changes["us"] < 1e-5
    assert decorrelation.distance_change(query, gallery, np.asarray(W), 3 * np.asarray(W)) < 1e-6
    assert changes["u"] == pytest.approx(changes["uvt"], rel=1e-3), "a rotation of each other"
    assert min(changes[method] for method in ("u", "uvt", "qd")) > 0.05


def test_matching_moves_what_is_elsewhere_or_turned_round():
    W = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    assert decorrelation.moved(W, W) == 0
    assert decorrelation.moved(W, W[:, [1, 0, 2, 3, 4, 5]] * np.array([1, 1, 1, -1, 1, 1], np.float32)) == 3


def test_cells_are_mean_and_spread_over_seeds():
    def records(*numbers):
        return [{kind: {"rank1": n, "mAP": n} for kind in ("embedding", "pooled")} for n in numbers]

    cells = summary.compared(records(0.5, 0.7))
    assert [cell.strip() for cell in cells] == ["60.0 ± 14.1"] * 4
    assert [cell.strip() for cell in summary.compared(records(0.5))] == ["50.0"] * 4


def test_a_row_is_mean_and_spread_of_a_common_round():
    names = ("us", "none", "u", "us-unmatched", "u-unmatched", "us-turned", "none-d8", "us-d8")
    lines = [line for name in names for seed in (0, 1) for line in fake(name, seed, 4 if name == "us" else 2)]
    once = {"event": "replaced", "correlation": 1.0, "moved": 3, "distances": 0.25, "embedding": lines[1]["embedding"]}
    lines += [{**once, "variant": name, "seed": 0} for name in decorrelation.METHODS]
    text = study.text(decorrelation.STUDY, lines)
    assert "After round 2" in text
    row = next(line for line in text.splitlines() if line.startswith(" US, classifier turned"))
    assert row.split()[3:9] == ["0.23", "±", "0.00", "64.6", "±", "0.0"]
    over = text[text.index("Less control") :]
    # Both seeds of a run that never was are equal, so the interval has no width.
    assert re.search(r"^ US, D = 8 +\+1\.2 \[\+1\.2, \+1\.2\]", over, re.M), over
    assert " US, D = 8 " in text
    assert " Step 0, D = 8 " in text
    decorrelation.figure(lines)


def test_tables_of_widths_and_penalties_have_a_row_each():
    widths = {"us": 128, "none": 128, "us-d8": 8, "none-d8": 8}
    lines = [line for name, dim in widths.items() for line in fake(name, dim=dim)]
    text = study.text(dimensions.STUDY, lines)
    names = [row.split("  ")[0].strip() for row in text.splitlines() if re.match(r" \d", row)]
    assert names == [f"{dim}, {name}" for dim in (8, 128) for name in ("Step 0", "control", "SVDNet")]
    dimensions.figure(lines)
    names = {"none": 0.0, "us": 0.0, "none-soft": 0.1, "us-soft": 0.1, "none-soft-start": 0.1}
    lines = [line for name, weight in names.items() for line in fake(name, weight=weight)]
    text = study.text(penalties.STUDY, lines)
    assert re.search(r"^ soft +0\.1 ", text, re.M)
    assert re.search(r"^ US \+ soft +0\.1 ", text, re.M)
    assert re.search(r"^ soft, from the start +0\.1 ", text, re.M)
    penalties.figure(lines)


def test_step_0_knows_nothing_of_what_begins_in_the_rounds():
    options = study.Options(run=Config())
    plain = without_rounds(options.run)
    late = penalties.scaled("soft", 0.123456)
    assert late.weight == 0.123
    assert without_rounds(penalties.replace(Config(), loss=penalties.replace(Config().loss, penalty=late))) == plain
