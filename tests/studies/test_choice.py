"""The choice of rates: the same grid for all, on people that are neither trained on nor tested on."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from svdnet_jax.config.schema import Config
from svdnet_jax.config.validate import validate
from svdnet_jax.errors import CheckpointError, ConfigError, MachineError, Stopped, TrainingDiverged
from svdnet_jax.reporting.terminal import duration
from svdnet_jax.runs.dataset import load_configured_dataset
from svdnet_jax.studies import (
    choice,
    control,
    decorrelation,
    dimensions,
    paper_tables,
    penalties,
    rotation,
    study,
    truncated,
)
from svdnet_jax.studies.jobs import cores, side_by_side
from svdnet_jax.studies.trained import plan


def quiet():
    return Console(quiet=True)


@pytest.fixture
def grid(monkeypatch):
    """Makes the outcome of each candidate known, by its name and seed, in place of training it."""

    def use(outcomes):
        monkeypatch.setattr(choice, "load_configured_dataset", lambda *_: None)
        known = lambda _, candidates, seed, __: {n: outcomes(n, seed) for n in candidates}  # noqa: E731
        monkeypatch.setattr(choice, "results", known)

    return use


def options(**more):
    return control.Options(seeds=(4, 5, 6), **({"factors": (0.5, 1.0, 2.0), "jobs": 1} | more))


@pytest.fixture(autouse=True)
def nothing_trained(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_each_takes_its_best_by_the_mean_over_seeds_and_siblings_take_it_too(grid):
    # us is best at twice the rate by the mean, though not with the first seed; none at half.
    known = {"us-x1": (0.5, 0.5), "us-x2": (0.4, 0.7), "us-x0.5": (0.45, 0.6), "none-x0.5": (0.9, 0.9)}
    grid(lambda name, seed: known.get(name, (0.1, 0.1))[seed])
    config = options().run
    variants = {name: replace(config, rri=replace(config.rri, match=name == "us")) for name in ("us", "us-unmatched")}
    variants["none"] = replace(config, rri=replace(config.rri, method="none"))
    families = {"us": "us", "us-unmatched": "us", "none": "none"}
    found, lines = choice.chosen(options(), variants, families, quiet())
    assert {name: run.rri.learning_rates for name, run in found.items()} == {
        "us": (0.04,),
        "us-unmatched": (0.04,),
        "none": (0.01,),
    }
    assert [(line["variant"], line["chosen"], line["seeds"]) for line in lines] == [
        ("us", 0.04, [0, 1]),
        ("none", 0.01, [0, 1]),
    ]
    # Both were at an end, so the grid of each went on there, once.
    assert [line["rates"] for line in lines] == [[0.01, 0.02, 0.04, 0.08], [0.005, 0.01, 0.02, 0.04]]
    assert lines[0]["mAP"] == pytest.approx([0.525, 0.5, 0.55, 0.1])


@pytest.mark.parametrize(("sign", "rates"), [(1, (0.01, 0.32)), (-1, (0.00125, 0.04))])
def test_a_grid_goes_on_while_its_end_is_best_and_not_for_ever(grid, sign, rates):
    grid(lambda name, _: 0.5 + sign * 0.01 * float(name.rpartition("x")[2]))
    _, (line,) = choice.chosen(options(), {"us": Config()}, {"us": "us"}, quiet())
    assert (line["rates"][0], line["rates"][-1]) == rates
    assert line["chosen"] == rates[sign > 0]


def test_what_diverged_with_one_seed_is_not_taken(grid):
    grid(lambda name, seed: None if name == "us-x4" and seed == 1 else {"us-x2": 0.9, "us-x4": 1.0}.get(name, 0.3))
    found, lines = choice.chosen(options(), {"us": Config()}, {"us": "us"}, quiet())
    assert found["us"].rri.learning_rates == (0.04,)
    assert lines[0]["mAP"] == [0.3, 0.3, 0.9, None], "the one beyond the end diverged, so the end is inside"
    grid(lambda *_: 0.3)
    found, _ = choice.chosen(options(), {"us": Config()}, {"us": "us"}, quiet())
    assert found["us"].rri.learning_rates == (0.00125,), "the smallest of equal ones"
    grid(lambda *_: None)
    with pytest.raises(ConfigError, match="us diverged with each"):
        choice.chosen(options(), {"us": Config()}, {"us": "us"}, quiet())


def test_each_penalty_takes_the_best_of_five_weights_and_has_it_with_us_too(grid):
    best = {"none-soft": 10, "none-srip": 0.1, "none-soft-start": 1}
    grid(lambda name, _: float(name in [f"{kind}-x{factor:g}" for kind, factor in best.items()]))
    asked = penalties.Options(kinds=("soft", "srip"), jobs=1)
    settings = {"soft": penalties.scaled("soft", 0.5), "srip": penalties.scaled("srip", 0.25)}
    plain = {method: decorrelation.with_rri(Config(), method=method) for method in ("none", "us")}
    runs, lines = penalties.weighted(asked, penalties.variants(asked, settings, plain), quiet())
    assert {name: penalties.weight_of(run) for name, run in runs.items()} == {
        "none": 0.0,
        "us": 0.0,
        "none-soft": 5.0,
        "us-soft": 5.0,
        "none-srip": 0.025,
        "us-srip": 0.025,
        "none-soft-start": 0.5,
    }
    assert [(line["what"], line["variant"], len(line["rates"])) for line in lines] == [
        ("weight", name, 5) for name in ("none-soft", "none-srip", "none-soft-start")
    ]
    runs, lines = penalties.weighted(replace(asked, weight_factors=(1.0,)), runs, quiet())
    assert not lines
    assert penalties.weight_of(runs["us-soft"]) == 5.0


def test_one_factor_chooses_nothing():
    variants = {"us": Config()}
    assert choice.chosen(replace(options(), factors=(1.0,)), variants, {"us": "us"}, quiet()) == (variants, [])


def test_people_are_held_out_and_as_many_trained_on():
    found = choice.held_out(Config(), 100)
    validate(found)
    assert found.data.synthetic.train_identities - found.data.validation == Config().data.synthetic.train_identities
    real = replace(Config(), data=replace(Config().data, root=found.data.cache))
    assert choice.held_out(real, 100).data.synthetic == real.data.synthetic
    assert choice.held_out(real, 100).data.validation == 100


def test_all_rates_of_a_schedule_are_scaled():
    config = replace(Config(), rri=replace(Config().rri, learning_rates=(1e-3, 1e-4)))
    assert choice.scaled(config, 0.5).rri.learning_rates == (5e-4, 5e-5)


@pytest.mark.parametrize("module", [control, rotation, decorrelation])
def test_every_variant_has_a_family_among_the_variants(module, monkeypatch):
    seen = {}

    def chosen(_, variants, families, __):
        seen.update(families)
        assert families.keys() == variants.keys()
        assert {*families.values()} <= variants.keys()
        raise ConfigError("seen")

    monkeypatch.setattr(module, "chosen", chosen)
    with pytest.raises(ConfigError, match="seen"):
        module.measure(module.STUDY.options(), quiet())
    assert seen["none"] == "none"


def who(number):
    return number, os.getpid(), cores()


def fail(error):
    raise {"config": ConfigError("a"), "step": CheckpointError(3, "a"), "diverged": TrainingDiverged("a")}.get(
        error, Stopped(3, 2)
    )


def test_work_is_shared_among_processes_and_their_cores():
    found = side_by_side(who, [(number,) for number in range(4)], 2)
    assert [number for number, _, _ in found] == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process, _ in found}
    taken = {process: tuple(own) for _, process, own in found}
    if len(cores()) > 1 and len(taken) > 1:
        assert len({*taken.values()}) == len(taken), "each has cores of its own"
    assert side_by_side(who, [(7,)], 2) == [(7, os.getpid(), cores())]


@pytest.mark.parametrize(
    ("error", "raised"),
    [("config", ConfigError), ("step", ConfigError), ("diverged", TrainingDiverged), ("stopped", KeyboardInterrupt)],
)
def test_errors_of_other_processes_arrive(error, raised):
    with pytest.raises(raised):
        side_by_side(fail, [(error,), (error,)], 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": ()}, "--seeds : give one"),
        ({"seeds": (1, 1)}, "--seeds 1 1: give one or more, each once"),
        ({"seeds": (2**32,)}, "--seeds 4294967296: must be"),
        ({"factors": ()}, "--factors : give one"),
        ({"factors": (0.0, 1.0)}, "each above 0"),
        ({"factors": (float("nan"),)}, "--factors nan: must be"),
        ({"factors": (float("inf"),)}, "--factors inf: must be"),
        ({"held_out": 1}, "--held-out 1: must be from 2"),
        ({"jobs": -1}, "--jobs -1: must be"),
        ({"jobs": 10**9}, "--jobs 1000000000: must be"),
    ],
)
def test_options_of_a_study_have_bounds(changes, said, tmp_path):
    options = replace(control.Options(run=replace(Config(), out=tmp_path)), **changes)
    with pytest.raises(ConfigError, match=said):
        study.conduct(control.STUDY, options, quiet())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_diverges_at_its_chosen_rate_is_named(jobs, monkeypatch, tmp_path):
    """With jobs in this process: what a study trains is then a function that a test can replace."""

    def diverge(folder, name, config, seed, *_):
        if (name, seed) == ("us", 5):
            raise TrainingDiverged("the loss is nan")
        return tmp_path

    monkeypatch.setattr(study, "trained", diverge)
    monkeypatch.setattr(study, "tagged", lambda *_: [])
    monkeypatch.setattr(study, "load_configured_dataset", lambda *_: None)
    monkeypatch.setattr(study, "side_by_side", lambda work, jobs, _: [work(*each) for each in jobs])
    asked = options(run=replace(Config(), out=tmp_path), jobs=jobs)
    with pytest.raises(TrainingDiverged, match=r"us-5 \(rates of the rounds: 0\.02\): the loss is nan\. There is no"):
        study.train(asked, control.variants(asked), quiet())


def test_a_study_does_not_report_on_people_that_it_chose_by():
    """Of the same training identities both would be drawn, by the same seed."""
    run = replace(Config(), data=replace(Config().data, validation=30))
    with pytest.raises(ConfigError, match="--data.validation 30: .* people that it chose by"):
        study.check_options(options(run=run))
    study.check_options(options(run=run, factors=(1.0,)))
    with pytest.raises(ConfigError, match=r"--data\.validation"):
        study.check_options(penalties.Options(run=run, factors=(1.0,)))


def test_of_the_built_in_people_none_is_both_chosen_by_and_tested_on(tmp_path):
    """More training identities are drawn for the choice; they are not those of the test set."""
    small = replace(Config().data.synthetic, train_identities=6, test_identities=6, distractors=2, junk=2)
    config = replace(Config(), data=replace(Config().data, cache=tmp_path, synthetic=small))
    tested = load_configured_dataset(config, quiet())
    held = [load_configured_dataset(replace(choice.held_out(config, 4), seed=seed), quiet()) for seed in choice.SEEDS]
    images = {image.tobytes() for split in (tested.query, tested.gallery) for image in split.images}
    for dataset in held:
        assert len(np.unique(dataset.query.pids)) == 4
        assert len(np.unique(dataset.train.pids)) == 6
        assert not images & {i.tobytes() for s in (dataset.train, dataset.query, dataset.gallery) for i in s.images}
        assert not {*dataset.query.pids.tolist()} & {*tested.query.pids.tolist()}


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_the_system_ended_is_told_so():
    with pytest.raises(MachineError, match="--jobs 1"):
        side_by_side(killed, [(), ()], 2)


@pytest.mark.parametrize("module", [penalties, truncated, dimensions, decorrelation, rotation])
def test_runs_that_studies_share_have_the_rates_that_control_gave_them(module, grid, monkeypatch):
    """Else the second study would find folders of other settings."""
    grid(lambda name, _: {"us-x2": 0.9, "none-x0.5": 0.9}.get(name, 0.1))
    seen = {}

    def train(_, variants, __):
        seen.update(variants)
        raise ConfigError("seen")

    def known(_, name, config, *__):
        seen[name] = config
        if name == "us":
            raise ConfigError("seen")
        return Path()

    monkeypatch.setattr(study, "train", train)
    for user in (penalties, truncated, decorrelation):
        monkeypatch.setattr(user, "trained", known)
    monkeypatch.setattr(study, "tagged", lambda *_: [])
    monkeypatch.setattr(study, "cached", lambda *_: [])
    monkeypatch.setattr(penalties, "sizes", lambda _, kinds: dict.fromkeys(kinds, 1.0))
    with pytest.raises(ConfigError, match="seen"):
        module.measure(replace(module.STUDY.options(), jobs=1), quiet())
    wanted = {"us": (0.04,), "none": (0.01,)}
    assert {name: seen[name].rri.learning_rates for name in wanted.keys() & seen.keys()} == {
        name: wanted[name] for name in wanted.keys() & seen.keys()
    }
    assert "us" in seen


def test_a_plan_counts_each_run_once_and_tells_the_time_left(tmp_path, monkeypatch):
    variants = control.variants(control.Options())
    done = {}
    monkeypatch.setattr("svdnet_jax.studies.trained.finished", lambda config: config.folder in done)
    found = plan(tmp_path, variants, (0, 1))
    config = Config()
    base, rounds = config.base.steps, config.rri.rounds * (config.rri.restraint.steps + config.rri.relaxation.steps)
    assert sorted(steps for _, steps in found.runs.values()) == sorted([base, rounds, rounds] * 2)
    assert str(found) == "0 of 6 runs trained; how long they take is told with the first"
    done |= {folder: 1 for folder, (_, steps) in found.runs.items() if steps == base}
    monkeypatch.setattr("time.time", lambda: found.begun + 60.0)
    assert str(found) == f"2 of 6 runs, {duration(60.0 * 4 * rounds / (2 * base))} left"
    assert len(plan(tmp_path, variants, (0, 1)).runs) == 4
    done |= dict.fromkeys(found.runs, 1)
    assert str(found) == "6 of 6 runs"


def test_options_of_each_study_have_bounds_by_the_same_rule():
    for experiment in paper_tables.STUDIES.values():
        study.check_options(experiment.options())
    with pytest.raises(ConfigError, match="--below -3"):
        study.check_options(decorrelation.Options(below=-3))
    with pytest.raises(ConfigError, match="--dims 1000000000"):
        study.check_options(dimensions.Options(dims=(16, 10**9)))
