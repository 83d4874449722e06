"""Data sets to batches of decoded images."""

from typing import TYPE_CHECKING

from svdnet_jax.lazy import lazy_names

if TYPE_CHECKING:
    from svdnet_jax.data.reading import load_dataset as load_dataset
    from svdnet_jax.data.sampling import pk_batches as pk_batches
    from svdnet_jax.data.sampling import shuffle_batches as shuffle_batches
    from svdnet_jax.data.types import Dataset as Dataset
    from svdnet_jax.data.types import Split as Split

_HOMES = {
    "Dataset": "svdnet_jax.data.types",
    "Split": "svdnet_jax.data.types",
    "load_dataset": "svdnet_jax.data.reading",
    "pk_batches": "svdnet_jax.data.sampling",
    "shuffle_batches": "svdnet_jax.data.sampling",
}
__all__ = [*_HOMES]
__getattr__ = lazy_names(__name__, _HOMES)
