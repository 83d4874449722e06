"""OSNet, the small network for person re-identification of Zhou et al. (ICCV 2019): images in, one feature map out.

Every block looks at its input at four sizes: streams of one to four light 3x3 convolutions, weighed by a gate that all
of them share. The fully connected layer behind the pooling is not part of it; the Eigenlayer is there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.errors import ConfigError
from svdnet_jax.linalg import at_least_float32
from svdnet_jax.models.conv_norm import ConvNorm, conv_init, convolve
from svdnet_jax.models.layers import Pool, halve, max_pool, relu

SMALLEST = 13
"""Height and width below which nothing is left of an image at the last pooling."""


class LightConv(nn.Module):
    """A 1x1 convolution and a 3x3 one of each channel by itself (paper, section 3.1)."""

    conv_norm: ConvNorm

    @nn.compact
    def __call__(self, x: Float[Array, "N h w C"]) -> Float[Array, "N h w C"]:
        """Maps (N, h, w, C) to the same shape."""
        channels, dtype, conv = x.shape[-1], self.conv_norm.dtype, self.conv_norm.convolve
        options: Any = {"use_bias": False, "kernel_init": conv_init, "dtype": dtype, "conv_general_dilated": conv}
        x = nn.Conv(channels, (1, 1), padding=0, **options, name="pointwise")(x)
        return relu(self.conv_norm(x, channels, 3, groups=channels, names=("depthwise", "bn")))


class Gate(nn.Module):
    """Weighs the channels of a map by what is in all of it (paper, equation 4)."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "N h w C"]) -> Float[Array, "N h w C"]:
        """Multiplies each channel by a number in (0, 1)."""
        channels = x.shape[-1]
        y = jnp.mean(at_least_float32(x), axis=(1, 2)).astype(x.dtype)
        y = relu(nn.Dense(channels // 16, dtype=self.dtype, name="fc1")(y))
        return x * nn.sigmoid(nn.Dense(channels, dtype=self.dtype, name="fc2")(y))[:, None, None]


class OSBlock(nn.Module):
    """The bottleneck of figure 4: streams of growing depth under one gate, and a shortcut."""

    channels: int
    """Channels of the output; the streams have a quarter."""
    conv_norm: ConvNorm

    @nn.compact
    def __call__(self, x: Float[Array, "N h w c"]) -> Float[Array, "N h w C"]:
        """Maps (N, h, w, c) to (N, h, w, channels)."""
        y = relu(self.conv_norm(x, self.channels // 4, 1, names=("conv1", "bn1")))
        gate, total = Gate(self.conv_norm.dtype, name="gate"), jnp.zeros_like(y)
        for depth in (1, 2, 3, 4):
            stream = y
            for number in range(1, depth + 1):
                stream = LightConv(self.conv_norm, name=f"stream{depth}_{number}")(stream)
            total += gate(stream)
        y = self.conv_norm(total, self.channels, 1, names=("conv3", "bn3"))
        if x.shape != y.shape:
            x = self.conv_norm(x, self.channels, 1, names=("shortcut", "bn_shortcut"))
        return relu(x + y)


class OSNet(nn.Module):
    """Two blocks a stage, three stages (paper, table 1); the widths are those of the published weights."""

    widths: tuple[int, int, int, int]
    """Channels of the stem and of each stage."""
    # The others are those of `svdnet_jax.models.resnet.ResNet`.
    frozen_statistics: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None
    convolve: Callable[..., Any] = convolve
    pool: Pool = max_pool

    @property
    def channels(self) -> int:
        """Channels of the feature map (C)."""
        return self.widths[-1]

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Float[Array, "N h w C"]:
        """Maps images to the last feature map, of about 1/16 of their height and width.

        Raises:
            ConfigError: The images have fewer than 13 pixels in height or width.
        """
        if min(x.shape[1:3]) < SMALLEST:
            raise ConfigError(f"`data.height`, `data.width`: too small for OSNet, which needs {SMALLEST} x {SMALLEST}")
        resting = self.frozen_statistics or not train
        conv_norm = ConvNorm(self.dtype, self.frozen_statistics, resting, self.axis_name, self.convolve)
        x = relu(conv_norm(x, self.widths[0], 7, stride=2, names=("stem", "bn_stem")))
        x = self.pool(x, ((1, 1), (1, 1)))
        for stage, channels in enumerate(self.widths[1:], start=1):
            for block in (1, 2):
                x = OSBlock(channels, conv_norm, name=f"stage{stage}_block{block}")(x)
            name = f"stage{stage}_end"
            x = relu(conv_norm(x, channels, 1, names=(name, f"bn_{name}")))
            x = halve(x) if stage < 3 else x
        return at_least_float32(x)


osnet_x1_0 = partial(OSNet, widths=(64, 256, 384, 512))
osnet_x0_75 = partial(OSNet, widths=(48, 192, 288, 384))
osnet_x0_5 = partial(OSNet, widths=(32, 128, 192, 256))
osnet_x0_25 = partial(OSNet, widths=(16, 64, 96, 128))
