"""Batch loading: sampling, prefetching, resizing.

The order of samples is a pure function of seed and position, so the position of the stream is the optimizer
step and resuming needs no state of its own. It is the same on any number of devices and processes: each takes
its part of the same batch.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from svdnet_jax.config.schema import Data
from svdnet_jax.data.sampling import BatchSampler, pk_batches, shuffle_batches
from svdnet_jax.data.types import Split, labels
from svdnet_jax.distributed.mesh import MeshContext


class Batch(NamedTuple):
    """Images of one optimizer step."""

    images: UInt8[Array, "N h w 3"]
    """RGB bytes of any one size."""
    labels: Int[Array, " N"]
    """Class numbers of the identities, 0 .. K-1."""


def sample_order(split: Split, settings: Data, seed: int) -> BatchSampler:
    """Returns which images make the batch of each step: all in turn, or so many of each identity."""
    if settings.num_instances:
        return pk_batches(labels(split.pids)[0], settings.batch_size, settings.num_instances, seed)
    return shuffle_batches(len(split), settings.batch_size, seed)


Samples = Int[Array, "K ..."] | Batch
"""What K steps train on: positions in the store, or the images themselves, by step."""


class TrainLoader(NamedTuple):
    """Training images on their way to the steps."""

    device_data: Batch | None
    """All of them, on every device; None where they stay in host memory."""
    batches: Generator[Samples]
    """For each call of K steps what they train on; endless, made ahead. Close it at the end."""


def make_loader(
    split: Split, settings: Data, seed: int, start: int, steps: int, devices: MeshContext, *, resident: bool
) -> TrainLoader:
    """Batches from optimizer step ``start`` on, so many steps at a time; a function of position alone.

    Args:
        split: Training images.
        settings: Size of the batch, and how it is drawn.
        seed: Of the order.
        start: The first step.
        steps: Steps of a call (K).
        devices: Where arrays go.
        resident: Keep all images on the devices, so that a call takes nothing but positions.

    Raises:
        ConfigError: Batches cannot be divided into identities.
        DataError: Too few identities for a batch.
    """
    classes, _ = labels(split.pids)
    order = sample_order(split, settings, seed)
    # NumPy's arrays, so that none of it lies on the first device twice.
    whole: Any = (split.images, classes)
    store = devices.replicate(Batch(*whole)) if resident else None

    def read(source: np.ndarray, positions: np.ndarray) -> Array:
        where, rest = positions.ndim, source.shape[1:]
        return devices.make_global_array(positions.shape + rest, lambda index: source[positions[index[:where]]], 1)

    def samples(step: int) -> Samples:
        positions = devices.arrange(np.stack([order(s) for s in range(step, step + steps)]).astype(np.int32))
        if resident:
            return devices.make_global_array(positions.shape, lambda index: positions[index], 1)
        return Batch(read(split.images, positions), read(classes, positions))

    return TrainLoader(store, _ahead(samples, count(start, steps)))


def _ahead(make: Callable[[int], Samples], places: Iterator[int]) -> Generator[Samples]:
    """Yields what ``make`` gives for each place, made two places ahead in a thread while the devices work."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(make, next(places)) for _ in range(2))
        while True:
            made = waiting.popleft().result()
            waiting.append(pool.submit(make, next(places)))
            yield made


def mean_image(images: UInt8[np.ndarray, "N h w 3"], size: tuple[int, int], block: int = 1024) -> Float[Array, "H W 3"]:
    """Returns the mean of all images at each pixel, in the size that the network sees."""
    total = np.zeros(images.shape[1:])
    for start in range(0, len(images), block):
        total += images[start : start + block].sum(axis=0, dtype=np.int64)
    # Interpolation is linear: the mean of resized images is the resized mean.
    return jax.image.resize(jnp.asarray(total / len(images), jnp.float32), (*size, 3), "linear")


def resize(images: UInt8[Array, "N h w 3"] | Float[Array, "N h w 3"], size: tuple[int, int]) -> Float[Array, "N H W 3"]:
    """Bytes as numbers in [0, 255], squashed to height and width ``size`` by linear interpolation.

    `svdnet_jax.data.resizing.resize_image` does the same to one image outside of compiled programs.
    """
    x = images.astype(jnp.float32)
    return x if x.shape[1:3] == size else jax.image.resize(x, (x.shape[0], *size, 3), "linear")
