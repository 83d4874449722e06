"""What a new run says of the weights that it starts from."""

import dataclasses
import io

import pytest
from rich.console import Console

from svdnet_jax.models.svdnet import create_model
from svdnet_jax.runs import start
from svdnet_jax.training.init import as_pretrained
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


def test_what_was_left_out_of_a_checkpoint_is_said(config, monkeypatch):
    model = create_model(config.model, num_classes=2)
    state = init_state(model, (config.data.height, config.data.width), 0)
    weights = as_pretrained(state, "model.pth.tar-60 01234567", (config.model.layout,))
    monkeypatch.setattr(start, "load_pretrained", lambda spec: weights._replace(note="left out: classifier (2)"))
    assert said(config) == "model.pth.tar-60 01234567: left out: classifier (2)\n"
    monkeypatch.setattr(start, "load_pretrained", lambda spec: weights)
    assert said(config) == ""
