"""Runs: training from settings to report, the folder that a run leaves behind, and what is done with finished ones."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svdnet_jax.config.presets import PRESETS as PRESETS
    from svdnet_jax.config.schema import Run as Run
    from svdnet_jax.runs.load import TrainedRun as TrainedRun
    from svdnet_jax.runs.load import load_run as load_run
    from svdnet_jax.runs.training import train as train

_HOMES = {
    "PRESETS": "svdnet_jax.config.presets",
    "Run": "svdnet_jax.config.schema",
    "TrainedRun": "svdnet_jax.runs.load",
    "load_run": "svdnet_jax.runs.load",
    "train": "svdnet_jax.runs.training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: reading one file of a run must not import all of training."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
