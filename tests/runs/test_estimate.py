"""What no machine has the memory for is told before the run starts, with an estimate that errs on the low side."""

from dataclasses import replace

import jax
import pytest

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.runs import estimate
from svdnet_jax.training.state import init_state


def refuse(config, memory, monkeypatch, devices=1):
    monkeypatch.setattr(estimate, "memory_of", lambda _: memory)
    model = create_model(config.model, num_classes=2)
    state = jax.eval_shape(lambda: init_state(model, input_size(config.data), 0))
    estimate.refuse_too_large(config, model, state, jax.devices()[0], devices)


def large(batch_size=4096, **changes):
    config = PRESETS["paper-resnet50"]
    return replace(config, data=replace(config.data, batch_size=batch_size), **changes)


def test_a_batch_of_more_than_the_memory_is_refused_with_the_estimate(monkeypatch):
    with pytest.raises(ConfigError, match=r"`data.batch_size` 4096 at 224x224: needs \d{3}\.\d GB at least.*24.0 GB"):
        refuse(large(), 24 * 10**9, monkeypatch)


@pytest.mark.parametrize(
    "config",
    [
        large(64),
        large(4096, optimizer=replace(large().optimizer, grad_accum_steps=64)),
        large(4096, model=replace(large().model, remat=True)),
        Config(),
    ],
)
def test_what_may_fit_is_not_refused(config, monkeypatch):
    refuse(config, 24 * 10**9, monkeypatch)


def test_devices_share_the_batch_and_a_device_that_says_nothing_refuses_nothing(monkeypatch):
    refuse(large(), 24 * 10**9, monkeypatch, devices=64)
    refuse(large(), 0, monkeypatch)


def test_this_machine_says_what_it_has():
    assert 10**8 < estimate.memory_of(jax.devices()[0]) < 10**14
