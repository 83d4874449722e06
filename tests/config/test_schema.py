"""Settings are refused early, by name, and compared key by key."""

import dataclasses
import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from svdnet_jax.baselines import orthogonality
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import RRI, Config, Data, Eval, Loss, Model, Optimizer, Penalty, Phase, Synthetic
from svdnet_jax.config.serialize import diff, from_json, to_json
from svdnet_jax.config.validate import validate
from svdnet_jax.errors import ConfigError
from svdnet_jax.runs.training import preflight


def with_penalty(rri=None, **values):
    return Config(loss=Loss(penalty=Penalty(**values)), rri=rri or RRI())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_know_their_name(name):
    preflight(PRESETS[name])
    assert PRESETS[name].preset == name


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Config(data=Data(batch_size=1)), "`data.batch_size` 1: must be 2 or more"),
        (
            Config(log_every=30, checkpoint_every=100),
            "`checkpoint_every` 100: must be a multiple of `log_every` 30",
        ),
        (Config(model=Model(dropout=1.0)), r"`model.dropout` 1.0: must be in \[0, 1\)"),
        (
            Config(optimizer=Optimizer(learning_rate=float("nan"))),
            "`optimizer.learning_rate` nan: must be a finite number",
        ),
        (Config(rri=RRI(learning_rates=())), "`rri.learning_rates`"),
        (Config(data=Data(height=10**9)), "`data.height` 1000000000: must be 4096 or less"),
        (Config(data=Data(crop_padding=33)), "`data.crop_padding` 33: must be at most 32, the smaller of"),
        (Config(log_every=0), "`log_every` 0: must be 1 or more"),
        (Config(eval=Eval(batch_size=10**9)), "`eval.batch_size` 1000000000: must be 65536 or less"),
        (Config(rri=RRI(rounds=10**9)), "`rri.rounds` 1000000000: must be 10000 or less"),
        (Config(base=Phase(2**31 - 1)), "`rri.rounds` 4: must be such that all phases together take 2147483647 steps"),
        (
            Config(data=Data(synthetic=Synthetic(train_identities=9_000, train_images=2_000))),
            "`data.synthetic.train_identities` 9000: must be such that at most 1000000 images are drawn",
        ),
        (Config(rri=RRI(rounds=-1)), "`rri.rounds` -1: must be 0 or more"),
        (Config(seed=2**32), "`seed` 4294967296: must be 4294967295 or less"),
        (Config(model=Model(mean=(float("nan"), 0.0, 0.0))), "`model.mean` nan: must be a finite number"),
        (
            Config(optimizer=Optimizer(weight_decay=float("inf"))),
            "`optimizer.weight_decay` inf: must be a finite number",
        ),
        (Config(base=Phase(steps=10, milestones=(12,))), "`base.milestones`"),
        (Config(rri=RRI(relaxation=Phase(steps=0))), "`rri.relaxation.steps` 0: must be 1 or more"),
        (Config(model=Model(backbone="vgg")), "`model.backbone` vgg: unknown; choose one of mini"),
        (Config(model=Model(embedding_dim=100_000)), "`model.embedding_dim` 100000: more outputs than"),
        (Config(model=Model(last_stride=1)), "`model.last_stride` 1: only a ResNet"),
        (Config(model=Model(embedding_dim=0)), "`rri.rounds` 4: must be 0 where `model.embedding_dim` 0"),
        (
            Config(model=Model(mean=(1.0, 2.0, 3.0), mean_image=True)),
            "must be left out where `model.mean_image`",
        ),
        (Config(model=Model(neck="batchnorm", batch_norm="frozen")), "`model.neck` batchnorm: must be none with"),
        (Config(data=Data(erase_prob=1.5)), "`data.erase_prob` 1.5"),
        (Config(data=Data(crop_padding=-1)), "`data.crop_padding` -1"),
        (Config(loss=Loss(label_smoothing=1.0)), "`loss.label_smoothing` 1.0"),
        (Config(loss=Loss(margin=-0.1)), "`loss.margin` -0.1"),
        (Config(model=Model(std=(1.0, 0.0, 1.0))), "`model.std`"),
        (Config(model=Model(eigenlayer_std=0.0)), "`model.eigenlayer_std` 0.0"),
        (Config(data=Data(batch_size=64, num_instances=5)), "`data.num_instances` 5: must be a divisor of"),
        (Config(loss=Loss(triplet="soft")), "`loss.triplet` soft: must be none unless `data.num_instances`"),
        (Config(rri=RRI(final=Phase(steps=5))), "`rri.final.steps` 5: must be given with `rri.stop` never"),
        (with_penalty(kind="soft"), "`loss.penalty.weight` 0.0: must be positive with, and 0 without"),
        (with_penalty(weight=0.1), "`loss.penalty.weight` 0.1: must be positive with, and 0 without"),
        (with_penalty(scale="columns"), "`loss.penalty.scale` columns: must be none without"),
        (with_penalty(features=-1.0), "`loss.penalty.features` -1.0: must be 0 or more"),
        (with_penalty(begin="rounds"), "`loss.penalty.begin` rounds: must be start unless"),
        (with_penalty(RRI(rounds=0), features=1.0, begin="rounds"), "`loss.penalty.begin` rounds: must be start"),
        (
            with_penalty(RRI(relaxation=Phase(9, freeze=("eigen*",))), kind="srip", weight=1.0, begin="rounds"),
            "`loss.penalty.kind` srip: must be none where every phase that it acts in freezes",
        ),
        (Config(rri=RRI(method="u", rotate_classifier=True)), "`rri.rotate_classifier` True: must be left out unless"),
        (Config(base=Phase(steps=9, warmup=10)), "`base.warmup` 10: must be at most `base.steps` 9"),
        (Config(base=Phase(steps=9, multipliers=(("*", 0.0),))), "`base.multipliers`"),
        (Config(base=Phase(steps=9, freeze=("eigenlayr/*",))), "'eigenlayr/\\*' matches no weight; there are"),
        (Config(base=Phase(steps=9, freeze=("*",))), "leave no weight to train"),
    ],
)
def test_impossible_settings_are_refused_by_name(bad, message):
    with pytest.raises(ConfigError, match=message):
        preflight(bad)


def numbers(part=Config, prefix=""):
    """Path and type of every option that is a number or several."""
    for field in dataclasses.fields(part):
        kind, path = get_type_hints(part)[field.name], f"{prefix}{field.name}"
        if Phase in (kind, *get_args(kind)):
            kind = Phase
        if dataclasses.is_dataclass(kind):
            yield from numbers(kind, f"{path}.")
        elif kind in (int, float) or {int, float} & {*get_args(kind), *sum(map(get_args, get_args(kind)), ())}:
            yield path, int if kind is int or int in get_args(kind) else float


def put(part, path, value):
    """Settings with a number in place of what is there: as it is, in a tuple, or as a multiplier."""
    name, _, rest = path.partition(".")
    if rest:
        return dataclasses.replace(part, **{name: put(getattr(part, name) or Phase(steps=9), rest, value)})
    several = {"mean": (value,) * 3, "std": (value,) * 3, "multipliers": (("*", value),)}
    several |= dict.fromkeys(("milestones", "learning_rates"), (value,))
    return dataclasses.replace(part, **{name: several.get(name, value)})


# Every number of the settings; which of them may be zero or less is written down once more, here.
NUMBERS = dict(numbers())
BELOW_ZERO = {"model.mean"}
ZERO = {
    *("seed", "data.synthetic.seed", "data.validation", "data.num_instances", "data.crop_padding", "data.erase_prob"),
    *("data.synthetic.distractors", "data.synthetic.junk", "data.synthetic.alike", "model.dropout", "model.mean"),
    *("base.warmup", "rri.restraint.warmup", "rri.relaxation.warmup", "rri.final.warmup", "rri.rounds"),
    *("rri.unmatched_rounds", "rri.tolerance", "loss.penalty.weight", "loss.penalty.features", "loss.label_smoothing"),
    *("loss.margin", "optimizer.momentum", "optimizer.weight_decay", "compute.steps_per_call", "machines.process"),
}
NAMED_BY_ANOTHER = {"model.embedding_dim"}
"""Zero goes with `rri.rounds` 0 only, and the message is about both."""


def test_the_table_knows_the_numbers():
    assert len(NUMBERS) > 50
    assert {"rri.final.steps", "base.multipliers", "model.std", "rri.learning_rates"} < NUMBERS.keys()
    assert NUMBERS.keys() >= ZERO | BELOW_ZERO


@pytest.mark.parametrize("value", [-1, 0, 1e20, float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_that_cannot_be_is_refused_by_its_own_name(path, value):
    if NUMBERS[path] is int and isinstance(value, float):
        value = 10**20 if value == 1e20 else -(10**9)  # there is no such integer; one far off instead
    config = put(dataclasses.replace(Config(), rri=RRI(stop="never")), path, value)
    if path in (BELOW_ZERO if value == -1 else ZERO if value == 0 else ()):
        return validate(config)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    name = f"`{path}` "
    assert name in str(caught.value) if path in NAMED_BY_ANOTHER else str(caught.value).startswith(name)


def test_a_folder_whose_name_is_no_text_is_refused():
    with pytest.raises(ConfigError, match=r"`out` .*: must be a name in UTF-8"):
        validate(Config(out=Path("caf\udce9")))


def test_milestones_are_refused_beside_the_steps_that_they_are_of():
    with pytest.raises(ConfigError, match=r"`base.milestones` \(540, 780\): must be .* below `base.steps` 100"):
        validate(dataclasses.replace(Config(), base=dataclasses.replace(Config().base, steps=100)))


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name):
    config = dataclasses.replace(PRESETS[name], out=Path("somewhere"), data=Data(root=Path("x"), layout="manifest"))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_settings_of_an_older_version_get_the_defaults():
    assert from_json({"preset": "synthetic", "model": {"dim": 7}}) == Config(model=Model(embedding_dim=7))


def test_settings_of_something_else_are_refused():
    with pytest.raises(ConfigError, match="dim"):
        from_json({"model": {"embedding_dim": "wide"}})


def test_differences_name_the_options():
    old = Config()
    new = dataclasses.replace(old, seed=3, rri=dataclasses.replace(old.rri, rounds=9), data=Data(root=Path("x")))
    assert diff(to_json(old), to_json(old)) == []
    found = diff(to_json(old), to_json(new))
    assert "seed: 0 -> 3" in found
    assert f"rri.rounds: {old.rri.rounds} -> 9" in found
    assert "data.root: None -> x" in found


def test_penalties_have_the_names_of_their_functions():
    kinds, scales = (get_args(get_type_hints(Penalty)[name]) for name in ("kind", "scale"))
    assert kinds == ("none", *get_args(orthogonality.Penalty))
    assert scales == get_args(orthogonality.Scale)


def test_folder_is_named_by_the_preset():
    validate(Config())
    assert Config().folder == Path("runs/synthetic")
    assert Config(data=Data(root=Path("a/Market-1.5"))).folder == Path("runs/Market-1.5")
    assert Config(data=Data(root=Path("a/mine.csv"))).folder == Path("runs/mine")
    joined = Data(root=Path("a/mine.csv"), more=("b/Duke:dukemtmc", "b/c:d"))
    assert Config(data=joined).folder == Path("runs/mine-Duke-c:d")
    assert Config(preset="tiny", data=Data(root=Path("a/Market"))).folder == Path("runs/Market-tiny")
    assert Config(out=Path("a")).folder == Path("a")
