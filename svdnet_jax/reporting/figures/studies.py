"""Figures of studies over seeds: results of variants side by side, and results against a number.

Every seed is a dot, so that a reader sees how much of a difference is chance; lines are means.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from svdnet_jax.reporting.figures.style import INK, TEXT, as_it_is, tidy

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's."""
Values = Mapping[str, Sequence[float]]
"""Name of a variant -> its value with each seed."""
Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""Name of a curve -> place on the axis -> its value with each seed."""


def side_by_side(panels: Mapping[str, Mapping[str, Values]], unit: str = "per cent") -> Figure:
    """Draws groups of values, one row a variant: a line at the mean, a dot a seed.

    Args:
        panels: Title -> legend entry -> variant -> values; every entry has the same variants, in one order. All
            entries are in the first panel.
        unit: Of the values.
    """
    rows = max(len(values) for entries in panels.values() for values in entries.values())
    figure = Figure(figsize=(4.6 * len(panels) + 1.2, 1.5 + 0.42 * rows), layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, entries) in zip(places, panels.items(), strict=True):
        _rows(axes, entries)
        tidy(axes, title, "")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color="#d9d9d9", linewidth=0.6)
        axes.set_xlabel(as_it_is(unit), fontsize=TEXT, color=INK)
    _legend(figure, places[0])
    return figure


def _rows(axes: Axes, entries: Mapping[str, Values]) -> None:
    height = 0.7 / len(entries)
    for number, (entry, values) in enumerate(entries.items()):
        color = PALETTE[number]
        for row, heights in enumerate(values.values()):
            place = row + (number - (len(entries) - 1) / 2) * height
            label = as_it_is(entry) if row == 0 else None
            axes.plot([np.mean(heights)] * 2, [place - height / 2.4, place + height / 2.4], color=color, linewidth=2)
            axes.plot(heights, [place] * len(heights), "o", color=color, markersize=4.5, alpha=0.8, label=label)
    axes.set_yticks(np.arange(len(values)), [as_it_is(name) for name in values])
    for edge in np.arange(1, len(values)) - 0.5:
        axes.axhline(edge, color="#eeeeee", linewidth=0.6, zorder=0)
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.02)


def against(
    panels: Mapping[str, Curves], label: str, *, logarithmic: bool = False, units: Sequence[str] = ()
) -> Figure:
    """Draws curves through the means over seeds, a dot a seed.

    Args:
        panels: Title -> curves. Of a name such as ``pooled, control`` the first part has a colour, the second a style.
        label: Of the horizontal axis.
        logarithmic: Whether that axis doubles from tick to tick.
        units: Of each panel's values; per cent where not given.
    """
    figure = Figure(figsize=(4.4 * len(panels) + 0.4, 4.0), layout="constrained")
    names = [name.partition(", ") for curves in panels.values() for name in curves]
    kinds, styles = ([*dict.fromkeys(name[place] for name in names)] for place in (0, 2))
    units = units or ["per cent"] * len(panels)
    axes_of = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves), unit in zip(axes_of, panels.items(), units, strict=True):
        for name, points in curves.items():
            kind, _, variant = name.partition(", ")
            color = PALETTE[kinds.index(kind) % len(PALETTE)]
            style = ("-", "--", ":")[styles.index(variant) % 3]
            means = [float(np.mean(values)) for values in points.values()]
            axes.plot(list(points), means, style, color=color, linewidth=1.6, label=as_it_is(name))
            for place, values in points.items():
                axes.plot([place] * len(values), values, "o", color=color, markersize=4, markeredgecolor="white")
        if logarithmic:
            axes.set_xscale("log", base=2)
        ticks = sorted({place for points in curves.values() for place in points})
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])
        tidy(axes, title, unit)
        axes.set_xlabel(as_it_is(label), fontsize=TEXT, color=INK)
        axes.margins(y=0.12)
    _legend(figure, axes_of[0])
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = min(4, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT)
