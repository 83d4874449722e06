"""Person re-identification with SVDNet, purely functional, in JAX and Flax.

The method is here; the rest is in `models`, `training`, `data`, `runs`, `retrieval` and `config`. What these packages
name is the public interface; everything else may change. Names are imported when they are first used, so that the help
of the command line need not import JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from svdnet_jax._version import __version__ as __version__

if TYPE_CHECKING:
    from svdnet_jax import config as config
    from svdnet_jax import data as data
    from svdnet_jax import models as models
    from svdnet_jax import retrieval as retrieval
    from svdnet_jax import runs as runs
    from svdnet_jax import training as training
    from svdnet_jax.eigenlayer import correlation as correlation
    from svdnet_jax.eigenlayer import decorrelate as decorrelate
    from svdnet_jax.eigenlayer import gram as gram
    from svdnet_jax.eigenlayer import match_columns as match_columns
    from svdnet_jax.eigenlayer import spectrum as spectrum
    from svdnet_jax.retrieval.embeddings import Embeddings as Embeddings
    from svdnet_jax.retrieval.metrics import evaluate as evaluate
    from svdnet_jax.retrieval.results import Report as Report

_NAMESPACES = ("config", "data", "models", "retrieval", "runs", "training")
_HOMES = {
    **dict.fromkeys(("correlation", "decorrelate", "gram", "match_columns", "spectrum"), "svdnet_jax.eigenlayer"),
    "Embeddings": "svdnet_jax.retrieval.embeddings",
    "evaluate": "svdnet_jax.retrieval.metrics",
    "Report": "svdnet_jax.retrieval.results",
}
__all__ = sorted([*_NAMESPACES, *_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used."""
    if name in _NAMESPACES:
        return import_module(f"svdnet_jax.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
