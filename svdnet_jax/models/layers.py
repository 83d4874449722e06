"""Max pooling as Caffe rounds it."""

import flax.linen as nn
from jaxtyping import Array, Float

from svdnet_jax.errors import ConfigError


def caffe_max_pool(x: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
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
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((0, 1 - height % 2), (0, 1 - width % 2)))
