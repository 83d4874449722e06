"""What was typed acts, or is refused."""

import dataclasses
from pathlib import Path

import pytest

from svdnet_jax.cli.train import main
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import RRI, Config, Data, Loss, Machines, Model, Optimizer, Synthetic
from svdnet_jax.config.unused import refuse_unused
from svdnet_jax.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_pass_with_other_rounds_of_zero_and_data(name):
    preset = PRESETS[name]
    refuse_unused(preset)
    refuse_unused(dataclasses.replace(preset, rri=dataclasses.replace(preset.rri, rounds=1)))
    refuse_unused(dataclasses.replace(preset, data=dataclasses.replace(preset.data, root=Path("x"), layout="manifest")))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(loss=Loss(margin=0.5)), "`loss.margin` 0.5: has no effect unless `loss.triplet` is margin; leave it"),
        (Config(loss=Loss(triplet="soft", margin=0.5)), "`loss.margin`"),
        (Config(optimizer=Optimizer(method="adam", momentum=0.8)), "`optimizer.momentum` 0.8: .* `optimizer.method`"),
        (Config(rri=RRI(rounds=2, learning_rates=(3.0, 2.0, 1.0))), r"`rri.learning_rates` \(3.0, .* is 3 or more"),
        (Config(rri=RRI(unmatched_rounds=5)), r"`rri.unmatched_rounds` 5: .* as large \(it is 4\)"),
        (Config(rri=RRI(unmatched_rounds=2, match=False)), "`rri.unmatched_rounds` 2: .* `rri.match` is left on"),
        (Config(rri=RRI(tolerance=0.1, stop="never")), "`rri.tolerance` 0.1: .* `rri.stop` is stable"),
        (Config(data=Data(root=Path("x"), synthetic=Synthetic(junk=3))), "`data.synthetic.junk` 3: .* `data.root`"),
        (Config(data=Data(layout="msmt17")), "`data.layout` msmt17: has no effect unless `data.root` is given"),
        (Config(data=Data(split="train")), "`data.split` train: has no effect unless `data.root` is given"),
        (Config(data=Data(combine_all=True)), "`data.combine_all` True: has no effect unless `data.more` is given"),
        (Config(machines=Machines(timeout=9)), "`machines.timeout` 9: .* `machines.coordinator` is given"),
        (Config(model=Model(embedding_dim=0, eigenlayer_std=1.0), rri=RRI(rounds=0)), "`model.eigenlayer_std` 1.0"),
    ],
)
def test_settings_without_effect_are_refused_with_what_they_need(config, message):
    with pytest.raises(ConfigError, match=message):
        refuse_unused(config)


def test_a_run_without_rounds_keeps_the_settings_of_the_rounds_that_may_follow():
    refuse_unused(Config(rri=RRI(rounds=0, learning_rates=(3.0, 2.0), unmatched_rounds=1, tolerance=0.1)))


def test_the_command_refuses_before_it_makes_a_folder(tmp_path, capsys):
    assert main(["--loss.margin", "0.5", "--out", str(tmp_path / "run")]) == 2
    assert "error: --loss.margin 0.5: has no effect unless --loss.triplet is margin" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
