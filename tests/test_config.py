"""Settings are refused early, by name, and compared key by key."""

import dataclasses
import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from svdnet_jax.baselines import orthogonality
from svdnet_jax.config import (
    RRI,
    ConfigError,
    Data,
    Loss,
    Model,
    Optimizer,
    Penalty,
    Phase,
    Run,
)
from svdnet_jax.presets import PRESETS
from svdnet_jax.rules import check
from svdnet_jax.run import preflight
from svdnet_jax.settings import differences, from_json, to_json


def with_penalty(rri=None, **values):
    return Run(loss=Loss(penalty=Penalty(**values)), rri=rri or RRI())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_know_their_name(name):
    preflight(PRESETS[name])
    assert PRESETS[name].preset == name


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Run(data=Data(batch_size=1)), "--data.batch-size 1: must be 2 or more"),
        (
            Run(log_every=30, checkpoint_every=100),
            "--checkpoint-every 100: must be a multiple of --log-every 30",
        ),
        (Run(model=Model(dropout=1.0)), r"--model.dropout 1.0: must be in \[0, 1\)"),
        (
            Run(optimizer=Optimizer(learning_rate=float("nan"))),
            "--optimizer.learning-rate nan: must be a finite number",
        ),
        (Run(rri=RRI(learning_rates=())), "--rri.learning-rates"),
        (Run(rri=RRI(rounds=-1)), "--rri.rounds -1: must be 0 or more"),
        (Run(seed=2**32), "--seed 4294967296: must be below"),
        (Run(model=Model(mean=(float("nan"), 0.0, 0.0))), "--model.mean nan: must be a finite number"),
        (Run(optimizer=Optimizer(weight_decay=float("inf"))), "--optimizer.weight-decay inf: must be a finite number"),
        (Run(base=Phase(steps=10, milestones=(12,))), "--base.milestones"),
        (Run(rri=RRI(relaxation=Phase(steps=0))), "--rri.relaxation.steps 0: must be 1 or more"),
        (Run(model=Model(backbone="vgg")), "--model.backbone vgg: unknown; choose one of mini"),
        (Run(model=Model(dim=100_000)), "--model.dim 100000: more outputs than"),
        (Run(model=Model(last_stride=1)), "--model.last-stride 1: only a ResNet"),
        (Run(model=Model(dim=0)), "--rri.rounds 4: must be 0 where --model.dim 0"),
        (
            Run(model=Model(mean=(1.0, 2.0, 3.0), mean_image=True)),
            "must be left out where --model.mean-image",
        ),
        (Run(model=Model(neck="batchnorm", batch_norm="frozen")), "--model.neck batchnorm: must be none with"),
        (Run(data=Data(erase=1.5)), "--data.erase 1.5"),
        (Run(data=Data(crop_padding=-1)), "--data.crop-padding -1"),
        (Run(loss=Loss(smoothing=1.0)), "--loss.smoothing 1.0"),
        (Run(loss=Loss(margin=-0.1)), "--loss.margin -0.1"),
        (Run(model=Model(std=(1.0, 0.0, 1.0))), "--model.std"),
        (Run(model=Model(eigenlayer_std=0.0)), "--model.eigenlayer-std 0.0"),
        (Run(data=Data(batch_size=64, per_identity=5)), "--data.per-identity 5: must be a divisor of"),
        (Run(loss=Loss(triplet="soft")), "--loss.triplet soft: must be none unless --data.per-identity"),
        (Run(rri=RRI(final=Phase(steps=5))), "--rri.final.steps 5: must be given with --rri.stop never"),
        (with_penalty(kind="soft"), "--loss.penalty.weight 0.0: must be positive with, and 0 without"),
        (with_penalty(weight=0.1), "--loss.penalty.weight 0.1: must be positive with, and 0 without"),
        (with_penalty(scale="columns"), "--loss.penalty.scale columns: must be none without"),
        (with_penalty(features=-1.0), "--loss.penalty.features -1.0: must be 0 or more"),
        (with_penalty(begin="rounds"), "--loss.penalty.begin rounds: must be start unless"),
        (with_penalty(RRI(rounds=0), features=1.0, begin="rounds"), "--loss.penalty.begin rounds: must be start"),
        (
            with_penalty(RRI(relaxation=Phase(9, freeze=("eigen*",))), kind="srip", weight=1.0, begin="rounds"),
            "--loss.penalty.kind srip: must be none where every phase that it acts in freezes",
        ),
        (Run(rri=RRI(method="u", rotate_classifier=True)), "--rri.rotate-classifier True: must be left out unless"),
        (Run(base=Phase(steps=9, warmup=10)), "--base.warmup 10: must be 0 to the 9 steps"),
        (Run(base=Phase(steps=9, multipliers=(("*", 0.0),))), "--base.multipliers"),
        (Run(base=Phase(steps=9, freeze=("eigenlayr/*",))), "'eigenlayr/\\*' matches no weight; there are"),
        (Run(base=Phase(steps=9, freeze=("*",))), "leave no weight to train"),
    ],
)
def test_impossible_settings_are_refused_by_name(bad, message):
    with pytest.raises(ConfigError, match=message):
        preflight(bad)


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name):
    config = dataclasses.replace(PRESETS[name], out=Path("somewhere"), data=Data(root=Path("x"), layout="manifest"))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_settings_of_an_older_version_get_the_defaults():
    assert from_json({"preset": "synthetic", "model": {"dim": 7}}) == Run(model=Model(dim=7))


def test_settings_of_something_else_are_refused():
    with pytest.raises(ConfigError, match="dim"):
        from_json({"model": {"dim": "wide"}})


def test_differences_name_the_options():
    old = Run()
    new = dataclasses.replace(old, seed=3, rri=dataclasses.replace(old.rri, rounds=9), data=Data(root=Path("x")))
    assert differences(to_json(old), to_json(old)) == []
    found = differences(to_json(old), to_json(new))
    assert "seed: 0 -> 3" in found
    assert f"rri.rounds: {old.rri.rounds} -> 9" in found
    assert "data.root: None -> x" in found


def test_penalties_have_the_names_of_their_functions():
    kinds, scales = (get_args(get_type_hints(Penalty)[name]) for name in ("kind", "scale"))
    assert kinds == ("none", *get_args(orthogonality.Penalty))
    assert scales == get_args(orthogonality.Scale)


def test_folder_is_named_by_the_preset():
    check(Run())
    assert Run().folder == Path("runs/synthetic")
    assert Run(data=Data(root=Path("a/Market-1.5"))).folder == Path("runs/Market-1.5")
    assert Run(data=Data(root=Path("a/mine.csv"))).folder == Path("runs/mine")
    assert Run(preset="tiny", data=Data(root=Path("a/Market"))).folder == Path("runs/Market-tiny")
    assert Run(out=Path("a")).folder == Path("a")
