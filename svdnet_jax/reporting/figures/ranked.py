"""The figure of ranked lists: queries and the gallery images nearest to them, right or wrong."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from svdnet_jax.reporting.figures.style import FAINT, INK, as_it_is

RIGHT, WRONG = "#009E73", "#D55E00"
"""Colors of frames."""
_MARKS = {True: (RIGHT, "✓ "), False: (WRONG, "✗ "), None: (FAINT, "")}
_GAP = 0.35  # between the query and its list, in widths of a picture
_FEWEST = 7  # images there is room for, so that short lists do not fill the page


@dataclass(frozen=True)
class RankedList:
    """One query and the head of its ranking, nearest first."""

    query: UInt8[np.ndarray, "h w 3"]
    query_caption: str
    gallery: Sequence[UInt8[np.ndarray, "h w 3"]]
    right: Bool[np.ndarray, " K"] | Sequence[bool | None]
    """Which of the gallery images show the query's identity; None where that is not known."""
    captions: Sequence[str]
    average_precision: float | None
    """Plain AP of the whole ranking, in [0, 1]; None where that is not known."""
    query_name: str
    """Of its file."""
    names: Sequence[str]
    """Of the gallery images' files."""


def choose_queries(average_precisions: Float[np.ndarray, " Q"], count: int = 2) -> dict[str, Int[np.ndarray, " N"]]:
    """Chooses the queries to show: those with the best, the median and the worst AP.

    Equal APs keep the order of the queries, so the choice is the same in every run.

    Args:
        average_precisions: AP of each query; NaN for one without a positive, never chosen.
        count: Queries of each sort; fewer if there are not enough for every query to appear once.

    Returns:
        Name of the sort -> positions of its queries, by falling AP; under three queries there is one sort, "all".
    """
    valid = np.flatnonzero(~np.isnan(average_precisions))
    order = valid[np.argsort(-average_precisions[valid], kind="stable")]
    if len(order) < 3:
        return {"all": order}
    count = min(count, len(order) // 3)
    middle = (len(order) - count) // 2
    return {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }


def ranked_lists(sections: Mapping[str, Sequence[RankedList]], title: str) -> Figure:
    """Draws ranked lists, one row each: green and a tick where right, red and a cross where wrong, gray where unknown.

    Args:
        sections: Heading -> its rows; all rows of the figure have pictures of one shape.
        title: What is shown, and how the queries were chosen.

    Raises:
        ValueError: There is no row.
    """
    rows = [row for section in sections.values() for row in section]
    if not rows:
        raise ValueError("there is no ranked list to draw: every section is empty")
    tall = rows[0].query.shape[0] / rows[0].query.shape[1]
    wide = 1 + _GAP + max(_FEWEST, *(len(row.gallery) for row in rows))
    pitch, head = 0.9 * tall + 0.65, 0.45
    high = len(rows) * pitch + len(sections) * head
    inches = 9 / (wide + 0.3)
    figure = Figure(figsize=(9, high * inches + 0.5), layout="constrained")
    axes = figure.subplots()
    y = 0.0
    for heading, section in sections.items():
        y += head
        axes.text(-0.02, y - 0.12, as_it_is(heading), fontsize=10, fontweight="bold", color=INK)
        for row in section:
            _draw_row(axes, row, y, tall)
            y += pitch
    axes.set(xlim=(-0.05, wide), ylim=(high, 0), aspect="equal")
    axes.set_axis_off()
    axes.set_title(textwrap.fill(as_it_is(title), 110), fontsize=10, color=INK, loc="left")
    return figure


def _draw_row(axes: Axes, row: RankedList, y: float, tall: float) -> None:
    """Draws a query and its list with the top edge at y."""
    draw_picture(axes, row.query, 0, y, tall)
    draw_frame(axes, 0, y, tall, FAINT)
    below = y + 0.9 * tall + 0.07
    axes.text(0.45, below, as_it_is(row.query_caption), fontsize=6.5, color=INK, ha="center", va="top")
    if row.average_precision is not None:
        ap = f"AP {100 * row.average_precision:.0f} %"
        axes.text(0.45, below + 0.18, ap, fontsize=6.5, color=INK, ha="center", va="top")
    _draw_name(axes, row.query_name, 0.45, below + 0.38)
    found = zip(row.gallery, row.right, row.captions, row.names, strict=True)
    for rank, (picture, right, caption, name) in enumerate(found):
        x = 1 + _GAP + rank
        color, mark = _MARKS[None if right is None else bool(right)]
        draw_picture(axes, picture, x, y, tall)
        draw_frame(axes, x, y, tall, color)
        text = as_it_is(f"{mark}{caption}")
        axes.text(x + 0.45, below, text, fontsize=6.5, color=INK if right is None else color, ha="center", va="top")
        _draw_name(axes, name, x + 0.45, below + 0.19)


def _draw_name(axes: Axes, name: str, x: float, y: float) -> None:
    axes.text(x, y, as_it_is(short(name)), fontsize=3.9, color=INK, ha="center", va="top")


def draw_picture(axes: Axes, picture: UInt8[np.ndarray, "h w 3"], x: float, y: float, tall: float) -> None:
    """Draws a picture 0.9 wide, its upper left corner at (x, y)."""
    axes.imshow(picture, extent=(x, x + 0.9, y + 0.9 * tall, y), interpolation="antialiased")


def draw_frame(axes: Axes, x: float, y: float, tall: float, color: str) -> None:
    """Frames a picture."""
    axes.add_patch(Rectangle((x, y), 0.9, 0.9 * tall, fill=False, edgecolor=color, linewidth=2))


def short(name: str, most: int = 24) -> str:
    """Returns the end of a path that fits under a picture: the file's name, its middle left out where it is long."""
    last = name.rpartition("/")[2]
    return last if len(last) <= most else f"{last[: most // 2 - 1]}…{last[-(most // 2) :]}"
