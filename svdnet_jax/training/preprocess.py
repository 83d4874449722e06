"""Augments and resizes training images, inside the compiled step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from svdnet_jax.config.schema import Data
from svdnet_jax.data.augment import WHOLE, Share, random_crop, random_erase, random_flip
from svdnet_jax.data.batches import resize


class AugmentConfig(NamedTuple):
    """How training images are changed."""

    size: tuple[int, int]
    """Height and width that the network sees."""
    flip: bool = False
    """Mirror half of the images."""
    crop_padding: int = 0
    """Pixels of padding, cut off again at a random place."""
    erase_prob: float = 0.0
    """Share of the images with a random rectangle blotted out."""


Preprocess = Callable[[PRNGKeyArray, UInt8[Array, "N h w 3"], Float[Array, "#H #W 3"], Share], Float[Array, "N H W 3"]]
"""``preprocess(key, images, mean, share)`` returns images as the network sees them, RGB in [0, 255]. ``mean`` is what
the network subtracts; ``share`` says which part of the batch this device has. One of your own may ignore both."""


def augment_config(data: Data) -> AugmentConfig:
    """Returns the part of the settings that `AugmentConfig` holds."""
    return AugmentConfig((data.height, data.width), data.flip, data.crop_padding, data.erase_prob)


def augment(
    key: PRNGKeyArray,
    images: UInt8[Array, "N h w 3"],
    mean: Float[Array, "#H #W 3"],
    share: Share = WHOLE,
    *,
    config: AugmentConfig,
) -> Float[Array, "N H W 3"]:
    """Returns training images as the network sees them, in [0, 255]: flipped, resized, shifted, partly blotted out."""
    flip_key, crop_key, erase_key = jax.random.split(key, 3)
    x = resize(images, config.size)
    if config.flip:
        # As Caffe does: a mean image is subtracted where the camera saw the pixel, and mirrored with it.
        back = mean[None] if mean.shape[1] > 1 else jnp.zeros((1, 1, 1, 1))
        x = random_flip(flip_key, x - back, share) + back
    if config.crop_padding:
        x = random_crop(crop_key, x, config.crop_padding, mean, share)
    return random_erase(erase_key, x, config.erase_prob, mean, share) if config.erase_prob else x


def make_preprocess(config: AugmentConfig) -> Preprocess:
    """Returns the augmentation of the settings; with a size alone it only resizes.

    Args:
        config: Size that the network sees, and what is changed at random.

    Examples:
        >>> preprocess = make_preprocess(AugmentConfig((64, 32), flip=True))
        >>> images, mean = jnp.zeros((2, 128, 48, 3), jnp.uint8), jnp.zeros((1, 1, 3))
        >>> preprocess(jax.random.key(0), images, mean, WHOLE).shape
        (2, 64, 32, 3)
    """

    def preprocess(
        key: PRNGKeyArray, images: UInt8[Array, "N h w 3"], mean: Float[Array, "#H #W 3"], share: Share
    ) -> Float[Array, "N H W 3"]:
        return augment(key, images, mean, share, config=config)

    return preprocess
