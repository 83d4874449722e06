"""The figure of distances within and between identities, and its key numbers: before and after RRI, or run by run."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from svdnet_jax.reporting.figures.style import INK, TEXT, as_it_is, tidy
from svdnet_jax.retrieval.distributions import Distributions

# As right and wrong are coloured in ranked lists.
_POSITIVE, _NEGATIVE = "#009E73", "#D55E00"
_MARKED = (1e-3, 1e-2)
"""The false-match rate whose threshold is shown is the first of these that all of the data can tell."""


def distributions(by_moment: Mapping[str, Distributions]) -> Figure:
    """Draws the densities of distances, one panel each, and all ROC curves in the last one.

    Distances are divided by the mean distance between identities, as networks differ in the length of their features.

    Args:
        by_moment: Title -> distributions, in the order of time; at least one.

    Raises:
        ValueError: There are none.
    """
    if not by_moment:
        raise ValueError("there are no distributions to draw.")
    figure = Figure(figsize=(3.7 * (len(by_moment) + 1), 4.0), layout="constrained")
    *panels, last = figure.subplots(1, len(by_moment) + 1)
    rate = marked_rate(by_moment)
    bars = _bars(by_moment)
    for axes, (title, one) in zip(panels, by_moment.items(), strict=True):
        _densities(axes, one, bars, rate)
        tidy(axes, title, "density")
        axes.set_xlabel("distance / mean distance between identities", fontsize=TEXT, color=INK)
        axes.set_xlim(bars[0], bars[-1])
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, 1.22 * top)  # room for what the threshold gives
    _curves(last, by_moment, rate)
    pairs, curves = panels[0].get_legend_handles_labels(), last.get_legend_handles_labels()
    figure.legend(*pairs, loc="outside lower left", ncols=3, frameon=False, fontsize=TEXT)
    figure.legend(*curves, loc="outside lower right", ncols=4, frameon=False, fontsize=TEXT)
    return figure


def key_numbers(by_moment: Mapping[str, Distributions]) -> str:
    """Returns the numbers to compare, as text: d', the true matches at the threshold marked, and the equal error rate.

    Args:
        by_moment: What `distributions` draws; from one to the next there is an arrow.
    """
    several = by_moment.values()
    numbers = [f"d' {_arrow(f'{one.separation:.2f}' for one in several)}"]
    if (rate := marked_rate(by_moment)) is not None:
        true = _arrow(f"{100 * one.threshold(rate).true_match_rate:.1f} %" for one in several)
        numbers.append(f"true-match rate at a false-match rate of {100 * rate:g} %: {true}")
    numbers.append(f"equal error rate {_arrow(f'{100 * one.eer:.1f} %' for one in several)}")
    return "; ".join(numbers)


def marked_rate(by_moment: Mapping[str, Distributions]) -> float | None:
    """Returns the false-match rate at which they are compared: 0.1 %, for few images 1 %, None for very few."""
    return next((rate for rate in _MARKED if all(one.measures(rate) for one in by_moment.values())), None)


def _densities(axes: Axes, one: Distributions, bars: Float[np.ndarray, " b"], rate: float | None) -> None:
    """Draws both densities over the bars and, where there is a rate, its threshold."""
    unit = one.of_negatives().mean or 1.0
    sides = {"pairs of one identity": (one.positives, _POSITIVE), "pairs of two": (one.negatives, _NEGATIVE)}
    for name, (counts, color) in sides.items():
        inside, _ = np.histogram(one.edges / unit, bars, weights=counts)
        density = inside / counts.sum() / np.diff(bars)
        axes.stairs(density, bars, fill=True, color=color, alpha=0.3)
        axes.stairs(density, bars, color=color, linewidth=1.4, label=name)
    if rate is None:
        return
    threshold = one.threshold(rate)
    at = threshold.distance / unit
    axes.axvline(at, color=INK, linewidth=1, linestyle="--", label="threshold")
    left = at > (bars[0] + bars[-1]) / 2  # of the line, where there is more room
    axes.annotate(
        f"≤ {at:.2f} (distance {threshold.distance:.4g}):\n{100 * threshold.false_match_rate:.2g} % false matches\n"
        f"{100 * threshold.true_match_rate:.1f} % true matches",
        (at, 0.985),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-4 if left else 4, 0),
        textcoords="offset points",
        horizontalalignment="right" if left else "left",
        verticalalignment="top",
        fontsize=TEXT - 1,
        color=INK,
    )


def _curves(axes: Axes, by_moment: Mapping[str, Distributions], rate: float | None) -> None:
    """Draws the ROC curves, the later ones darker, down to where a rate is ten false matches or one in a million."""
    least = max(1e-4, min(10.0, *(1000 / one.of_negatives().pairs for one in by_moment.values())))
    shades = colormaps["viridis_r"](np.linspace(0.3, 1.0, len(by_moment)))
    for (title, one), shade in zip(by_moment.items(), shades, strict=True):
        false, true = one.roc()
        best = np.flatnonzero(np.diff(false, append=2))  # of points with one false-match rate
        x = np.maximum(100 * false[best], least / 10)  # zero has no place on a log axis
        axes.plot(x, 100 * true[best], drawstyle="steps-post", color=shade, linewidth=1.6, label=as_it_is(title))
    if rate is not None:
        axes.axvline(100 * rate, color=INK, linewidth=1, linestyle="--")
    tidy(axes, "ROC, by threshold", "true-match rate, per cent")
    axes.set_xscale("log")
    axes.set_xlim(least, 100)
    axes.set_ylim(0, 102)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("false-match rate, per cent (log scale)", fontsize=TEXT, color=INK)


def _bars(by_moment: Mapping[str, Distributions]) -> Float[np.ndarray, " b"]:
    """Bars shared by all panels, from the smallest to the largest distances; a thousandth at each end left out."""
    ends = []
    for one in by_moment.values():
        unit = one.of_negatives().mean or 1.0
        ends += [
            one.edges[_quantile(side, q)] / unit for side in (one.positives, one.negatives) for q in (0.001, 0.999)
        ]
    room = 0.05 * (max(ends) - min(ends)) or 0.05
    fewest = min(one.of_positives().pairs for one in by_moment.values())
    bars = int(np.clip(4 * fewest ** (1 / 3), 12, 120))  # few pairs in many bars would be a comb
    return np.linspace(max(0.0, min(ends) - room), max(ends) + room, bars + 1)


def _quantile(counts: Int[np.ndarray, " e"], share: float) -> int:
    """Returns the first edge up to which there is this share of the pairs."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _arrow(values: Iterable[str]) -> str:
    return " → ".join(values)
