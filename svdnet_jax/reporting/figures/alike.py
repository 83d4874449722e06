"""What makes two images alike and what sets them apart, drawn over the images pixel by pixel."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from svdnet_jax.reporting.figures.ranked import RIGHT, WRONG, draw_frame, draw_picture, short
from svdnet_jax.reporting.figures.style import FAINT, INK, as_it_is
from svdnet_jax.retrieval.pixel_parts import PixelParts

ADDS, TAKES = (213, 94, 0), (0, 114, 178)
"""Colors of what adds and of what takes away: Okabe and Ito's vermillion and blue."""
STRONGEST = 0.8
"""Share of the color where a part is largest."""
PALE = 0.55
"""Share of white in the picture under it."""
_GAP = 0.25


@dataclass(frozen=True)
class Pair:
    """A query, a gallery image, and their parts."""

    query: UInt8[np.ndarray, "h w 3"]
    gallery: UInt8[np.ndarray, "h w 3"]
    parts: PixelParts
    heading: str
    """What this pair is."""
    query_name: str
    gallery_name: str
    right: bool
    """Whether both show one person."""


def overlay(
    picture: UInt8[np.ndarray, "h w 3"], part: Float[np.ndarray, "a b"], limit: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the picture, pale and gray, under the colors of a map: vermillion where it adds, blue where it takes.

    Args:
        picture: Any size.
        part: Of what its pixels contribute; interpolated linearly to the picture's size.
        limit: Size of a part that has the strongest color.
    """
    height, width = picture.shape[:2]
    map_ = Image.fromarray(part.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(map_) / (limit or 1.0), -1, 1)[..., None]
    gray = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    under = (PALE * 255 + (1 - PALE) * gray)[..., None]
    color = np.where(share > 0, np.array(ADDS, np.float32), np.array(TAKES, np.float32))
    strength = STRONGEST * np.abs(share)
    return np.rint((1 - strength) * under + strength * color).astype(np.uint8)


def overlays(
    query: UInt8[np.ndarray, "h w 3"], gallery: UInt8[np.ndarray, "h w 3"], parts: PixelParts
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Returns four pictures: what makes both alike on the query and on the gallery image, then what sets them apart.

    The two of a kind have one scale.
    """
    pictures = []
    for pair in ((parts.alike_query, parts.alike_gallery), (parts.apart_query, parts.apart_gallery)):
        limit = max(float(np.abs(part).max()) for part in pair)
        pictures += [overlay(picture, part, limit) for picture, part in zip((query, gallery), pair, strict=True)]
    return pictures


def alike(pairs: Sequence[Pair], title: str) -> Figure:
    """Draws pairs, one row each: both images, what makes them alike, what sets them apart.

    Args:
        pairs: At least one; all pictures have one shape.
        title: What is shown.

    Raises:
        ValueError: There is no pair.
    """
    if not pairs:
        raise ValueError("there is no pair to draw")
    tall = pairs[0].query.shape[0] / pairs[0].query.shape[1]
    wide, pitch, head = 6 + 2 * _GAP, 0.9 * tall + 0.55, 0.35
    high = head + len(pairs) * pitch
    inches = 6 / wide
    figure = Figure(figsize=(6, high * inches + 0.6), layout="constrained")
    axes = figure.subplots()
    for column, text in enumerate(("query and gallery image", "what makes them alike", "what sets them apart")):
        axes.text(_left(2 * column), 0.15, text, fontsize=8, fontweight="bold", color=INK, va="center")
    for row, pair in enumerate(pairs):
        _draw_pair(axes, pair, head + row * pitch + 0.2, tall)
    axes.set(xlim=(-0.05, wide), ylim=(high, 0), aspect="equal")
    axes.set_axis_off()
    axes.set_title(textwrap.fill(as_it_is(title), 95), fontsize=8, color=INK, loc="left")
    return figure


def _left(column: int) -> float:
    return column + column // 2 * _GAP


def _draw_pair(axes: Axes, pair: Pair, y: float, tall: float) -> None:
    """Draws a row with the top edge of its pictures at y."""
    axes.text(0, y - 0.08, as_it_is(pair.heading), fontsize=7, color=INK, va="bottom")
    frames = (FAINT, RIGHT if pair.right else WRONG)
    for column, picture in enumerate((pair.query, pair.gallery, *overlays(pair.query, pair.gallery, pair.parts))):
        draw_picture(axes, picture, _left(column), y, tall)
        draw_frame(axes, _left(column), y, tall, frames[column % 2])
    below, parts = y + 0.9 * tall + 0.06, pair.parts
    mark = "✓" if pair.right else "✗"
    sums = parts.apart_query.sum(), parts.apart_gallery.sum()
    texts = (
        short(pair.query_name),
        f"{mark} {short(pair.gallery_name)}",
        *(f"adds up to {parts.similarity:.3g}",) * 2,
        *(f"{each:.3g} of {sum(sums):.3g}" for each in sums),
    )
    for column, text in enumerate(texts):
        color = INK if column != 1 else frames[1]
        size = 4.0 if column < 2 else 6
        axes.text(_left(column) + 0.45, below, as_it_is(text), fontsize=size, color=color, ha="center", va="top")
