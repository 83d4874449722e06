"""A run that takes its Step 0 from another one ends as if it had trained it itself; none that does not fit is taken."""

import dataclasses

import jax
import numpy as np
import pytest
import short_run
from rich.console import Console

from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.reporting.log import read_log
from svdnet_jax.retrieval import Embeddings
from svdnet_jax.runs.base_run import after_base_run, read_base_run
from svdnet_jax.runs.load import load_run
from svdnet_jax.runs.training import preflight, train

pytestmark = pytest.mark.unoptimized

CLOCK = ("images_per_second", "seconds")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def short(tiny):
    """The tiny preset with one short round, on one device."""
    return dataclasses.replace(short_run.of(tiny), parallel="single")


@pytest.fixture(scope="module")
def base(short, workshop):
    config = dataclasses.replace(short, out=workshop / "step-zero", rri=dataclasses.replace(short.rri, rounds=0))
    return train(config, QUIET, report=False)


@pytest.fixture(scope="module")
def continued(short, base, workshop):
    """The run that takes its Step 0 from `base`."""
    return train(dataclasses.replace(short, base_from=base, out=workshop / "continued"), QUIET, report=False)


def timeless(folder):
    return [{k: v for k, v in r.items() if k not in CLOCK} for r in read_log(folder / "metrics.jsonl")]


def test_it_ends_like_the_unbroken_run(short, continued, tmp_path):
    whole = train(dataclasses.replace(short, out=tmp_path / "whole"), QUIET, report=False)
    assert timeless(continued) == timeless(whole)
    states = [load_run(folder).state for folder in (whole, continued)]
    states = [jax.tree.map(np.asarray, s.replace(rng=jax.random.key_data(s.rng))) for s in states]
    jax.tree.map(np.testing.assert_array_equal, *states)
    for name in ("embedding", "pooled"):
        for side in ("query", "gallery"):
            kept = [Embeddings.load(f / "embeddings" / "base" / name / f"{side}.npz") for f in (whole, continued)]
            np.testing.assert_array_equal(kept[0].features, kept[1].features)
            assert kept[0].model == kept[1].model
    steps = [sorted(path.name for path in (f / "checkpoints").glob("[0-9]*")) for f in (whole, continued)]
    assert steps[0] == steps[1], "the best checkpoint may be the one after Step 0"
    assert not (continued / "report.html").exists()


def test_another_step_0_is_refused_by_name(short, base):
    other = dataclasses.replace(short, base_from=base, seed=3, model=dataclasses.replace(short.model, embedding_dim=7))
    with pytest.raises(ConfigError, match="had other settings: model.embedding_dim: 128 -> 7; seed: 0 -> 3"):
        read_base_run(other)
    method = dataclasses.replace(short.rri, method="qd", learning_rates=(0.5,))
    zero = read_base_run(dataclasses.replace(short, base_from=base, rri=method))
    with pytest.raises(DataError, match="other images or identities"):
        after_base_run(zero, "0123456789abcdef", 12)


def test_only_a_finished_run_without_rounds_will_do(short, base, continued, tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        read_base_run(dataclasses.replace(short, base_from=tmp_path))
    with pytest.raises(ConfigError, match="`base_from` .*: must be left out with `rri.rounds` 0"):
        preflight(dataclasses.replace(short, base_from=base, rri=dataclasses.replace(short.rri, rounds=0)))
    with pytest.raises(ConfigError, match="has rounds of its own"):
        read_base_run(dataclasses.replace(short, base_from=continued))
