"""CaffeNet up to fc6, the smaller backbone of the paper: images in, a feature map of one pixel out.

Layers and first values are those of the authors' release (``caffenet/models/train_caffenet_linear.prototxt``); the
network is AlexNet (Krizhevsky et al. 2012) with pooling before normalisation.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.errors import ConfigError
from svdnet_jax.linalg import at_least_float32
from svdnet_jax.models.layers import Pool, caffe_max_pool, max_pool

SMALLEST = 39
"""Height and width below which nothing is left of an image at the last pooling."""


class CaffeNet(nn.Module):
    """Five convolutions and the fully connected fc6; ``fc6/kernel`` fixes the image size, 227 x 227 in the release.

    fc6 sees the last feature map flattened in the order row, column, channel; a kernel from Caffe or PyTorch, which
    flatten in the order channel, row, column, has to be permuted.
    """

    channels: int = 4096
    """Outputs of fc6 (C)."""
    dropout: float = 0.5
    """Share of outputs dropped while training, by the random stream ``dropout``."""
    frozen_statistics: bool = False
    """Without effect, as there is no BatchNorm; here because every backbone is built with it."""
    dtype: Any = jnp.float32
    """Of convolutions and activations; parameters stay in float32."""
    pool: Pool = max_pool

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Float[Array, "N 1 1 C"]:
        """Maps normalised images to the outputs of fc6 after ReLU and dropout.

        Raises:
            ConfigError: The images have fewer than 39 pixels in height or width.
        """
        if min(x.shape[1:3]) < SMALLEST:
            height, width = x.shape[1:3]
            raise ConfigError(
                f"`data.height` {height}, `data.width` {width}: too small for CaffeNet, which needs {SMALLEST} x "
                f"{SMALLEST} or more; the release has 227 x 227"
            )
        gaussian, constant = nn.initializers.normal, nn.initializers.constant
        conv = partial(nn.Conv, dtype=self.dtype, kernel_init=gaussian(0.01))
        # Two groups, once one for each of two GPUs. A bias of one keeps the ReLU behind it open at first.
        grouped = partial(conv, feature_group_count=2, bias_init=constant(1.0))
        x = nn.relu(conv(96, (11, 11), strides=4, padding=0, name="conv1")(x))
        x = local_response_norm(caffe_max_pool(x, self.pool))
        x = nn.relu(grouped(256, (5, 5), padding=2, name="conv2")(x))
        x = local_response_norm(caffe_max_pool(x, self.pool))
        x = nn.relu(conv(384, (3, 3), padding=1, name="conv3")(x))
        x = nn.relu(grouped(384, (3, 3), padding=1, name="conv4")(x))
        x = nn.relu(grouped(256, (3, 3), padding=1, name="conv5")(x))
        x = caffe_max_pool(x, self.pool).reshape(x.shape[0], 1, 1, -1)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=gaussian(0.005), bias_init=constant(1.0))
        x = nn.relu(dense(self.channels, name="fc6")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return at_least_float32(x)


def local_response_norm(x: Float[Array, "N h w C"]) -> Float[Array, "N h w C"]:
    """Divides each channel by (1 + 1e-4 m) ** 0.75, m the mean square of the five channels around it.

    Channels beyond the first and last count as zeros (Krizhevsky et al. 2012, section 3.3, in Caffe's form, which
    divides alpha by the size of the window). Computed in float32.
    """
    wide = at_least_float32(x)
    total = jax.lax.reduce_window(
        jnp.square(wide), 0.0, jax.lax.add, (1, 1, 1, 5), (1, 1, 1, 1), ((0, 0), (0, 0), (0, 0), (2, 2))
    )
    return (wide * (1.0 + 1e-4 / 5 * total) ** -0.75).astype(x.dtype)
