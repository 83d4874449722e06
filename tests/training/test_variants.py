"""Whole runs of what the default does not have: neck, Adam and triplets, a final restraint, a mean image, bfloat16."""

import dataclasses

import jax
import numpy as np
import pytest
import short_run
from rich.console import Console

from svdnet_jax.config.schema import RRI, Eval, Loss, Model, Optimizer, Phase
from svdnet_jax.reporting.log import read_log
from svdnet_jax.runs.load import load_run
from svdnet_jax.runs.training import train

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def go(tiny, tmp_path):
    """Makes the short run with changes, on one device; its folder and its log."""

    def go(report=False, **changes):
        config = dataclasses.replace(short_run.of(tiny), out=tmp_path / "run", parallel="single", **changes)
        console = Console(record=True, width=100, quiet=True)
        # optax's Adam raises a float to an integer power, which JAX's strict mode refuses.
        with jax.numpy_dtype_promotion("standard"):
            train(config, console, report=report)
        return config.folder, read_log(config.folder / "metrics.jsonl")

    return go


def phases(records):
    return [(record["phase"], record["round"]) for record in records if record["event"] == "phase"]


@pytest.mark.slow  # each part has its own tests
def test_the_strong_baselines_parts_train_and_report(go, tiny):
    folder, records = go(
        report=True,
        data=dataclasses.replace(tiny.data, num_instances=4, erase_prob=0.5, crop_padding=2),
        model=Model(neck="batchnorm", embedding_dim=0, dropout=0.0, classifier_bias=False),
        loss=Loss(label_smoothing=0.1, triplet="soft"),
        optimizer=Optimizer(method="adam", learning_rate=1e-3, no_decay=()),
        rri=RRI(rounds=0),
        eval=Eval(metric="cosine"),
    )
    assert phases(records) == [("base", 0)]
    (last,) = [record for record in records if record["event"] == "phase"]
    assert last["embedding"] == last["pooled"]
    assert "S(W), Gram matrix and singular values are of the classifier" in (folder / "report.html").read_text()
    params = load_run(folder).state.params
    assert set(params) == {"backbone", "neck", "classifier"}
    assert set(params["classifier"]) == {"kernel"}


@pytest.mark.slow  # test_loop.py has the law with a smaller network
@pytest.mark.parametrize("method", ["us", "rotation"])
def test_a_classifier_that_turns_with_the_features_keeps_the_loss(go, tiny, method):
    _, records = go(rri=dataclasses.replace(short_run.of(tiny).rri, method=method, rotate_classifier=True))
    assert [record["round"] for record in records if record["event"] == "decorrelate"] == [1]
    for record in records:
        if record["event"] == "decorrelate":
            assert record["loss"]["after"] == pytest.approx(record["loss"]["before"], rel=1e-5)
            assert (record["correlation"]["after"] > 1 - 1e-5) == (method == "us")


@pytest.mark.slow  # test_loop.py has the order of phases; here with its report
def test_a_final_restraint_takes_the_place_of_the_last_relaxation(go):
    short = Phase(steps=4)
    frozen = Phase(steps=4, freeze=("eigenlayer/*",))
    settings = RRI(rounds=2, restraint=frozen, relaxation=short, final=frozen, stop="never")
    folder, records = go(report=True, rri=settings)
    assert phases(records) == [("base", 0), ("restraint", 1), ("relaxation", 1), ("restraint", 2), ("final", 2)]
    assert [record["round"] for record in records if record["event"] == "decorrelate"] == [1, 2]
    after = {record["phase"]: record["correlation"] for record in records if record["event"] == "phase"}
    assert after["restraint"] == after["final"] == pytest.approx(1, abs=1e-5)
    assert (folder / "report.html").exists()


@pytest.mark.slow  # test_init.py has the mean image, test_step.py that it is subtracted
def test_a_mean_image_is_subtracted_and_kept(go, dataset):
    folder, _ = go(model=Model(mean_image=True, std=(50.0, 50.0, 50.0)), rri=RRI(rounds=0))
    pixels = load_run(folder).state.pixels
    # As stored, 128 x 64, the mean is over more pixels; as seen it is that image made smaller.
    assert pixels["mean"].shape == (32, 16, 3)
    expected = dataset.train.images.astype(np.float64).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(np.asarray(pixels["mean"]).mean(axis=(0, 1)), expected, rtol=0.01)
    np.testing.assert_array_equal(np.asarray(pixels["std"]).ravel(), [50, 50, 50])


@pytest.mark.slow
def test_a_validation_split_keeps_the_test_set_out(go, tiny, dataset):
    _, records = go(data=dataclasses.replace(tiny.data, validation=4), rri=RRI(rounds=0))
    start = records[0]
    assert start["identities"] == 12 - 4
    assert start["train"] + start["query"] + start["gallery"] == len(dataset.train)
    assert start["dataset"].endswith("(validation: 4 of 12 training identities)")


@pytest.mark.slow  # each part has its own tests
def test_bfloat16_trains_float32_parameters(go):
    folder, records = go(model=Model(dtype="bfloat16"), rri=RRI(rounds=0))
    assert {leaf.dtype for leaf in jax.tree.leaves(load_run(folder).state.params)} == {np.dtype("float32")}
    losses = [record["loss"] for record in records if record["event"] == "step"]
    assert losses[-1] < losses[0]


def test_data_that_cannot_be_batched_by_identity_are_refused_before_training(tiny, tmp_path):
    data = dataclasses.replace(tiny.data, batch_size=64, num_instances=4)
    config = dataclasses.replace(tiny, out=tmp_path / "run", data=data)
    with pytest.raises(ValueError, match="puts 16 identities in a batch, and there are 12"):
        train(config, Console(quiet=True))
