"""Figures of an evaluation: CMC curves, and rank-1 and mAP between cameras."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from svdnet_jax.reporting.figures.style import FAINT, INK, TEXT, as_it_is, tidy
from svdnet_jax.retrieval.camera_pairs import CameraPairs
from svdnet_jax.retrieval.results import Report

_LINES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"))
RANKS = (1, 5, 10, 20, 30, 40, 50)
"""Where a CMC has its ticks; it ends at the last."""
NUMBERED = 12
"""Most cameras on a side whose cells have their numbers written in."""


def cmc(reports: Mapping[str, Report]) -> Figure:
    """Draws CMC curves: the share of queries with a right answer among the first k.

    Args:
        reports: Name -> what was found, at most four; rank-1 and mAP are added to the names.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for (name, report), (color, style) in zip(reports.items(), _LINES, strict=False):
        shown = 100 * report.cmc[: RANKS[-1]]
        label = f"{name}: rank-1 {shown[0]:.1f}, mAP {100 * report.mAP:.1f}"
        # Few ranks are few points: marked, as a line between them would be lost.
        mark = "o" if len(shown) <= 10 else None
        axes.plot(
            np.arange(1, len(shown) + 1), shown, style, color=color, linewidth=1.8, marker=mark, label=as_it_is(label)
        )
    tidy(axes, "Queries with a right answer among the first k", "per cent")
    axes.set_xlabel("k", fontsize=TEXT, color=INK)
    last = max(len(report.cmc) for report in reports.values())
    axes.set_xticks([k for k in RANKS if k <= last])
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.margins(x=0.02, y=0.08)
    axes.legend(loc="lower right", frameon=False, fontsize=TEXT)
    return figure


def camera_pairs(pairs: CameraPairs) -> Figure:
    """Draws rank-1 and mAP from each query camera to each gallery camera, as heat maps on one scale.

    Args:
        pairs: What was found.
    """
    wide, high = len(pairs.gallery_cameras), len(pairs.query_cameras)
    figure = Figure(figsize=(10, 1.6 + 3.6 * min(1.6, max(0.5, high / wide))), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, values, title in zip(panels, (pairs.rank1, pairs.mAP), ("Rank-1", "mAP"), strict=True):
        image = axes.imshow(100 * values, vmin=0, vmax=100, cmap="Blues", aspect="auto")
        axes.set_facecolor("#eeeeee")  # pairs without a query
        axes.set_title(f"{title} between cameras", fontsize=TEXT + 1, color=INK, loc="left")
        axes.set_xlabel("gallery camera", fontsize=TEXT, color=INK)
        axes.set_ylabel("query camera", fontsize=TEXT, color=INK)
        _name(axes, pairs)
        if max(wide, high) <= NUMBERED:
            _write(axes, 100 * values)
        axes.tick_params(labelsize=TEXT - 1, color=FAINT, labelcolor=INK, length=0)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.9, pad=0.02)
    bar.set_label("per cent; grey: no query", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=TEXT - 1, color=FAINT, labelcolor=INK)
    bar.outline.set_visible(False)
    return figure


def _name(axes: Axes, pairs: CameraPairs) -> None:
    """Returns camera numbers at the sides, as many as there is room for."""
    for side, cameras in ((axes.xaxis, pairs.gallery_cameras), (axes.yaxis, pairs.query_cameras)):
        step = -(-len(cameras) // NUMBERED)
        side.set_ticks(np.arange(len(cameras))[::step], [str(camera) for camera in cameras[::step]])


def _write(axes: Axes, values: Float[np.ndarray, "a b"]) -> None:
    """Returns the numbers into the cells."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "white" if value > 60 else INK
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=TEXT - 1, color=color)
