"""Runs: training from settings to report, the folder that a run leaves behind, and what is done with finished ones."""

from typing import TYPE_CHECKING

from svdnet_jax.lazy import lazy_names

if TYPE_CHECKING:
    from svdnet_jax.config.presets import PRESETS as PRESETS
    from svdnet_jax.config.schema import Config as Config
    from svdnet_jax.runs.load import TrainedRun as TrainedRun
    from svdnet_jax.runs.load import load_run as load_run
    from svdnet_jax.runs.training import train as train

_HOMES = {
    "Config": "svdnet_jax.config.schema",
    "PRESETS": "svdnet_jax.config.presets",
    "TrainedRun": "svdnet_jax.runs.load",
    "load_run": "svdnet_jax.runs.load",
    "train": "svdnet_jax.runs.training",
}
__all__ = [*_HOMES]
__getattr__ = lazy_names(__name__, _HOMES)
