"""Runs are compared with controls of their own budget only, and the table holds their numbers."""

import json

import numpy as np
import pytest

from svdnet_jax.cli.compare import main
from svdnet_jax.retrieval.intervals import ByIdentity
from svdnet_jax.runs.directory import RunDir, save_identities


def metrics(value):
    return dict.fromkeys(("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_market", "mINP"), value)


def log(path, *, method="us", seed=0, last=0.6, rate=0.1, later=None, steps=4, ended=True, rounds=1, **started):
    def phase(kind, number, step, value):
        record = {
            "event": "phase",
            "phase": kind,
            "round": number,
            "step": step,
            "loss": 1.0,
            "correlation": value,
        }
        return record | {"embedding": metrics(value), "pooled": metrics(value)}

    records = [
        {"event": "start", "dataset": "drawn", "method": method, "seed": seed} | started,
        {"event": "step", "step": 4, "learning_rate": rate, "loss": 1.0},
        phase("base", 0, 4, 0.4),
        *(
            line
            for number in range(1, rounds + 1)
            for line in (
                {"event": "step", "step": 4 + steps * number, "learning_rate": later or rate, "loss": 1.0},
                phase("relaxation", number, 4 + steps * number, last),
            )
        ),
        *([{"event": "end", "step": 4 + steps * rounds, "stopped": "maximum", "seconds": 1.0}] if ended else []),
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_one_pair(tmp_path, capsys):
    run = log(tmp_path / "run.jsonl", last=0.6)
    control = log(tmp_path / "control.jsonl", method="none", last=0.55)
    assert main(["--runs", run, "--controls", control, "--out", str(tmp_path / "out")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "embedding rank1" in line)
    assert row.split()[2:] == ["40.0", "60.0", "55.0", "+5.0"]
    assert (tmp_path / "out" / "rounds.png").exists()


@pytest.mark.parametrize(("method", "head"), [("us", "RRI"), ("rotation", "RRI by rotation")])
def test_the_column_of_the_runs_names_their_method(method, head, tmp_path, capsys):
    run, control = log(tmp_path / "run.jsonl", method=method), log(tmp_path / "control.jsonl", method="none")
    assert main(["--runs", run, "--controls", control]) == 0
    heads = next(line for line in capsys.readouterr().out.splitlines() if "difference" in line and "control" in line)
    assert heads.split() == ["base", *head.split(), "control", "difference"]


def test_pairs_of_several_seeds_give_mean_and_spread(tmp_path, capsys):
    runs = [log(tmp_path / f"r{seed}", seed=seed, last=0.6 + 0.02 * seed) for seed in (0, 1)]
    controls = [log(tmp_path / f"c{seed}", method="none", seed=seed, last=0.6) for seed in (0, 1)]
    assert main(["--runs", *runs, "--controls", *controls]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "pooled mAP " in line)
    assert row.split()[2:] == ["40.0", "±", "0.0", "61.0", "±", "1.4", "60.0", "±", "0.0", "+1.0", "±", "1.4"]


def in_folder(path, results, first=0, **options):
    """A run's folder with results by identity after its last round, two queries each."""
    run = RunDir(path)
    run.path.mkdir()
    log(run.log, **options)
    run.config.write_text('{"seed": 0}')
    if results is not None:
        people = len(results)
        kept = dict.fromkeys(("rank1", "mAP", "mAP_market"), 2.0 * results)
        sums = ByIdentity(first + np.arange(people), np.full(people, 2), kept)
        save_identities(run, 1, "relaxation", dict.fromkeys(("embedding", "pooled"), sums))
    return str(path)


def test_differences_have_intervals_over_seeds_and_over_people(tmp_path, capsys):
    rng = np.random.default_rng(0)
    people, runs, controls = rng.random(10), [], []
    for seed, gain in enumerate((0.02, 0.04, 0.03)):
        runs.append(in_folder(tmp_path / f"r{seed}", people + gain, seed=seed, last=0.6 + gain))
        controls.append(in_folder(tmp_path / f"c{seed}", people, method="none", seed=seed, last=0.6))
    assert main(["--runs", *runs, "--controls", *controls, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out[out.index("Difference, in") :].splitlines() if "embedding mAP " in line)
    # Standard error 1 / sqrt(3), t of two degrees of freedom 4.303; all people gain alike.
    assert row.split()[2:] == ["+3.0", "[+0.5,", "+5.5]", "[+3.0,", "+3.0]"]
    assert "+2.0 [+2.0, +2.0]" in (tmp_path / "out" / "report.html").read_text()


def test_what_is_not_known_of_people_is_said_and_other_people_are_refused(tmp_path, capsys):
    run = in_folder(tmp_path / "run", np.full(10, 0.5))
    control = in_folder(tmp_path / "control", None, method="none")
    assert main(["--runs", run, "--controls", control]) == 0
    assert "not known" in capsys.readouterr().out
    other = in_folder(tmp_path / "other", np.full(10, 0.5), method="none")
    path = RunDir(tmp_path / "other").identities(1, "relaxation")
    stored = json.loads(path.read_text())
    stored["embedding"]["queries"][0] = 3
    path.write_text(json.dumps(stored))
    assert main(["--runs", run, "--controls", other]) == 2
    assert "same queries" in capsys.readouterr().err
    path.write_text("{}")
    assert main(["--runs", run, "--controls", other]) == 2
    assert "other/identities/1-relaxation.json: is damaged" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "us"}, "decorrelates by us; a control must not"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"rate": 0.2}, "or not the learning rates of its Step 0"),
        ({"steps": 12}, "not the steps of"),
        ({"ended": False}, "the run has not ended"),
    ],
)
def test_what_is_no_control_is_refused(changes, message, tmp_path, capsys):
    run = log(tmp_path / "run.jsonl")
    control = log(tmp_path / "control.jsonl", **({"method": "none"} | changes))
    assert main(["--runs", run, "--controls", control]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 0}, "has the seed 0, as one before it"),
        ({"rate": 0.2}, "not {first} with another seed: other steps or learning rates"),
        ({"dataset": "another"}, "not {first} with another seed: dataset: drawn -> another"),
        ({"settings": {"model": {"embedding_dim": 8}}}, "settings"),
    ],
)
def test_pairs_that_are_not_seeds_of_one_comparison_are_refused(changes, message, tmp_path, capsys):
    """The same pair twice had an interval over seeds without width."""
    of_second = {"seed": 1} | changes
    runs = [log(tmp_path / "r0"), log(tmp_path / "r1", **of_second)]
    controls = [log(tmp_path / "c0", method="none"), log(tmp_path / "c1", method="none", **of_second)]
    assert main(["--runs", *runs, "--controls", *controls]) == 2
    assert message.format(first=runs[0]) in " ".join(capsys.readouterr().err.split())


def test_runs_with_other_methods_are_not_averaged(tmp_path, capsys):
    runs = [log(tmp_path / "r0"), log(tmp_path / "r1", seed=1, method="qd")]
    controls = [log(tmp_path / f"c{seed}", method="none", seed=seed) for seed in (0, 1)]
    assert main(["--runs", *runs, "--controls", *controls]) == 2
    assert "method: us -> qd" in capsys.readouterr().err


def test_runs_that_stopped_after_other_rounds_say_after_which(tmp_path, capsys):
    runs = [log(tmp_path / f"r{seed}", seed=seed, rounds=2 + seed) for seed in (0, 1)]
    controls = [log(tmp_path / f"c{seed}", method="none", seed=seed, rounds=2 + seed) for seed in (0, 1)]
    assert main(["--runs", *runs, "--controls", *controls]) == 0
    assert "After round 2, 3; seeds 0, 1" in capsys.readouterr().out


def test_of_people_held_out_by_each_seed_only_the_seeds_tell(tmp_path, capsys):
    runs, controls = [], []
    for seed in (0, 1):
        more = {"seed": seed, "fingerprint": str(seed), "settings": {"data": {"validation": 10}}}
        runs.append(in_folder(tmp_path / f"r{seed}", np.full(10, 0.5), first=seed, **more))
        controls.append(in_folder(tmp_path / f"c{seed}", np.full(10, 0.5), first=seed, method="none", **more))
    assert main(["--runs", *runs, "--controls", *controls]) == 0
    assert "not known" in capsys.readouterr().out
    assert main(["--runs", runs[0], "--controls", controls[0]]) == 0
    assert "not known" not in capsys.readouterr().out


@pytest.mark.parametrize(("people", "said"), [(1, "one person"), (3, "of 3 people an interval is too narrow")])
def test_few_people_are_said_to_be_few(people, said, tmp_path, capsys):
    run = in_folder(tmp_path / "run", np.linspace(0.2, 0.6, people))
    control = in_folder(tmp_path / "control", np.linspace(0.1, 0.6, people), method="none")
    assert main(["--runs", run, "--controls", control]) == 0
    assert said in capsys.readouterr().out


def test_a_control_may_have_learning_rates_of_its_own_in_the_rounds_and_they_are_said(tmp_path, capsys):
    run, control = (in_folder(tmp_path / name, np.full(10, 0.5), **options) for name, options in PAIR.items())
    assert main(["--runs", run, "--controls", control, "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: the rounds of 1 of 1 controls were trained at other learning rates" in said
    assert "the largest: RRI 0.1, control 0.01" in said
    assert "RRI 0.1, control 0.01" in (tmp_path / "out" / "report.html").read_text()
    assert main(["--runs", run, "--controls", log(tmp_path / "same", method="none")]) == 0
    assert "note:" not in capsys.readouterr().out


PAIR = {"run": {}, "control": {"method": "none", "later": 0.01}}


def test_each_run_needs_its_control(tmp_path, capsys):
    run, control = log(tmp_path / "run"), log(tmp_path / "control", method="none")
    assert main(["--runs", run, run, "--controls", control]) == 2
    assert "1 given for 2 runs" in capsys.readouterr().err
    assert main(["--runs", str(tmp_path / "nowhere"), "--controls", control]) == 2
    assert "nowhere" in capsys.readouterr().err


KEYS = ["seed", "dataset", "learning_rate", "phase", "round", "correlation", "embedding", "mAP"]


@pytest.mark.parametrize("key", KEYS)
def test_a_line_that_lost_a_key_is_named(tmp_path, capsys, key):
    run, control = log(tmp_path / "run"), log(tmp_path / "control", method="none")
    (tmp_path / "run").write_text((tmp_path / "run").read_text().replace(f'"{key}":', '"other":'))
    assert main(["--runs", run, "--controls", control]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "run:" in said


@pytest.fixture
def pair(tmp_path):
    """A run's folder and its control, as arguments."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    log(run.log)
    run.config.write_text('{"seed": 0}')
    run.environment.write_text('{"python": "3.11"}')
    control = log(tmp_path / "control", method="none")
    return run, ["--runs", str(run.path), "--controls", control, "--out", str(tmp_path / "out")]


@pytest.mark.parametrize("content", [None, b"[]", b"null", b"\xff\xfe", b"{", b"[" * 9000])
def test_a_damaged_environment_costs_its_own_table_only(pair, tmp_path, content):
    run, arguments = pair
    run.environment.unlink() if content is None else run.environment.write_bytes(content)
    assert main(arguments) == 0
    assert "environment.json" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("content", [None, b"[]", b"null", b"\xff\xfe", b"{", b"[" * 9000])
def test_damaged_settings_are_named_with_the_remedy(pair, capsys, content):
    run, arguments = pair
    run.config.unlink() if content is None else run.config.write_bytes(content)
    assert main(arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "config.json: " in said
    assert "give the command of the run again" in said
