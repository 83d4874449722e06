"""Person re-identification with SVDNet, purely functional, in JAX and Flax.

The method is here; the rest is in `models`, `training`, `data`, `runs` and `retrieval`. What these packages name is the
public interface; everything else may change.
"""

from typing import TYPE_CHECKING

from svdnet_jax._version import __version__ as __version__
from svdnet_jax.lazy import lazy_names

if TYPE_CHECKING:
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

_HOMES = {
    "correlation": "svdnet_jax.eigenlayer",
    "data": "svdnet_jax.data",
    "decorrelate": "svdnet_jax.eigenlayer",
    "gram": "svdnet_jax.eigenlayer",
    "match_columns": "svdnet_jax.eigenlayer",
    "models": "svdnet_jax.models",
    "retrieval": "svdnet_jax.retrieval",
    "runs": "svdnet_jax.runs",
    "spectrum": "svdnet_jax.eigenlayer",
    "training": "svdnet_jax.training",
}
__all__ = [*_HOMES, "__version__"]
__getattr__ = lazy_names(__name__, _HOMES)
