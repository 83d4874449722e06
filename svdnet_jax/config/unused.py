"""Settings that were typed and change nothing beside the others: whoever gives one believes that it acts."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError


def refuse_unused(config: Config) -> None:
    """Refuses settings that differ from the preset's and have no effect.

    For what somebody has typed. Settings that are worked out from others, such as those of a control or of fewer
    rounds, keep what their run has; so does a run without rounds, which a later one may begin from.

    Args:
        config: Settings, with the name of the preset that they change.

    Raises:
        ConfigError: Names the first such setting, and what it needs.
    """
    typed, preset = asdict(config), asdict(PRESETS.get(config.preset, Config()))
    for name, acts, needs in _effects(config):
        value = _at(typed, name)
        if not acts and value != _at(preset, name):
            raise ConfigError(f"`{name}` {value}: has no effect unless {needs}; leave it out, or give that too")


def _effects(config: Config) -> Iterator[tuple[str, bool, str]]:
    """Yields names of settings, whether they act, and what they need for it."""
    data, model, rri, machines = config.data, config.model, config.rri, config.machines
    yield "loss.margin", config.loss.triplet == "margin", "`loss.triplet` is margin"
    yield "optimizer.momentum", config.optimizer.method == "sgd", "`optimizer.method` is sgd"
    yield "model.eigenlayer_std", model.embedding_dim > 0, "there is an Eigenlayer (`model.embedding_dim`)"
    yield "data.camera_pattern", data.root is not None, "`data.root` is given"
    yield "data.combine_all", bool(data.more), "`data.more` is given"
    yield "data.split", data.root is not None, "`data.root` is given"
    needed = "`model.weights` is the folder of a run, and there is an Eigenlayer (`model.embedding_dim`)"
    yield "model.keep_eigenlayer", model.weights is not None and model.embedding_dim > 0, needed
    yield "data.layout", data.root is not None, "`data.root` is given"
    for name in asdict(data.synthetic):
        yield f"data.synthetic.{name}", data.root is None, "`data.root` is left out"
    for name in ("process", "timeout"):
        yield f"machines.{name}", machines.coordinator is not None, "`machines.coordinator` is given"
    if rri.rounds:
        needed = f"`rri.rounds` is {len(rri.learning_rates)} or more (it is {rri.rounds})"
        yield "rri.learning_rates", len(rri.learning_rates) <= rri.rounds, needed
        yield "rri.unmatched_rounds", rri.match, "`rri.match` is left on"
        needed = f"`rri.rounds` is as large (it is {rri.rounds})"
        yield "rri.unmatched_rounds", rri.unmatched_rounds <= rri.rounds, needed
        yield "rri.tolerance", rri.stop == "stable", "`rri.stop` is stable"


def _at(settings: dict[str, Any], name: str) -> Any:
    """Returns the value under a name with dots."""
    value: Any = settings
    for part in name.split("."):
        value = value[part]
    return value
