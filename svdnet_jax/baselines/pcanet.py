"""PCANet: two stages of filters learned from patches by PCA, without labels or gradients, then hashed histograms.

Like SVDNet it projects on orthogonal directions; unlike it, it decomposes data, not learned weights. Source: Chan, Jia,
Gao, Lu, Zeng and Ma, "PCANet: A Simple Deep Learning Baseline for Image Classification?", IEEE Transactions on Image
Processing 2015, section II, and, where the paper leaves it open, the authors' Matlab release:

1. A stage's filters are the leading eigenvectors of the covariance of all k x k patches, the mean of each channel
   removed from each patch (equations 1 to 3). They are learned from patches that lie within the image. RGB patches are
   one vector of 3 k k numbers; the second stage sees each map of the first as a grey image, all of them together.
2. Maps are as large as the image, which zeros surround; the mean of each patch is removed here too.
3. The L2 second-stage maps of each first-stage map become one code a pixel, bit l being 1 where map l is above zero
   (equation 8), and each block of codes a histogram of 2**L2 bins. An image's feature is all histograms, first-stage
   map by first-stage map, of each the blocks row by row, of each the bins.

Each histogram is divided by the pixels of a block and so sums to 1 (in the release to 2**L2: a common factor, the same
ranking). Signs of eigenvectors are free and do not matter either: another sign permutes the bins, but for outputs of
exactly zero. Here each filter's entry of largest magnitude is positive.

Images pass in batches, so memory is that of a batch, whatever their number: fitting keeps sums of outer products of
patches, and never a matrix of patches.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, UInt8

from svdnet_jax.linalg import symmetric_eigen

# Directions whose variance is below this share of the largest are rounding errors of float32.
_VARIANCE = 1e-7


@jax.tree_util.register_static
@dataclass(frozen=True)
class Settings:
    """Of the filters and the histograms; patches and numbers of filters as the authors use them for faces."""

    patches: tuple[int, int] = (5, 5)
    """Side of the square patches in each stage; odd."""
    filters: tuple[int, int] = (8, 8)
    """Filters of each stage, L1 and L2; of patches of k x k pixels and C channels there are C (k k - 1) at most."""
    block: tuple[int, int] = (16, 16)
    """Height and width of the blocks that have a histogram each."""
    overlap: float = 0.0
    """Share of a block's height and width that the next one covers too."""
    root: bool = False
    """Take square roots of the histograms, so that their Euclidean distance is the Hellinger distance (RootSIFT,
    Arandjelovic and Zisserman 2012). Not in the paper."""

    def __post_init__(self) -> None:
        if any(k < 3 or k % 2 == 0 for k in self.patches):
            raise ValueError(f"patches: sides must be odd and at least 3; found {self.patches}.")
        if min(self.filters) < 1 or self.filters[1] > 16:
            raise ValueError(
                f"filters: at least 1 in each stage, and at most 16 in the second, which is a histogram of 65536 bins; "
                f"found {self.filters}."
            )
        if min(self.block) < 1:
            raise ValueError(f"block: height and width must be at least 1; found {self.block}.")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be at least 0 and below 1; found {self.overlap}.")


class PCANet(NamedTuple):
    """What `fit` learns; a pytree of two banks of orthonormal filters."""

    first: Float[Array, "k k C L1"]
    """Filters of the images."""
    second: Float[Array, "m m 1 L2"]
    """Filters of each of their L1 maps."""
    settings: Settings
    """What it was fitted with; no leaves."""


def dimension(settings: Settings, height: int, width: int) -> int:
    """Returns numbers in the feature of an image: blocks x L1 x 2**L2.

    With the settings as they come, 2048 a block: 16 384 for 64 x 32 pixels (64 KiB an image), 65 536 for 128 x 64.

    Raises:
        ValueError: A block is larger than the image.
    """
    blocks, _ = _block_pixels(settings, height, width).shape
    return blocks * settings.filters[0] * 2 ** settings.filters[1]


def fit(images: UInt8[np.ndarray, "N H W C"], settings: Settings, *, batch_size: int = 32) -> PCANet:
    """Learns the filters of both stages from images, in two passes over them.

    Every patch counts; the release draws 5000 images where there are more, and so may the caller.

    Args:
        images: Decoded images; may be memory-mapped.
        settings: Of the network.
        batch_size: Images at a time (B). Patches of a batch need two to three times 4 B H W C k k bytes: some 50 MB for
            64 x 32 pixels and the settings as they come.

    Raises:
        ValueError: No images, no uint8 (N, H, W, C), images smaller than a patch, more filters than patches have
            directions, a batch below 1.
    """
    _check_images(images)
    N, H, W, _ = images.shape
    if not N:
        raise ValueError("no images to learn filters from.")
    if max(settings.patches) > min(H, W):
        raise ValueError(
            f"patches of {max(settings.patches)} x {max(settings.patches)} do not fit in images {H} x {W}."
        )
    (k, m), (L1, L2) = settings.patches, settings.filters
    first = _principal(_total(_scatter(batch, k) for batch in _batches(images, batch_size)), k, L1, "first")
    scatters = (_scatter_of_maps(batch, first, m) for batch in _batches(images, batch_size))
    return PCANet(first, _principal(_total(scatters), m, L2, "second"), settings)


def features(net: PCANet, images: UInt8[np.ndarray, "N H W C"], *, batch_size: int = 32) -> Float32[np.ndarray, "N D"]:
    """Returns the histograms of images, to be compared by Euclidean distance like any embedding; D as `dimension` says.

    Args:
        net: What `fit` learned.
        images: Decoded images, of any size that holds a block.
        batch_size: As in `fit`; the result is in host memory.

    Raises:
        ValueError: No uint8 (N, H, W, C), other channels than in `fit`, a block larger than the images, a batch
            below 1.
    """
    _check_images(images)
    N, H, W, C = images.shape
    if net.first.shape[2] != C:
        raise ValueError(f"the filters are for images of {net.first.shape[2]} channels; found {C}.")
    histograms = np.empty((N, dimension(net.settings, H, W)), np.float32)
    done = 0
    for batch in _batches(images, batch_size):
        rows = np.asarray(_histograms(net, batch))[: N - done]
        histograms[done : done + len(rows)] = rows
        done += len(rows)
    return histograms


def _batches(images: UInt8[np.ndarray, "N H W C"], size: int) -> Iterator[UInt8[np.ndarray, "B H W C"]]:
    """Yields all images, so many at a time; the last batch is filled up with black ones, which add nothing to sums."""
    if size < 1:
        raise ValueError(f"batch_size must be at least 1; found {size}.")
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), np.uint8)])


def _total(parts: Iterable[Float[Array, "P P"]]) -> Float64[np.ndarray, "P P"]:
    """Sums in float64: thousands of batches would wear float32 down."""
    return reduce(np.add, (np.asarray(part, np.float64) for part in parts))


def _patches(images: Float[Array, "B H W C"], k: int) -> Float[Array, "B h w P"]:
    """Returns the k x k patches around every pixel that has one, each channel's mean removed; P = k k C."""
    B, H, W, C = images.shape
    h, w = H - k + 1, W - k + 1
    patches = jnp.stack([images[:, y : y + h, x : x + w] for y in range(k) for x in range(k)], axis=3)
    # First the middle pixel: what is left of a flat patch is then exactly zero and not a rounding error, the sign of
    # which would be its bit.
    patches = patches - patches[:, :, :, k * k // 2, None]
    return (patches - patches.mean(axis=3, keepdims=True)).reshape(B, h, w, k * k * C)


def _convolve(images: Float[Array, "B H W C"], filters: Float[Array, "k k C L"]) -> Float[Array, "B H W L"]:
    """Maps of the size of the images."""
    k, _, _, L = filters.shape
    margin = (k // 2, k // 2)
    patches = _patches(jnp.pad(images, ((0, 0), margin, margin, (0, 0))), k)
    # HIGHEST: bits are signs, and should be the same on every device.
    return jnp.matmul(patches, filters.reshape(-1, L), precision=jax.lax.Precision.HIGHEST)


def _sum_outer(images: Float[Array, "B H W C"], k: int) -> Float[Array, "P P"]:
    patches = _patches(images, k)
    patches = patches.reshape(-1, patches.shape[-1])
    return jnp.matmul(patches.T, patches, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="k")
def _scatter(images: UInt8[Array, "B H W C"], k: int) -> Float[Array, "P P"]:
    """Sums x xᵀ over all patches x."""
    return _sum_outer(images.astype(jnp.float32), k)


@partial(jax.jit, static_argnames="k")
def _scatter_of_maps(images: UInt8[Array, "B H W C"], first: Float[Array, "m m C L1"], k: int) -> Float[Array, "P P"]:
    """Sums the same over the maps of the first stage, one map after the other to save memory."""
    maps = jnp.moveaxis(_convolve(images.astype(jnp.float32), first), 3, 0)
    return jnp.sum(jax.lax.map(lambda gray: _sum_outer(gray[..., None], k), maps), axis=0)


def _principal(scatter: Float64[np.ndarray, "P P"], k: int, count: int, stage: str) -> Float[Array, "k k C {count}"]:
    """Computes the eigenvectors of the largest eigenvalues, as filters; in float64, on the host, once a stage."""
    channels = len(scatter) // (k * k)
    # Constant patches have no variance, as their mean is removed. Below zero, they stay behind other directions that
    # have none, so that every filter sums to zero in every channel.
    constant = np.kron(np.full((k * k, k * k), 1 / (k * k)), np.eye(channels))
    values, vectors = symmetric_eigen(scatter - np.trace(scatter) * constant)
    varied = int(np.sum(values > _VARIANCE * values[-1])) if values[-1] > 0 else 0
    if varied < count:
        raise ValueError(
            f"the {stage} stage's patches of {k} x {k} pixels and {channels} channels vary in {varied} directions, too "
            f"few for {count} filters; use fewer filters, larger patches or more varied images."
        )
    filters = vectors[:, ::-1][:, :count]
    largest = np.abs(filters).argmax(axis=0)
    filters = filters * np.sign(np.take_along_axis(filters, largest[None], axis=0))
    return jnp.asarray(filters.reshape(k, k, channels, count), jnp.float32)


@jax.jit
def _histograms(net: PCANet, images: UInt8[Array, "B H W C"]) -> Float[Array, "B D"]:
    """Returns one row of block histograms an image."""
    B, H, W, _ = images.shape
    pixels = _block_pixels(net.settings, H, W)
    blocks, bins = len(pixels), 2 ** net.settings.filters[1]
    weights = 2 ** jnp.arange(net.settings.filters[1])

    def histogram(gray: Float[Array, "B H W"]) -> Float[Array, "B blocks bins"]:
        bits = (_convolve(gray[..., None], net.second) > 0).astype(weights.dtype)
        codes = jnp.matmul(bits, weights).reshape(B, H * W)[:, pixels]
        slots = codes + bins * jnp.arange(B * blocks).reshape(B, blocks, 1)
        counts = jnp.zeros(B * blocks * bins).at[slots.ravel()].add(1)
        return counts.reshape(B, blocks, bins) / pixels.shape[1]

    maps = jnp.moveaxis(_convolve(images.astype(jnp.float32), net.first), 3, 0)
    histograms = jnp.moveaxis(jax.lax.map(histogram, maps), 0, 1).reshape(B, -1)
    return jnp.sqrt(histograms) if net.settings.root else histograms


def _block_pixels(settings: Settings, height: int, width: int) -> Int[np.ndarray, "blocks pixels"]:
    """Returns which pixels of a flattened image each block has; what is left at the right and below is in none."""
    if settings.block[0] > height or settings.block[1] > width:
        raise ValueError(
            f"blocks of {settings.block[0]} x {settings.block[1]} do not fit in images {height} x {width}."
        )
    # Matlab rounds halves up.
    strides = (max(1, int((1 - settings.overlap) * side + 0.5)) for side in settings.block)
    rows, columns = (
        np.arange(0, size - side + 1, stride)[:, None] + np.arange(side)[None, :]
        for size, side, stride in zip((height, width), settings.block, strides, strict=True)
    )
    pixels = rows[:, None, :, None] * width + columns[None, :, None, :]
    return pixels.reshape(len(rows) * len(columns), -1)


def _check_images(images: np.ndarray) -> None:
    if getattr(images, "ndim", None) != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"expected uint8 images (N, H, W, C), found {getattr(images, 'dtype', type(images).__name__)} "
            f"of shape {getattr(images, 'shape', ())}."
        )
