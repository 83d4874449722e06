"""Max pooling, and how Caffe rounds it."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.errors import ConfigError

Pool = Callable[[Float[Array, "N H W C"], Sequence[tuple[int, int]]], Float[Array, "N h w C"]]
"""`max_pool` or `padded_max_pool`."""


def max_pool(x: Float[Array, "N H W C"], padding: Sequence[tuple[int, int]]) -> Float[Array, "N h w C"]:
    """Takes maxima of 3x3 windows two pixels apart.

    Args:
        x: Feature map.
        padding: Rows of -inf before the first and after the last, then columns.
    """
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def padded_max_pool(x: Float[Array, "N H W C"], padding: Sequence[tuple[int, int]]) -> Float[Array, "N h w C"]:
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
