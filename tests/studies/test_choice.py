"""The choice of rates: the same grid for all, on people that are neither trained on nor tested on."""

import os
from dataclasses import replace

import pytest
from rich.console import Console

from svdnet_jax.config.schema import Config
from svdnet_jax.config.validate import validate
from svdnet_jax.errors import CheckpointError, ConfigError, Stopped, TrainingDiverged
from svdnet_jax.studies import choice, control, decorrelation, dimensions, paper_tables, rotation, study
from svdnet_jax.studies.jobs import cores, side_by_side


def quiet():
    return Console(quiet=True)


@pytest.fixture
def grid(monkeypatch):
    """Makes the outcome of each candidate known, by its name and seed, in place of training it."""

    def use(outcomes):
        monkeypatch.setattr(choice, "load_configured_dataset", lambda *_: None)
        monkeypatch.setattr(choice, "results", lambda _, candidates, seed: {n: outcomes(n, seed) for n in candidates})

    return use


def options(**more):
    return control.Options(seeds=(4, 5, 6), factors=(0.5, 1.0, 2.0), jobs=1, **more)


def test_each_takes_its_best_by_the_mean_over_seeds_and_siblings_take_it_too(grid):
    # us is best at twice the rate by the mean, though not with the first seed; none at half.
    known = {"us-x1": (0.5, 0.5), "us-x2": (0.4, 0.7), "us-x0.5": (0.45, 0.6), "none-x0.5": (0.9, 0.9)}
    grid(lambda name, seed: known.get(name, (0.1, 0.1))[seed - 4])
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
        ("us", 0.04, [4, 5]),
        ("none", 0.01, [4, 5]),
    ]
    assert lines[0]["mAP"] == pytest.approx([0.525, 0.5, 0.55])


def test_what_diverged_with_one_seed_is_not_taken(grid):
    grid(lambda name, seed: None if name == "us-x2" and seed == 5 else {"us-x2": 0.9}.get(name, 0.3))
    found, lines = choice.chosen(options(), {"us": Config()}, {"us": "us"}, quiet())
    assert found["us"].rri.learning_rates == (0.01,), "the first of equal ones"
    assert lines[0]["mAP"][2] is None
    grid(lambda *_: None)
    with pytest.raises(ConfigError, match="us diverged with each"):
        choice.chosen(options(), {"us": Config()}, {"us": "us"}, quiet())


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
    [("config", ConfigError), ("step", ConfigError), ("diverged", ConfigError), ("stopped", KeyboardInterrupt)],
)
def test_errors_of_other_processes_arrive(error, raised):
    with pytest.raises(raised):
        side_by_side(fail, [(error,), (error,)], 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": ()}, "--seeds : give one"),
        ({"seeds": (1, 1)}, "--seeds 1 1: give one or more, each once"),
        ({"seeds": (10**20,)}, "--seeds 1"),
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


def test_options_of_each_study_have_bounds_by_the_same_rule():
    for experiment in paper_tables.STUDIES.values():
        study.check_options(experiment.options())
    with pytest.raises(ConfigError, match="--below -3"):
        study.check_options(decorrelation.Options(below=-3))
    with pytest.raises(ConfigError, match="--dims 1000000000"):
        study.check_options(dimensions.Options(dims=(16, 10**9)))
