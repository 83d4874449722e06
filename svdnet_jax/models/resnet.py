"""Residual backbones: images in, one feature map out.

A backbone is a Linen module called as ``backbone(x, train=...)`` on normalised images (N, H, W, 3); it returns
the last feature map (N, h, w, C) in float32. Pooling belongs to `svdnet_jax.models.svdnet`.

With ``dtype=jnp.bfloat16`` convolutions and activations are in that type; parameters, the statistics of BatchNorm and
its arithmetic stay in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.linalg import at_least_float32
from svdnet_jax.models.conv_norm import ConvNorm, convolve
from svdnet_jax.models.layers import Pool, caffe_max_pool, max_pool, relu

Layout = Literal["caffe", "keras", "torchvision", "fastreid", "strongbaseline", "transreid"]
"""Graphs of one and the same variables; weights only work in the one they were trained in (see `ResNet`)."""

AS_SHORTCUT = nn.initializers.zeros_init()
"""Of the scale of a block's last BatchNorm: every block starts as its shortcut (Goyal et al. 2017), which steadies high
rates."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    channels: int
    """Channels of the output."""
    stride: int
    conv_norm: ConvNorm

    @nn.compact
    def __call__(self, x: Float[Array, "N H W c"]) -> Float[Array, "N h w C"]:
        """Maps (N, H, W, c) to (N, H / stride, W / stride, channels)."""
        y = relu(self.conv_norm(x, self.channels, 3, stride=self.stride, names=("conv1", "bn1")))
        y = self.conv_norm(y, self.channels, 3, names=("conv2", "bn2"), scale_init=AS_SHORTCUT)
        return _add_shortcut(self, x, y)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut (He et al. 2016, figure 5 right)."""

    channels: int
    """Channels of the output; the convolutions before the last have a quarter."""
    stride: int
    stride_in: Literal["conv1", "conv2"]
    """Which convolution takes the stride."""
    conv_norm: ConvNorm
    ibn: bool = False
    """Half of the channels of the first convolution have InstanceNorm (IBN-a; Pan et al. 2018, figure 3)."""

    @nn.compact
    def __call__(self, x: Float[Array, "N H W c"]) -> Float[Array, "N h w C"]:
        """Maps (N, H, W, c) to (N, H / stride, W / stride, channels)."""
        width = self.channels // 4
        first, second = (self.stride, 1) if self.stride_in == "conv1" else (1, self.stride)
        instance = width // 2 if self.ibn else 0
        y = relu(self.conv_norm(x, width, 1, stride=first, instance=instance, names=("conv1", "bn1")))
        y = relu(self.conv_norm(y, width, 3, stride=second, names=("conv2", "bn2")))
        y = self.conv_norm(y, self.channels, 1, names=("conv3", "bn3"), scale_init=AS_SHORTCUT)
        return _add_shortcut(self, x, y)


def _add_shortcut(
    block: BasicBlock | Bottleneck, x: Float[Array, "N H W c"], y: Float[Array, "N h w C"]
) -> Float[Array, "N h w C"]:
    """Ends a block: adds its input, through a 1x1 convolution where the shapes differ."""
    if x.shape != y.shape:
        x = block.conv_norm(x, block.channels, 1, stride=block.stride, names=("shortcut", "bn_shortcut"))
    return relu(x + y)


class ResNet(nn.Module):
    """Residual networks for ImageNet (He et al. 2016, table 1), in the graphs that pretrained weights come in.

    The layouts have the same variables and differ at the stem and in a stage's stride. ``caffe`` is the authors'
    release and the paper's: the first pooling is Caffe's, without padding, and the stride is in the first 1x1
    convolution of a Bottleneck. ``keras`` is the Keras graph of the same weights, whose first pooling is padded by
    one on every side. ``torchvision`` is padded so too, and has the stride in the 3x3 convolution, as have the
    graphs of toolkits for re-identification: ``fastreid`` with Caffe's pooling, ``strongbaseline`` without the ReLU
    of the stem (Luo et al.'s code), and ``transreid`` without it and with a pooling of 2x2 windows.
    """

    stage_sizes: tuple[int, int, int, int]
    """Blocks in each stage."""
    bottleneck: bool
    """Blocks are `Bottleneck`; otherwise `BasicBlock`, in which the layouts have the stride in the same place."""
    layout: Layout = "caffe"
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage; 1 doubles the feature map's height and width."""
    frozen_statistics: bool = False
    """BatchNorm always uses the stored statistics, in training too."""
    dtype: Any = jnp.float32
    """Of convolutions and activations."""
    axis_name: str | None = None
    """Mapped axis over which the statistics of a batch are taken."""
    remat: bool = False
    """Compute the inside of a block again for the gradient instead of keeping it."""
    convolve: Callable[..., Any] = convolve
    """`convolve`, or `convolve_on_any_platform`."""
    pool: Pool = max_pool
    ibn: bool = False
    """The blocks of all stages but the last are IBN-a's; of a Bottleneck network."""

    @property
    def channels(self) -> int:
        """Channels of the feature map (C)."""
        return 2048 if self.bottleneck else 512

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Float[Array, "N h w C"]:
        """Maps images to the last feature map, of about 1/32 (last_stride 1: 1/16) of their height and width."""
        resting = self.frozen_statistics or not train
        conv_norm = ConvNorm(self.dtype, self.frozen_statistics, resting, self.axis_name, self.convolve)
        remat: Any = nn.remat if self.remat else lambda block: block
        Block: Callable[..., nn.Module] = remat(BasicBlock)
        if self.bottleneck:
            Block = partial(remat(Bottleneck), stride_in="conv1" if self.layout in ("caffe", "keras") else "conv2")
        x = conv_norm(x, 64, 7, stride=2, names=("stem", "bn_stem"))
        x = x if self.layout in ("strongbaseline", "transreid") else relu(x)
        if self.layout == "transreid":
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        else:
            x = caffe_max_pool(x, self.pool) if self.layout in ("caffe", "fastreid") else self.pool(x, ((1, 1), (1, 1)))
        strides = (1, 2, 2, self.last_stride)
        for stage, (size, stride) in enumerate(zip(self.stage_sizes, strides, strict=True), start=1):
            channels = self.channels // 2 ** (4 - stage)
            for block in range(1, size + 1):
                name = f"stage{stage}_block{block}"
                options = {"ibn": True} if self.ibn and stage < 4 else {}
                x = Block(channels, stride if block == 1 else 1, conv_norm=conv_norm, name=name, **options)(x)
        return at_least_float32(x)


resnet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False)
resnet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False)
resnet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True)
resnet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), bottleneck=True)
resnet50_ibn_a = partial(resnet50, ibn=True)


class MiniResNet(nn.Module):
    """A residual network of a few hundred thousand weights for small images and two CPU cores.

    A 3x3 stem of stride 2, one `BasicBlock` a stage, halving height and width at each stage but the first, and a 1x1
    convolution to ``channels``, which lets the Eigenlayer halve its input as in the paper (2048 to 1024).
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    channels: int = 256
    """Channels of the feature map (C)."""
    frozen_statistics: bool = False
    dtype: Any = jnp.float32
    """Of convolutions and activations."""
    axis_name: str | None = None
    """Mapped axis over which the statistics of a batch are taken."""
    convolve: Callable[..., Any] = convolve
    """`convolve`, or `convolve_on_any_platform`."""

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Float[Array, "N h w C"]:
        """Maps images to the last feature map."""
        resting = self.frozen_statistics or not train
        conv_norm = ConvNorm(self.dtype, self.frozen_statistics, resting, self.axis_name, self.convolve)
        x = relu(conv_norm(x, self.widths[0], 3, stride=2, names=("stem", "bn_stem")))
        for stage, width in enumerate(self.widths, start=1):
            x = BasicBlock(width, 1 if stage == 1 else 2, conv_norm, name=f"stage{stage}")(x)
        x = conv_norm(x, self.channels, 1, names=("head", "bn_head"))
        return at_least_float32(relu(x))
