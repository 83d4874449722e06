"""Random changes of training images, as pure functions of a key; each image of a batch has its own draw.

What a change uncovers or blots out gets ``fill``. Where that is what the network subtracts (a colour, or an image
of the network's size), those pixels are zero to it.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8

Images = TypeVar("Images", UInt8[Array, "N H W 3"], Float[Array, "N H W 3"])


class Share(NamedTuple):
    """Selects this device's rows of the random draws, so that results do not depend on the number of devices."""

    parts: int = 1
    number: Int[Array, ""] | int = 0

    def of(self, draws: Shaped[Array, "M ..."]) -> Shaped[Array, "N ..."]:
        """Returns the rows of this part."""
        rows = len(draws) // self.parts
        return draws if self.parts == 1 else jax.lax.dynamic_slice_in_dim(draws, self.number * rows, rows)


WHOLE = Share()

_AREA = (0.02, 0.4)  # Shares of the image and ratios of height to width of the strong baseline's random erasing.
_ASPECT = (0.3, 1 / 0.3)
_TRIES = 8


def random_flip(key: PRNGKeyArray, images: Images, share: Share = WHOLE) -> Images:
    """Mirrors each image left to right with probability 1/2."""
    mirrored: Bool[Array, " N"] = share.of(jax.random.bernoulli(key, 0.5, (share.parts * len(images),)))
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_crop(
    key: PRNGKeyArray,
    images: Float[Array, "N H W 3"],
    padding: int,
    fill: Float[Array, "#H #W 3"],
    share: Share = WHOLE,
) -> Float[Array, "N H W 3"]:
    """Pads every side and cuts each image back to its size at a random place: a shift by up to ``padding`` pixels.

    Args:
        key: Of the places.
        images: In the unit of ``fill``.
        padding: Pixels on each side.
        fill: What the cut shows outside of the image; its pixels stay where they are, whatever the shift.
        share: Which part of the batch the images are.
    """
    n, height, width, _ = images.shape
    corners = share.of(jax.random.randint(key, (share.parts * n, 2), 0, 2 * padding + 1))
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def cut(image: Float[Array, "h w 3"], corner: Int[Array, " 2"]) -> Float[Array, "H W 3"]:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, 3))

    # Row y of the cut is row y + corner of the padded image, of which the image is rows padding .. padding + H - 1.
    inside = _rectangles((height, width), padding - corners, jnp.array([[height, width]]))
    return jnp.where(inside, jax.vmap(cut)(padded, corners), fill)


def random_erase(
    key: PRNGKeyArray,
    images: Float[Array, "N H W 3"],
    probability: float,
    fill: Float[Array, "#H #W 3"],
    share: Share = WHOLE,
) -> Float[Array, "N H W 3"]:
    """Blots out a random rectangle of some images (random erasing: Zhong et al. 2017, algorithm 1).

    Its area is uniform in 0.02 to 0.4 of the image and its height over its width uniform in 0.3 to 1/0.3, both
    before sides are rounded to pixels; drawn again until both sides are shorter than the image's, as in the strong
    baseline's code. Of 8 draws the first that fits is used. An image stays whole if none does: in 256 x 128 a draw
    fails with 5.5 %, all eight with 1e-10.

    Args:
        key: Of the images chosen and of their rectangles.
        images: In the unit of ``fill``.
        probability: Share of images to change.
        fill: What the rectangles show.
        share: Which part of the batch the images are.
    """
    height, width = images.shape[1:3]
    n = share.parts * len(images)
    size = jnp.array([height, width])
    chosen_key, area_key, aspect_key, corner_key = jax.random.split(key, 4)
    chosen = jax.random.bernoulli(chosen_key, probability, (n,))
    area = height * width * jax.random.uniform(area_key, (n, _TRIES), minval=_AREA[0], maxval=_AREA[1])
    aspect = jax.random.uniform(aspect_key, (n, _TRIES), minval=_ASPECT[0], maxval=_ASPECT[1])
    tries = jnp.round(jnp.sqrt(jnp.stack([area * aspect, area / aspect], axis=-1))).astype(size.dtype)
    fits = jnp.all(tries < size[None, None, :], axis=-1)
    first = jnp.argmax(fits, axis=1)
    sides = jnp.take_along_axis(tries, first[:, None, None], axis=1)[:, 0]
    corners = jax.random.randint(corner_key, (n, 2), 0, size[None, :] - sides + 1)
    changed = chosen & jnp.any(fits, axis=1)
    sides = jnp.where(changed[:, None], sides, jnp.zeros_like(sides))
    return jnp.where(_rectangles((height, width), share.of(corners), share.of(sides)), fill, images)


def _rectangles(
    size: tuple[int, int], corners: Int[Array, "N 2"], sides: Int[Array, "#N 2"]
) -> Bool[Array, "N {size[0]} {size[1]} 1"]:
    """Returns which pixels of each image lie in its rectangle; corners and sides are (vertical, horizontal)."""

    def within(axis: int) -> Bool[Array, "N _"]:
        place = jnp.arange(size[axis])[None, :] - corners[:, axis, None]
        return (place >= 0) & (place < sides[:, axis, None])

    return (within(0)[:, :, None] & within(1)[:, None, :])[..., None]
