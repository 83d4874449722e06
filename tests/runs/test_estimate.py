"""What no machine has the memory for is told before the run starts, with an estimate that errs on the low side."""

import re
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


def told(config):
    model = create_model(config.model, num_classes=2)
    state = jax.eval_shape(lambda: init_state(model, input_size(config.data), 0))
    return estimate.tell_time(config, estimate.network_operations(config, model, state))


def test_the_time_of_a_long_run_is_told_and_grows_with_its_steps(monkeypatch):
    monkeypatch.setattr(estimate, "product_speed", lambda: 2e11)
    config = PRESETS["short-resnet50"]
    # 4.1 billion multiplications with as many additions an image of 224x224, three times, 13 000 steps of 32 images.
    days = 3 * 8.2e9 * 13_000 * 32 / (estimate.EFFICIENCY * 2e11) / 86_400
    assert 1.2 < days < 2
    assert told(config).startswith("About 1 d ")
    assert "13000 steps of 32 images" in told(config)
    endless = replace(config, rri=replace(config.rri, rounds=10**4))
    assert re.match(r"About \d+ years on this machine", told(endless))


def test_a_short_run_and_one_that_goes_on_from_step_0_are_told_less(monkeypatch, tmp_path):
    monkeypatch.setattr(estimate, "product_speed", lambda: 2e11)
    assert told(Config()) == ""
    config = PRESETS["short-resnet50"]
    assert "9000 steps" in told(replace(config, base_from=tmp_path))


def test_the_network_is_told_with_its_parts_and_operations():
    config = PRESETS["short-resnet50"]
    model = create_model(config.model, num_classes=751)
    state = jax.eval_shape(lambda: init_state(model, input_size(config.data), 0))
    line = estimate.tell_network(config, state.params, estimate.network_operations(config, model, state))
    # He et al. 2016: ResNet-50 has 25.6 million parameters, 2.05 of them of the classifier of ImageNet, and does 4.1
    # billion multiplications an image; 3.8 where the stride is in the 1x1, less those with the zeros around a map.
    whole, backbone, eigenlayer, classifier = (int(n.replace(",", "")) for n in re.findall(r"\d[\d,]+\d", line)[:4])
    assert eigenlayer == 2048 * 1024
    assert classifier == (1024 + 1) * 751
    assert backbone == pytest.approx(25.6e6 - 2.05e6, rel=0.01)
    assert whole == backbone + eigenlayer + classifier
    operations = float(re.search(r"; ([\d.]+) billion operations an image of 224 x 224", line)[1])
    assert 2 * 3.6 <= operations <= 2 * 3.8


def test_the_speed_of_a_product_is_measured():
    assert 1e8 < estimate.product_speed(256) < 1e16
