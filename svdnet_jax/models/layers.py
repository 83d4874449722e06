"""Layers of residual networks whose gradients read as little as they can: on accelerators memory is what they wait for.

Values are those of the plain layers, and so are gradients but for the order of sums.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from svdnet_jax.errors import ConfigError

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Rows of -inf before the first and after the last, then columns."""
Pool = Callable[[Float[Array, "N H W C"], Padding], Float[Array, "N h w C"]]
"""`max_pool` or `padded_max_pool`."""


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Float[Array, "N H W C"], padding: Padding) -> Float[Array, "N h w C"]:
    """Takes maxima of 3x3 windows two pixels apart; the gradient of each goes to the first of its largest pixels.

    Args:
        x: Feature map.
        padding: Of -inf.
    """
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def _max_pool_forth(x: Array, padding: Padding) -> tuple[Array, Any]:
    """Returns the maxima and where in its window each is, in a byte: all that the gradient needs."""
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    height, width = ((size - 3) // 2 + 1 for size in padded.shape[1:3])
    largest = padded[:, : 2 * height : 2, : 2 * width : 2]
    place = jnp.zeros(largest.shape, jnp.int8)
    for number, (i, j) in enumerate(np.ndindex(3, 3)):
        pixels = padded[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        place = jnp.where(pixels > largest, jnp.int8(number), place)
        largest = jnp.maximum(largest, pixels)
    return largest, (place, x.shape[1:3])


def _max_pool_back(padding: Padding, kept: Any, gradient: Array) -> tuple[Array]:
    place, size = kept
    total = jnp.zeros((len(place), *size, place.shape[3]), gradient.dtype)
    for number, offsets in enumerate(np.ndindex(3, 3)):
        # Each pixel of the result to its own place among the pixels of the map, with one between any two.
        edges = []
        for offset, pair, many, whole in zip(offsets, padding, place.shape[1:3], size, strict=True):
            before = offset - pair[0]
            edges.append((before, whole - (2 * many - 1) - before, 1))
        here = jnp.where(place == number, gradient, jnp.zeros_like(gradient))
        total += jax.lax.pad(here, jnp.zeros((), gradient.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    return (total,)


max_pool.defvjp(_max_pool_forth, _max_pool_back)


def padded_max_pool(x: Float[Array, "N H W C"], padding: Padding) -> Float[Array, "N h w C"]:
    """Computes the same, padded first: jax2onnx (0.13 to 0.17) takes such padding of Flax's pooling for none."""
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    return nn.max_pool(padded, window_shape=(3, 3), strides=(2, 2), padding="VALID")


def caffe_max_pool(x: Float[Array, "N H W C"], pool: Pool = max_pool) -> Float[Array, "N h w C"]:
    """Takes maxima of 3x3 windows two pixels apart, without padding; the last may hang over the border.

    The height is ceil((H - 3) / 2) + 1, and so the width (Caffe, ``pooling_layer.cpp``); other libraries round down
    and drop the last row and column of even sizes.

    Raises:
        ConfigError: The images are smaller than two pixels, so that no window fits.
    """
    height, width = x.shape[1:3]
    if min(height, width) < 2:
        raise ConfigError(
            f"`data.height`, `data.width`: too small, a feature map of {height} x {width} is left where a pooling "
            "needs 2 x 2 or more; use larger images"
        )
    # Odd sizes are covered exactly; even ones need one more row or column, of -inf, after the last.
    return pool(x, ((0, 1 - height % 2), (0, 1 - width % 2)))


def halve(x: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
    """Takes means of 2x2 windows; a last row or column without a partner is dropped."""
    n, height, width, channels = x.shape
    windows = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    return jnp.mean(windows, axis=(2, 4))


def relu(x: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Returns max(x, 0); on accelerators its gradient looks at the result, so that what goes in need not be kept."""
    return nn.relu(x) if jax.default_backend() == "cpu" else _relu(x)


@jax.custom_vjp
def _relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


def _relu_forth(x: Array) -> tuple[Array, Array]:
    y = _relu(x)
    return y, y


def _relu_back(y: Array, gradient: Array) -> tuple[Array]:
    # Not y > 0, which XLA makes x > 0 of, and then keeps x beside y.
    return (jnp.where(y != 0, gradient, jnp.zeros_like(gradient)),)


_relu.defvjp(_relu_forth, _relu_back)


@jax.custom_vjp
def add_shift(x: Float[Array, "N H W C"], shift: Float[Array, " C"]) -> Float[Array, "N H W C"]:
    """Returns the map with a number added to each channel, in the map's type; the shift's gradient has its own."""
    return x + shift[None, None, None].astype(x.dtype)


def _add_shift_forth(x: Array, shift: Array) -> tuple[Array, Array]:
    return add_shift(x, shift), jnp.zeros((), shift.dtype)


def _add_shift_back(like: Array, gradient: Array) -> tuple[Array, Array]:
    return gradient, jnp.sum(gradient, axis=(0, 1, 2), dtype=like.dtype)


add_shift.defvjp(_add_shift_forth, _add_shift_back)
