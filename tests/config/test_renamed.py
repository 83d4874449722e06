"""Settings that have changed their name: what was stored before is read, options of before work with a notice."""

import dataclasses

import pytest

from svdnet_jax.cli.train import parse
from svdnet_jax.config.names import setting_names
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.serialize import ADDED, RENAMED, diff, from_json, to_json, with_current_options
from svdnet_jax.errors import ConfigError


def as_before(settings):
    """A config.json as version 0.1 wrote it."""
    for old, new in RENAMED.items():
        section, name = old.split(".")
        settings[section][name] = settings[section].pop(new.split(".")[1])
    return settings


@pytest.mark.parametrize("preset", PRESETS)
def test_stored_settings_of_before_are_read_and_are_not_others(preset):
    config = PRESETS[preset]
    before = as_before(to_json(config))
    assert from_json(before) == config
    assert diff(before, to_json(config)) == []
    # A real difference shows under the name that the setting has now.
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, embedding_dim=7))
    assert diff(before, to_json(wider)) == [f"model.embedding_dim: {config.model.embedding_dim} -> 7"]
    assert diff({"settings": before}, {"settings": to_json(config)}) == []


def test_settings_that_older_runs_do_not_have_are_what_they_did():
    config = PRESETS["tiny"]
    before = to_json(config)
    for name in ADDED:
        section, name = name.split(".")
        del before[section][name]
    assert diff(before, to_json(config)) == []
    joined = dataclasses.replace(config, data=dataclasses.replace(config.data, more=("B",), combine_all=True))
    assert diff(before, to_json(joined)) == ["data.combine_all: False -> True", "data.more: [] -> ['B']"]


@pytest.mark.parametrize("other", [[], None, 3, "tiny"])
def test_what_is_no_settings_at_all_is_refused(other):
    with pytest.raises(ConfigError, match="expected the settings of a run, found"):
        from_json(other)


def test_new_names_are_settings_and_old_ones_are_not():
    assert set(RENAMED.values()) <= setting_names()
    assert not set(RENAMED) & setting_names()


def test_options_of_before_work_with_a_notice():
    typed = ["--preset", "tiny", "--model.dim", "7", "--optimizer.accumulate=2", "--model.recompute", "--seed", "3"]
    arguments, notices = with_current_options(typed)
    assert len(notices) == 3
    assert notices[0] == "note: --model.dim is now --model.embedding-dim; the old name will go with version 0.3"
    config = parse(arguments, "svdnet train", PRESETS["tiny"])
    assert (config.model.embedding_dim, config.optimizer.grad_accum_steps, config.model.remat) == (7, 2, True)
    assert with_current_options(["--model.no-recompute"])[0] == ["--model.no-remat"]
    assert with_current_options(["--data.per_identity", "4"])[0] == ["--data.num-instances", "4"]
    assert with_current_options(["--rri.method", "us"]) == (["--rri.method", "us"], [])
