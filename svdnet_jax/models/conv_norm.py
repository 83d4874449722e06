"""A convolution with the BatchNorm behind it, in the way that suits the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from svdnet_jax.linalg import at_least_float32
from svdnet_jax.models.layers import add_shift

EPSILON = 1e-5
"""Of every BatchNorm."""
ONES = nn.initializers.ones_init()
# He's initialisation for ReLU networks (He et al. 2015), by fan-out as in the ResNet releases.
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolve(
    x: Float[Array, "N H W c"],
    kernel: Float[Array, "r s g C"],
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
    ones take 70 times as long; there all windows stand in one matrix, a row for each. It does so for depthwise ones of
    any size, which take a hundred times as long as the sum of a product for each place in the window.
    """
    compute = _convolve_on_cpu if jax.default_backend() == "cpu" else jax.lax.conv_general_dilated
    return compute(x, kernel, window_strides, padding, **options)


def convolve_on_any_platform(
    x: Float[Array, "N H W c"],
    kernel: Float[Array, "r s g C"],
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
    kernel: Float[Array, "r s g C"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "N h w C"]:
    extents = kernel.shape[:2]
    sizes = zip(x.shape[1:3], padding, extents, window_strides, strict=True)
    height, width = ((size + sum(pair) - extent) // stride + 1 for size, pair, extent, stride in sizes)
    groups = options.get("feature_group_count", 1)
    depthwise = 1 < groups == x.shape[3] == kernel.shape[3]
    small = extents == (1, 1) or 0 < height * width < extents[0] * extents[1]
    if not depthwise and (groups > 1 or not small):
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = window_strides
    pixels = [x[:, i:, j:][:, ::rows, ::columns][:, :height, :width] for i, j in np.ndindex(extents)]
    if depthwise:
        weights = (kernel[place][None, None] for place in np.ndindex(extents))
        products = [at_least_float32(p) * at_least_float32(w) for p, w in zip(pixels, weights, strict=True)]
        return reduce(jnp.add, products).astype(x.dtype)
    windows = jnp.concatenate(pixels, axis=-1).reshape(-1, kernel[..., 0].size)
    y = jnp.matmul(windows, kernel.reshape(windows.shape[1], -1), precision=options.get("precision"))
    return y.reshape(x.shape[0], height, width, -1)


def batch_norm(x: Float[Array, "N H W C"], **options: Any) -> Float[Array, "N H W C"]:
    """Applies BatchNorm with the constants of every network here, in float32; returns the type of x.

    Args:
        x: Feature map.
        options: Of `flax.linen.BatchNorm`, such as its name.
    """
    norm = nn.BatchNorm(momentum=0.9, epsilon=EPSILON, **options)
    return norm(at_least_float32(x)).astype(x.dtype)


class StoredNorm(nn.Module):
    """BatchNorm with stored statistics, as what it is then: a factor and a shift for each channel."""

    channels: int
    scale_init: Any = ONES

    @nn.compact
    def __call__(self) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
        """Returns factor and shift; the variables are those of `flax.linen.BatchNorm`."""
        shape = (self.channels,)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        var = self.variable("batch_stats", "var", jnp.ones, shape).value
        factor = scale * jax.lax.rsqrt(var + EPSILON)
        return factor, bias - mean * factor


@dataclass(frozen=True)
class ConvNorm:
    """A convolution and the BatchNorm after it, called within a module, whose variables they are.

    Where training has stored statistics, they are one on accelerators: the factor goes into the kernel and the shift
    behind it. The feature map is then written once instead of twice, and the gradient by the scale comes from that by
    the kernel, without the map. A CPU gains nothing by it.
    """

    dtype: Any
    """Of the convolution and its result."""
    frozen_statistics: bool
    """The stored statistics are used in training too."""
    resting: bool
    """They are used in this call."""
    axis_name: str | None
    convolve: Callable[..., Any]
    """`convolve`, or `convolve_on_any_platform`."""

    def __call__(
        self,
        x: Float[Array, "N H W c"],
        channels: int,
        size: int,
        *,
        stride: int = 1,
        names: tuple[str, str],
        groups: int = 1,
        instance: int = 0,
        scale_init: Any = ONES,
    ) -> Float[Array, "N h w C"]:
        """Maps (N, H, W, c) to (N, H / stride, W / stride, channels).

        Args:
            x: Feature map.
            channels: Of the result.
            size: Height and width of the kernel; the padding is half of it.
            stride: Of the convolution.
            names: Of the convolution and of the BatchNorm.
            groups: Of channels, each of which is convolved by itself.
            instance: So many channels, the first ones, have InstanceNorm in place of BatchNorm (IBN-a); it is called
                ``in1`` beside ``bn1``, and nothing of it is stored, so that it stays a layer of its own.
            scale_init: Initial scale of the BatchNorm.
        """
        shape: Any = {"features": channels, "kernel_size": (size, size), "strides": stride, "padding": size // 2}
        options: Any = {"use_bias": False, "kernel_init": conv_init, "dtype": self.dtype, "name": names[0]}
        conv = partial(nn.Conv, **shape, **options, feature_group_count=groups)
        if not self.frozen_statistics or jax.default_backend() == "cpu":
            y = conv(conv_general_dilated=self.convolve)(x)
            options = {"use_running_average": self.resting, "axis_name": self.axis_name, "scale_init": scale_init}
            normed = batch_norm(y[..., instance:] if instance else y, name=names[1], **options)
            return _with_instance_norm(y[..., :instance], normed, names[1]) if instance else normed
        factor, shift = StoredNorm(channels - instance, scale_init, name=names[1])()
        if instance:
            factor, shift = (jnp.pad(a, (instance, 0), constant_values=c) for a, c in ((factor, 1.0), (shift, 0.0)))

        def scaled(x: Array, kernel: Array, *rest: Any, **options: Any) -> Array:
            return self.convolve(x, (kernel * factor[None, None, None]).astype(x.dtype), *rest, **options)

        y = conv(conv_general_dilated=scaled, promote_dtype=_promote_map)(x)
        y = add_shift(y, shift)
        return _with_instance_norm(y[..., :instance], y[..., instance:], names[1]) if instance else y


def _with_instance_norm(
    x: Float[Array, "N h w c"], normed: Float[Array, "N h w d"], name: str
) -> Float[Array, "N h w C"]:
    """Returns both maps in one, the first normalized over each image's pixels; called within a module."""
    norm = nn.InstanceNorm(epsilon=EPSILON, use_fast_variance=False, name=name.replace("bn", "in"))
    return jnp.concatenate([norm(at_least_float32(x)).astype(x.dtype), normed], axis=3)


def _promote_map(*arrays: Array | None, dtype: Any = None, inexact: bool = True) -> list[Array | None]:
    """Converts the feature map alone: the kernel is rounded after its factor."""
    x, *others = arrays
    assert x is not None
    return [x.astype(dtype), *others]
