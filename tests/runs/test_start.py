"""What a new run says of the weights that it starts from."""

import dataclasses
import io

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from svdnet_jax.config.unused import refuse_unused
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.runs import start
from svdnet_jax.runs.load import load_run
from svdnet_jax.training.init import as_pretrained, initial_state, with_weights
from svdnet_jax.training.state import init_state

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def config(tiny):
    return dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, weights="model.pth.tar-60"))


def said(config):
    """What reading the source of a run prints."""
    console = Console(file=io.StringIO(), width=200)
    start.read_source(config, console)
    return console.file.getvalue()


def test_what_was_left_out_of_a_checkpoint_is_said(config, monkeypatch, finished):
    weights = as_pretrained(load_run(finished).state, "model.pth.tar-60 01234567", (config.model.layout,))
    monkeypatch.setattr(start, "load_pretrained", lambda spec: weights._replace(note="left out: classifier (2)"))
    assert said(config) == "model.pth.tar-60 01234567: left out: classifier (2)\n"
    monkeypatch.setattr(start, "load_pretrained", lambda spec: weights)
    assert said(config) == ""


def from_run(tiny, folder, **settings):
    return dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, weights=str(folder), **settings))


def test_a_run_of_ours_says_that_the_eigenlayer_starts_anew(tiny, finished):
    config = from_run(tiny, finished)
    assert said(config).startswith(f"{finished}, step ")
    assert said(config).endswith(
        ": the Eigenlayer starts anew; `model.keep_eigenlayer` takes that of the run along, and its neck\n"
    )
    assert said(from_run(tiny, finished, embedding_dim=0)) == ""


@pytest.mark.parametrize("keep", [True, False])
def test_an_eigenlayer_goes_along_if_it_is_wanted(tiny, finished, dataset, keep):
    config = from_run(tiny, finished, keep_eigenlayer=keep)
    weights = start.read_source(config, Console(quiet=True))
    assert weights.source.endswith(", with its Eigenlayer") == keep
    old, new = load_run(finished).state, initial_state(config, dataset.train, weights)[1]
    chex.assert_trees_all_equal(new.params["backbone"], old.params["backbone"])
    assert np.array_equal(new.eigenlayer, old.eigenlayer) == keep
    assert not np.array_equal(new.params["classifier"]["kernel"], old.params["classifier"]["kernel"])


def test_a_neck_goes_along_with_its_statistics(tiny):
    config = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, neck="batchnorm", embedding_dim=4))
    model = create_model(config.model, num_classes=2)
    new = init_state(model, (config.data.height, config.data.width), 0)
    old = new.replace(**{kind: jax.tree.map(lambda x: x + 2, getattr(new, kind)) for kind in ("params", "batch_stats")})
    weights = as_pretrained(old, "a run", (config.model.layout,), keep_eigenlayer=True)
    found = with_weights(new, weights)
    chex.assert_trees_all_equal(found.batch_stats, old.batch_stats)
    for part in ("backbone", "neck", "eigenlayer"):
        chex.assert_trees_all_equal(found.params[part], old.params[part])
    chex.assert_trees_all_equal(found.params["classifier"], new.params["classifier"])
    assert jax.tree.structure(found.params) == jax.tree.structure(new.params)


@pytest.mark.parametrize(
    ("settings", "here"),
    [({"embedding_dim": 5}, r"Eigenlayer \(256, 5\) and no neck"), ({"neck": "batchnorm"}, "Eigenlayer .* and a neck")],
)
def test_an_eigenlayer_that_does_not_fit_is_refused(tiny, finished, settings, here):
    config = from_run(tiny, finished, keep_eigenlayer=True, **settings)
    message = rf"`model.keep_eigenlayer`: {finished}, .*: an Eigenlayer \(256, \d+\) and no neck, here an {here}; leave"
    with pytest.raises(ConfigError, match=message):
        start.read_source(config, Console(quiet=True))


def test_a_file_has_no_eigenlayer(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"`model.keep_eigenlayer`: .*x.pth is not the folder of a run"):
        start.read_source(from_run(tiny, tmp_path / "x.pth", keep_eigenlayer=True), Console(quiet=True))


def test_keeping_an_eigenlayer_of_nothing_has_no_effect(tiny):
    config = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, keep_eigenlayer=True))
    with pytest.raises(ConfigError, match="`model.keep_eigenlayer` True: has no effect unless `model.weights`"):
        refuse_unused(config)
