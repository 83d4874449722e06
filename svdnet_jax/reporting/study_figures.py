"""Figures of studies over seeds: results of variants side by side, and results against a number.

Every seed is a dot, so that a reader sees how much of a difference is chance; bars and lines are means.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from svdnet_jax.reporting.figures import INK, TEXT, tidy

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's."""
Values = Mapping[str, Sequence[float]]
"""Name of a variant -> its value with each seed."""
Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""Name of a curve -> place on the axis -> its value with each seed."""


def side_by_side(panels: Mapping[str, Mapping[str, Values]], unit: str = "per cent") -> Figure:
    """Draws groups of values, one row a variant: a bar to the mean, a dot a seed.

    Args:
        panels: Title -> legend entry -> variant -> values; every entry has the same variants, in one order.
        unit: Of the values.
    """
    rows = max(len(values) for entries in panels.values() for values in entries.values())
    figure = Figure(figsize=(4.6 * len(panels) + 1.2, 1.5 + 0.42 * rows), layout="constrained")
    for axes, (title, entries) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _bars(axes, entries)
        tidy(axes, title, "")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color="#d9d9d9", linewidth=0.6)
        axes.set_xlabel(unit, fontsize=TEXT, color=INK)
    _legend(figure, axes)
    return figure


def _bars(axes: Axes, entries: Mapping[str, Values]) -> None:
    height = 0.8 / len(entries)
    for number, (entry, values) in enumerate(entries.items()):
        places = np.arange(len(values)) + (number - (len(entries) - 1) / 2) * height
        means = [float(np.mean(found)) for found in values.values()]
        axes.barh(places, means, 0.9 * height, color=PALETTE[number], alpha=0.55, label=entry, linewidth=0)
        for place, found in zip(places, values.values(), strict=True):
            axes.plot(found, [place] * len(found), "o", color=PALETTE[number], markersize=4, markeredgecolor="white")
    axes.set_yticks(np.arange(len(values)), list(values))
    axes.invert_yaxis()
    every = [value for values in entries.values() for found in values.values() for value in found]
    # From near the lowest: what differs is small beside what all have in common.
    low, high = min(every), max(every)
    room = max(high - low, 1e-3)
    axes.set_xlim(max(0.0, low - 0.6 * room) if low >= 0 else low - 0.2 * room, high + 0.15 * room)


def against(
    panels: Mapping[str, Curves], label: str, *, logarithmic: bool = False, units: Sequence[str] = ()
) -> Figure:
    """Draws curves through the means over seeds, a dot a seed.

    Args:
        panels: Title -> curves.
        label: Of the horizontal axis.
        logarithmic: Whether that axis doubles from tick to tick.
        units: Of each panel's values; per cent where not given.
    """
    figure = Figure(figsize=(4.4 * len(panels) + 0.4, 4.0), layout="constrained")
    units = units or ["per cent"] * len(panels)
    found = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves), unit in zip(found, panels.items(), units, strict=True):
        for number, (name, points) in enumerate(curves.items()):
            colour = PALETTE[number % len(PALETTE)]
            means = [float(np.mean(values)) for values in points.values()]
            axes.plot(list(points), means, "-" if number < 3 else "--", color=colour, linewidth=1.6, label=name)
            for place, values in points.items():
                axes.plot([place] * len(values), values, "o", color=colour, markersize=4, markeredgecolor="white")
        if logarithmic:
            axes.set_xscale("log", base=2)
        ticks = sorted({place for points in curves.values() for place in points})
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])
        tidy(axes, title, unit)
        axes.set_xlabel(label, fontsize=TEXT, color=INK)
        axes.margins(y=0.12)
    _legend(figure, found[0])
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = min(4, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT)
