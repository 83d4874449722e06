"""From a split to batches: which images when, in the size that the network sees.

The order of samples is a pure function of seed and position, so the position of the stream is the optimiser
step and resuming needs no state of its own.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from svdnet_jax.config import Data
from svdnet_jax.data.order import Order, by_identity, shuffled
from svdnet_jax.data.splits import Split, labels


class Batch(NamedTuple):
    """Images of one optimiser step."""

    images: UInt8[Array, "N H W 3"]
    labels: Int[Array, " N"]
    """Class numbers of the identities, 0 .. K-1."""


def sample_order(split: Split, settings: Data, seed: int) -> Order:
    """Which images make the batch of each step: all in turn, or so many of each identity."""
    if settings.per_identity:
        return by_identity(labels(split.pids)[0], settings.batch_size, settings.per_identity, seed)
    return shuffled(len(split), settings.batch_size, seed)


def batches(split: Split, settings: Data, seed: int, start: int) -> Iterator[Batch]:
    """Endless batches from optimiser step ``start`` on, gathered in host memory and put on the device.

    Raises:
        ConfigError: Batches cannot be divided into identities.
        DataError: Too few identities for a batch.
    """
    classes, _ = labels(split.pids)
    order = sample_order(split, settings, seed)

    def batch(step: int) -> Batch:
        positions = order(step)
        return Batch(*jax.device_put((split.images[positions], classes[positions])))

    return map(batch, count(start))


def mean_image(images: UInt8[np.ndarray, "N h w 3"], size: tuple[int, int], block: int = 1024) -> Float[Array, "H W 3"]:
    """Mean of all images at each pixel, in the size that the network sees."""
    total = np.zeros(images.shape[1:])
    for start in range(0, len(images), block):
        total += images[start : start + block].sum(axis=0, dtype=np.int64)
    # Interpolation is linear: the mean of resized images is the resized mean.
    return jax.image.resize(jnp.asarray(total / len(images), jnp.float32), (*size, 3), "linear")


def resize(images: UInt8[Array, "N h w 3"], size: tuple[int, int]) -> Float[Array, "N H W 3"]:
    """Bytes as numbers in [0, 255], squashed to height and width ``size`` by linear interpolation."""
    x = images.astype(jnp.float32)
    return x if x.shape[1:3] == size else jax.image.resize(x, (x.shape[0], *size, 3), "linear")
