"""From a split to batches: which images when, and what happens to them on the device.

The order of samples is a pure function of seed and position, so the position of the stream is the optimiser
step and resuming needs no state of its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from svdnet_jax.data.splits import Split, labels


class Batch(NamedTuple):
    """Images of one optimiser step."""

    images: UInt8[Array, "N H W 3"]
    labels: Int[Array, " N"]
    """Class numbers of the identities, 0 .. K-1."""


def sample_order(samples: int, batch_size: int, seed: int) -> grain.MapDataset:
    """Positions of the images of every batch: ``order[step]`` is an int array (batch_size,).

    Every image is drawn once an epoch, in a new order each epoch; a batch may reach across the end of one.
    """
    return grain.MapDataset.range(samples).seed(seed).shuffle().repeat().batch(batch_size)


def batches(split: Split, batch_size: int, seed: int, start: int) -> Iterator[Batch]:
    """Endless batches from optimiser step ``start`` on, gathered in host memory and put on the device."""
    classes, _ = labels(split.pids)
    order = sample_order(len(split), batch_size, seed)
    step = start
    while True:
        positions = order[step]
        yield jax.device_put(Batch(split.images[positions], classes[positions]))
        step += 1


def normalise(
    images: UInt8[Array, "N h w 3"],
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Array, "N H W 3"]:
    """Resizes bytes to what the network sees (height, width), subtracts the mean and divides by std."""
    x = images.astype(jnp.float32)
    if x.shape[1:3] != size:
        x = jax.image.resize(x, (x.shape[0], *size, 3), "linear")
    return (x - jnp.array(mean).reshape(1, 1, 1, 3)) / jnp.array(std).reshape(1, 1, 1, 3)


def random_flip(key: PRNGKeyArray, images: UInt8[Array, "N H W 3"]) -> UInt8[Array, "N H W 3"]:
    """Mirrors each image left to right with probability 1/2."""
    mirrored: Bool[Array, " N"] = jax.random.bernoulli(key, 0.5, images.shape[:1])
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
