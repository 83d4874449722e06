"""Residual backbones: images in, one feature map out.

A backbone is a Linen module called as ``backbone(x, train=...)`` on normalised images (N, H, W, 3); it returns
the last feature map (N, h, w, C). Pooling belongs to `svdnet_jax.models.svdnet`.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

# He's initialisation for ReLU networks (He et al. 2015), by fan-out as in the ResNet releases.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    channels: int
    stride: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "N H W c"]) -> Float[Array, "N h w C"]:
        """Maps (N, H, W, c) to (N, H / stride, W / stride, channels)."""
        conv = partial(nn.Conv, use_bias=False, kernel_init=conv_init, padding=1)
        y = conv(self.channels, (3, 3), strides=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = conv(self.channels, (3, 3), name="conv2")(y)
        # Zero scale: every block starts as its shortcut (Goyal et al. 2017), which steadies high rates.
        y = self.norm(scale_init=nn.initializers.zeros_init(), name="bn2")(y)
        if x.shape != y.shape:
            x = conv(self.channels, (1, 1), strides=self.stride, padding=0, name="shortcut")(x)
            x = self.norm(name="bn_shortcut")(x)
        return nn.relu(x + y)


class MiniResNet(nn.Module):
    """A residual network of a few hundred thousand weights for small images and two CPU cores.

    A 3x3 stem of stride 2, one `BasicBlock` a stage, halving height and width at each stage but the first, and a 1x1
    convolution to ``channels``, which lets the Eigenlayer halve its input as in the paper (2048 to 1024).
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    channels: int = 256
    """Channels of the feature map (C)."""
    frozen_statistics: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Float[Array, "N h w C"]:
        """Maps images to the last feature map."""
        norm = partial(
            nn.BatchNorm,
            use_running_average=self.frozen_statistics or not train,
            momentum=0.9,
            epsilon=1e-5,
        )
        conv = partial(nn.Conv, use_bias=False, kernel_init=conv_init)
        x = conv(self.widths[0], (3, 3), strides=2, padding=1, name="stem")(x)
        x = nn.relu(norm(name="bn_stem")(x))
        for stage, width in enumerate(self.widths, start=1):
            x = BasicBlock(width, 1 if stage == 1 else 2, norm, name=f"stage{stage}")(x)
        x = conv(self.channels, (1, 1), name="head")(x)
        return nn.relu(norm(name="bn_head")(x))
