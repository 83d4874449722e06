"""The presets of published recipes: what is trained when and at which rate, from the authors' files."""

import functools
import re
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Data, Eval, Loss, Model, Optimizer
from svdnet_jax.models.svdnet import create_model, parameter_paths
from svdnet_jax.training.optimizer import FROZEN, Group, weight_groups
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import init_state

DECAY = 5e-4


@functools.cache
def shapes(name):
    config = PRESETS[name]
    model = create_model(config.model, 751)
    return jax.eval_shape(lambda: init_state(model, (config.data.height, config.data.width), 0)).params


def groups(name, phase):
    """Group by path in a phase of a preset."""
    config = PRESETS[name]
    found = weight_groups(shapes(name), phase, config.optimizer)
    return dict(
        zip(parameter_paths(shapes(name)), jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, Group)), strict=True)
    )


def schedule(name):
    return [
        (p.kind, p.round, p.settings.steps, p.learning_rate, p.settings.milestones)
        for p in build_schedule(PRESETS[name])
    ]


def test_paper_resnet50_has_the_authors_schedule():
    expected = [("base", 0, 25_000, 1e-3, (10_000, 20_000))]
    for number, rate in enumerate([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4], start=1):
        expected += [("restraint", number, 8_000, rate, (5_000,)), ("relaxation", number, 8_000, rate, (5_000,))]
    assert schedule("paper-resnet50") == expected


def test_the_papers_inputs_and_heads():
    assert PRESETS["paper-resnet50"].data == Data(height=224, width=224, batch_size=32, flip=True)
    assert PRESETS["paper-resnet50"].model == Model(
        backbone="resnet50",
        layout="caffe",
        last_stride=2,
        embedding_dim=1024,
        eigenlayer_std=0.01,
        dropout=0.5,
        batch_norm="frozen",
        mean_image=True,
    )
    assert PRESETS["paper-caffenet"].data == Data(height=227, width=227, batch_size=128, flip=True)
    assert PRESETS["paper-caffenet"].model == Model(
        backbone="caffenet", embedding_dim=1024, eigenlayer_std=0.005, dropout=0.5, std=(1.0, 1.0, 1.0), mean_image=True
    )
    for name in ("paper-resnet50", "paper-caffenet"):
        config = PRESETS[name]
        assert (config.loss, config.eval) == (Loss(), Eval())
        assert (config.optimizer.method, config.optimizer.momentum, config.rri.method) == ("sgd", 0.9, "us")
        assert config.rri.match


def test_paper_resnet50_trains_what_the_authors_train():
    config = PRESETS["paper-resnet50"]
    assert (config.data.height, config.data.width, config.data.batch_size) == (224, 224, 32)
    assert shapes("paper-resnet50")["eigenlayer"]["kernel"].shape == (2048, 1024)
    base = groups("paper-resnet50", config.base)
    assert base.pop("classifier/bias") == Group(2.0, 0.0)
    assert set(base.values()) == {Group(1.0, DECAY)}
    restraint = groups("paper-resnet50", config.rri.restraint)
    assert [path for path, group in restraint.items() if group == FROZEN] == ["eigenlayer/kernel"]
    relaxation = groups("paper-resnet50", config.rri.relaxation)
    trained = {path for path, group in relaxation.items() if group != FROZEN}
    # conv1, res2 and every BatchNorm rest: what moves is the convolutions of res3 to res5 and the layers above.
    convolutions = {path for path in trained if path.startswith("backbone/")}
    assert trained - convolutions == {"eigenlayer/kernel", "classifier/kernel", "classifier/bias"}
    assert all(re.fullmatch(r"backbone/stage[234]_block\d/(conv[123]|shortcut)/kernel", path) for path in convolutions)
    assert len(convolutions) == (4 + 6 + 3) * 3 + 3


def test_paper_caffenet_has_the_authors_schedule():
    found = schedule("paper-caffenet")
    assert found[0] == ("base", 0, 15_000, 1e-3, (10_000,))
    assert [p[:4] for p in found[1:-1]] == [
        (kind, number, 2_000, 1e-3) for number in range(1, 26) for kind in ("restraint", "relaxation")
    ][:-1]
    assert found[-1] == ("final", 25, 6_000, 1e-3, (3_000,))
    assert PRESETS["paper-caffenet"].rri.unmatched_rounds == 6


def test_paper_caffenet_trains_what_the_authors_train():
    config = PRESETS["paper-caffenet"]
    assert shapes("paper-caffenet")["backbone"]["fc6"]["kernel"].shape == (256 * 6 * 6, 4096)
    for phase, fc6 in (
        (config.base, 0.5),
        (config.rri.relaxation, 0.5),
        (config.rri.restraint, 1.0),
        (config.rri.final, 1.0),
    ):
        found = groups("paper-caffenet", phase)
        assert found["backbone/fc6/kernel"] == Group(fc6, DECAY)
        assert found["backbone/fc6/bias"] == Group(2 * fc6, 0.0)
        assert found["backbone/conv1/kernel"] == found["classifier/kernel"] == Group(1.0, DECAY)
        assert found["backbone/conv1/bias"] == found["classifier/bias"] == Group(2.0, 0.0)
        assert (found["eigenlayer/kernel"] == FROZEN) == (phase in (config.rri.restraint, config.rri.final))


def test_short_resnet50_differs_from_the_paper_in_the_schedule_only():
    short, paper = PRESETS["short-resnet50"], PRESETS["paper-resnet50"]
    assert (short.data, short.model, short.optimizer, short.loss) == (
        paper.data,
        paper.model,
        paper.optimizer,
        paper.loss,
    )
    assert sum(p[2] for p in schedule("short-resnet50")) == 13_000
    assert sum(p[2] for p in schedule("paper-resnet50")) == 137_000
    for kind in ("restraint", "relaxation"):
        ours, theirs = getattr(short.rri, kind), getattr(paper.rri, kind)
        assert (ours.freeze, ours.multipliers) == (theirs.freeze, theirs.multipliers)


def test_cpu_resnet50_trains_nothing_below_the_second_stage():
    config = PRESETS["cpu-resnet50"]
    assert replace(config.data, height=224, width=224) == PRESETS["paper-resnet50"].data
    assert sum(p[2] for p in schedule("cpu-resnet50")) == 1_800 + 3 * 600
    for phase in (config.base, config.rri.restraint, config.rri.relaxation):
        found = groups("cpu-resnet50", phase)
        low = [name for name in found if re.match("backbone/(stem|bn_stem|stage1_)", name)]
        assert len(low) == 3 + 3 * 9 + 3
        assert all(found[name] == FROZEN for name in low)
        assert found["backbone/stage2_block1/conv1/kernel"] == Group(1.0, DECAY)


def test_modern_resnet50_is_the_strong_baseline():
    config = PRESETS["modern-resnet50"]
    assert config.data == Data(
        height=256, width=128, batch_size=64, num_instances=4, flip=True, crop_padding=10, erase_prob=0.5
    )
    assert config.model == Model(
        backbone="resnet50",
        layout="torchvision",
        last_stride=1,
        neck="batchnorm",
        embedding_dim=0,
        dropout=0.0,
        classifier_bias=False,
        batch_norm="batch",
    )
    assert config.loss == Loss(label_smoothing=0.1, triplet="margin", margin=0.3)
    assert config.optimizer == Optimizer(method="adam", learning_rate=3.5e-4, weight_decay=5e-4, no_decay=())
    assert config.eval.metric == "cosine"
    params = shapes("modern-resnet50")
    assert "eigenlayer" not in params
    assert set(params["classifier"]) == {"kernel"}
    assert set(params["neck"]) == {"scale"}
    assert set(groups("modern-resnet50", config.base).values()) == {Group(1.0, DECAY)}
    (only,) = build_schedule(config)
    epoch = 185
    rates = {0: 3.5e-6, 5: 3.5e-4 * 0.505, 10: 3.5e-4, 39: 3.5e-4, 40: 3.5e-5, 70: 3.5e-6, 119: 3.5e-6}
    assert {e: only.learning_rate_at(e * epoch) for e in rates} == pytest.approx(rates)
    assert only.settings.steps == 120 * epoch
    assert "eigenlayer" in shapes("modern-resnet50-rri")


def test_every_preset_has_its_row_in_the_recipes():
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == sorted(PRESETS)
