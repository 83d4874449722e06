"""Residual backbones: images in, one feature map out.

A backbone is a Linen module called as ``backbone(x, train=...)`` on normalised images (N, H, W, 3); it returns
the last feature map (N, h, w, C) in float32. Pooling belongs to `svdnet_jax.models.svdnet`.

With ``dtype=jnp.bfloat16`` convolutions and activations are in that type; parameters, the statistics of BatchNorm and
its arithmetic stay in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from svdnet_jax.linalg import at_least_float32
from svdnet_jax.models.layers import Pool, caffe_max_pool, max_pool

Layout = Literal["caffe", "keras", "torchvision"]
"""Graphs of one and the same variables; weights only work in the one they were trained in (see `ResNet`)."""

# He's initialisation for ReLU networks (He et al. 2015), by fan-out as in the ResNet releases.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolve(
    x: Float[Array, "N H W c"],
    kernel: Float[Array, "r s c C"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "N h w C"]:
    """Computes `jax.lax.conv_general_dilated`, on a CPU by a product of matrices where kernel or map is small.

    Elsewhere it is that function itself: XLA's library for the device has convolutions of every size, and XLA of
    jax 0.11.2 aborts while it fuses these products into its Triton kernels for an NVIDIA GPU.

    Half of a Bottleneck network's work is in 1x1 convolutions, and the product of a four-dimensional map with a matrix
    will not do: on a CPU its gradient by the kernel is two to five times as slow. Where the result has fewer pixels
    than the kernel, XLA on a CPU falls back to plain loops, for the convolution or its gradient by the map, and 3x3
    ones take 70 times as long; there all windows stand in one matrix, a row for each.
    """
    compute = _convolve_on_cpu if jax.default_backend() == "cpu" else jax.lax.conv_general_dilated
    return compute(x, kernel, window_strides, padding, **options)


def convolve_on_any_platform(
    x: Float[Array, "N H W c"],
    kernel: Float[Array, "r s c C"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "N h w C"]:
    """Computes the same in a program that is made here and runs on other platforms, each of which has its own way."""
    settings = {"window_strides": window_strides, "padding": padding, **options}
    on_cpu, elsewhere = (partial(way, **settings) for way in (_convolve_on_cpu, jax.lax.conv_general_dilated))
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _convolve_on_cpu(
    x: Float[Array, "N H W c"],
    kernel: Float[Array, "r s c C"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "N h w C"]:
    extents = kernel.shape[:2]
    sizes = zip(x.shape[1:3], padding, extents, window_strides, strict=True)
    height, width = ((size + sum(pair) - extent) // stride + 1 for size, pair, extent, stride in sizes)
    if extents != (1, 1) and not 0 < height * width < extents[0] * extents[1]:
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = window_strides
    pixels = [x[:, i:, j:][:, ::rows, ::columns][:, :height, :width] for i, j in np.ndindex(extents)]
    windows = jnp.concatenate(pixels, axis=-1).reshape(-1, kernel[..., 0].size)
    y = jnp.matmul(windows, kernel.reshape(windows.shape[1], -1), precision=options.get("precision"))
    return y.reshape(x.shape[0], height, width, -1)


def batch_norm(x: Float[Array, "N H W C"], **options: Any) -> Float[Array, "N H W C"]:
    """Applies BatchNorm with the constants of every network here, in float32; returns the type of x.

    Args:
        x: Feature map.
        options: Of `flax.linen.BatchNorm`, such as its name.
    """
    norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, **options)
    return norm(at_least_float32(x)).astype(x.dtype)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    channels: int
    """Channels of the output."""
    stride: int
    conv: Callable[..., Any]
    """`flax.linen.Conv` with the options that the whole network shares."""
    norm: Callable[..., Any]
    """`batch_norm` with the options that the whole network shares."""

    @nn.compact
    def __call__(self, x: Float[Array, "N H W c"]) -> Float[Array, "N h w C"]:
        """Maps (N, H, W, c) to (N, H / stride, W / stride, channels)."""
        y = self.conv(self.channels, (3, 3), strides=self.stride, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(y, name="bn1"))
        y = self.conv(self.channels, (3, 3), padding=1, name="conv2")(y)
        # Zero scale: every block starts as its shortcut (Goyal et al. 2017), which steadies high rates.
        y = self.norm(y, name="bn2", scale_init=nn.initializers.zeros_init())
        return _add_shortcut(self, x, y)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut (He et al. 2016, figure 5 right)."""

    channels: int
    """Channels of the output; the convolutions before the last have a quarter."""
    stride: int
    stride_in: Literal["conv1", "conv2"]
    """Which convolution takes the stride."""
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Float[Array, "N H W c"]) -> Float[Array, "N h w C"]:
        """Maps (N, H, W, c) to (N, H / stride, W / stride, channels)."""
        width = self.channels // 4
        first, second = (self.stride, 1) if self.stride_in == "conv1" else (1, self.stride)
        y = self.conv(width, (1, 1), strides=first, padding=0, name="conv1")(x)
        y = nn.relu(self.norm(y, name="bn1"))
        y = self.conv(width, (3, 3), strides=second, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(y, name="bn2"))
        y = self.conv(self.channels, (1, 1), padding=0, name="conv3")(y)
        y = self.norm(y, name="bn3", scale_init=nn.initializers.zeros_init())
        return _add_shortcut(self, x, y)


def _add_shortcut(
    block: BasicBlock | Bottleneck, x: Float[Array, "N H W c"], y: Float[Array, "N h w C"]
) -> Float[Array, "N h w C"]:
    """Ends a block: adds its input, through a 1x1 convolution where the shapes differ."""
    if x.shape != y.shape:
        x = block.conv(block.channels, (1, 1), strides=block.stride, padding=0, name="shortcut")(x)
        x = block.norm(x, name="bn_shortcut")
    return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual networks for ImageNet (He et al. 2016, table 1), in the graphs that pretrained weights come in.

    The layouts have the same variables and differ in two places. ``caffe`` is the authors' release and the paper's:
    the first pooling is Caffe's, without padding, and a stage's stride is in the first 1x1 convolution of a Bottleneck.
    ``keras`` is the Keras graph of the same weights, whose first pooling is padded by one on every side.
    ``torchvision`` is padded so too, and has the stride in the 3x3 convolution.
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

    @property
    def channels(self) -> int:
        """Channels of the feature map (C)."""
        return 2048 if self.bottleneck else 512

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Float[Array, "N h w C"]:
        """Maps images to the last feature map, of about 1/32 (last_stride 1: 1/16) of their height and width."""
        conv = partial(
            nn.Conv, use_bias=False, kernel_init=conv_init, dtype=self.dtype, conv_general_dilated=self.convolve
        )
        resting = self.frozen_statistics or not train
        norm = partial(batch_norm, use_running_average=resting, axis_name=self.axis_name)
        remat: Any = nn.remat if self.remat else lambda block: block
        Block: Callable[..., nn.Module] = remat(BasicBlock)
        if self.bottleneck:
            Block = partial(remat(Bottleneck), stride_in="conv2" if self.layout == "torchvision" else "conv1")
        x = conv(64, (7, 7), strides=2, padding=3, name="stem")(x)
        x = nn.relu(norm(x, name="bn_stem"))
        x = caffe_max_pool(x, self.pool) if self.layout == "caffe" else self.pool(x, ((1, 1), (1, 1)))
        strides = (1, 2, 2, self.last_stride)
        for stage, (size, stride) in enumerate(zip(self.stage_sizes, strides, strict=True), start=1):
            channels = self.channels // 2 ** (4 - stage)
            for block in range(1, size + 1):
                name = f"stage{stage}_block{block}"
                x = Block(channels, stride if block == 1 else 1, conv=conv, norm=norm, name=name)(x)
        return at_least_float32(x)


resnet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False)
resnet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False)
resnet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True)
resnet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), bottleneck=True)


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
        conv = partial(
            nn.Conv, use_bias=False, kernel_init=conv_init, dtype=self.dtype, conv_general_dilated=self.convolve
        )
        resting = self.frozen_statistics or not train
        norm = partial(batch_norm, use_running_average=resting, axis_name=self.axis_name)
        x = conv(self.widths[0], (3, 3), strides=2, padding=1, name="stem")(x)
        x = nn.relu(norm(x, name="bn_stem"))
        for stage, width in enumerate(self.widths, start=1):
            x = BasicBlock(width, 1 if stage == 1 else 2, conv, norm, name=f"stage{stage}")(x)
        x = conv(self.channels, (1, 1), padding=0, name="head")(x)
        return at_least_float32(nn.relu(norm(x, name="bn_head")))
