"""The figures of one run: curves over the steps, retrieval by round, Gram matrices, singular values of W."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from svdnet_jax.reporting.figures.style import FAINT, INK, TEXT, as_it_is, tidy
from svdnet_jax.reporting.log import Record, after_rounds, borders
from svdnet_jax.retrieval.intervals import Sums
from svdnet_jax.training.schedule import ScheduledPhase

COLORS = {"embedding": "#0072B2", "pooled": "#D55E00"}
SHADES = {"base": "#f1f1f1", "restraint": "#dcd9ee", "relaxation": "#fdf3c8", "final": "#dcd9ee"}


def curves(records: Sequence[Record], phases: Sequence[ScheduledPhase]) -> Figure:
    """Draws training loss and S(W) over the steps of a run, with its phases shaded.

    Args:
        records: Lines of the log.
        phases: The plan of the run, which says when phases begin and rates are lowered: lines of the log stand some
            steps behind. What comes after the last line is left out.
    """
    phases = _reached(records, phases)
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes in (above, below):
        _shade(axes, records, phases)
    _number_rounds(above, records, phases)
    _draw_loss(above, records, phases)
    series = _series(records, "correlation", ("step", "phase"))
    below.plot(*series, color=COLORS["embedding"], linewidth=1.4)
    below.set_ylim(0, 1.05)
    tidy(below, "Correlation S(W) of the Eigenlayer: 1 = orthogonal columns", "S(W)")
    below.set_xlabel("step", fontsize=TEXT, color=INK)
    named = dict(zip(*reversed(above.get_legend_handles_labels()), strict=True))
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=TEXT,
    )
    figure.align_ylabels()
    return figure


def rounds(
    records: Sequence[Record], control: Sequence[Record] | None = None, sums: Mapping[int, Sums] = MappingProxyType({})
) -> Figure:
    """Draws rank-1 and mAP of both embeddings over the rounds.

    Args:
        records: Lines of the log.
        control: Lines of the log of a run with the same budget and no decorrelation.
        sums: Round -> the run's results by identity, by embedding; they give the bands.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    runs = [(records, "-", "o")] + ([(control, "--", "s")] if control else [])
    for axes, measure, title in zip(
        panels, ("rank1", "mAP"), ("Rank-1 accuracy", "mAP (plain average precision)"), strict=True
    ):
        for log, style, marker in runs:
            for name, color in COLORS.items():
                judged = after_rounds(log)
                axes.plot(
                    [r["round"] for r in judged],
                    [100 * r[name][measure] for r in judged],
                    linestyle=style,
                    marker=marker,
                    markersize=5,
                    markerfacecolor=color if style == "-" else "white",
                    color=color,
                    linewidth=1.6,
                    label=f"{name}, {'RRI' if style == '-' else 'control'}" if control else name,
                )
        _band(axes, sums, measure)
        axes.margins(y=0.12)
        tidy(axes, title, f"per cent; the axis starts at {axes.get_ylim()[0]:.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}" if value > 0 else "base")
        axes.set_xlabel("after relaxation of round", fontsize=TEXT, color=INK)
    handles = panels[0].get_lines()
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=TEXT)
    return figure


def _band(axes: Axes, sums: Mapping[int, Sums], measure: str) -> None:
    """Draws the 95 % intervals over the people of the test set."""
    for name, color in COLORS.items():
        ends = {number: each[name].interval(measure) for number, each in sums.items()}
        low, high = ([100 * getattr(each, end) for each in ends.values()] for end in ("low", "high"))
        axes.fill_between([*ends], low, high, color=color, alpha=0.14, linewidth=0)


def gram(matrices: Mapping[str, Float[np.ndarray, "D D"]]) -> Figure:
    """Draws |cosine| between the columns of W at some moments, as heat maps on one scale.

    Args:
        matrices: Name of the moment -> Gram matrix WᵀW; S(W) is added to the names.
    """
    figure = Figure(figsize=(3.6 * len(matrices) + 0.6, 3.8), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        size = np.abs(matrix)
        norms = np.sqrt(np.diag(size))
        scale = np.outer(norms, norms)
        # A column of zeros has no direction: it is shown as orthogonal to all.
        cosines = np.divide(size, scale, out=np.zeros_like(size), where=scale > 0)
        image = axes.imshow(cosines, vmin=0, vmax=1, cmap="Blues", interpolation="antialiased")
        correlation = np.trace(size) / size.sum()
        axes.set_title(as_it_is(f"{title}: S(W) = {correlation:.3f}"), fontsize=TEXT + 1, color=INK)
        axes.set_xlabel("column of W", fontsize=TEXT, color=INK)
        axes.tick_params(labelsize=TEXT - 1, color=FAINT, labelcolor=INK)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.85, pad=0.02)
    bar.set_label("|cosine| between columns", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=TEXT - 1, color=FAINT, labelcolor=INK)
    bar.outline.set_visible(False)
    return figure


def singular_values(spectra: Mapping[str, Float[np.ndarray, " D"]]) -> Figure:
    """Draws the singular values of W at several moments.

    Args:
        spectra: Name of the moment -> singular values, largest first; in the order of time.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    shades = colormaps["viridis_r"](np.linspace(0.12, 1.0, len(spectra)))
    for (name, values), shade in zip(spectra.items(), shades, strict=True):
        axes.plot(np.arange(1, len(values) + 1), values, color=shade, linewidth=1.5, label=as_it_is(name))
    _log_scale(axes)
    axes.set_xlim(1, max(len(values) for values in spectra.values()))
    axes.legend(loc="upper right", frameon=False, fontsize=TEXT)
    tidy(axes, "Singular values of the Eigenlayer's W", "singular value (log scale)")
    axes.set_xlabel("index, largest first", fontsize=TEXT, color=INK)
    return figure


def _draw_loss(axes: Axes, records: Sequence[Record], phases: Sequence[ScheduledPhase]) -> None:
    """Draws the loss of steps and of borders, and marks where a phase lowers its learning rate."""
    steps = [r for r in records if r["event"] == "step"]
    last = _last_step(records)
    drops = [place for phase in phases for place in phase.drops if place < last]
    axes.plot(
        [r["step"] for r in steps],
        [r["loss"] for r in steps],
        color=COLORS["embedding"],
        linewidth=1.4,
        label="loss in training",
    )
    moments, losses = _series(records, "loss", ("phase",))
    if moments:
        label = "loss at borders, no dropout"
        axes.plot(moments, losses, "o", color=INK, markersize=3.5, clip_on=False, label=label)
    if drops:
        at_edge = axes.get_xaxis_transform()
        heights = [0.04] * len(drops)
        label = "learning rate lowered"
        axes.plot(drops, heights, "v", color=INK, markersize=5, transform=at_edge, label=label)
    _log_scale(axes)
    axes.margins(y=0.16)
    tidy(axes, "Training loss", "cross-entropy (log scale)")


def _series(records: Sequence[Record], name: str, events: tuple[str, ...]) -> tuple[list[int], list[float]]:
    """Returns steps and values; a decorrelation gives two at one step, so its jump is upright."""
    points: list[tuple[int, float]] = []
    for record in records:
        if record["event"] in events and name in record:
            points.append((record["step"], record[name]))
        elif record["event"] == "decorrelate":
            points += [(record["step"], record[name][when]) for when in ("before", "after")]
    return [step for step, _ in points], [value for _, value in points]


def _last_step(records: Sequence[Record]) -> int:
    return max(record["step"] for record in records if record["event"] in ("step", "phase"))


def _reached(records: Sequence[Record], phases: Sequence[ScheduledPhase]) -> list[ScheduledPhase]:
    """Returns the phases of the plan that were begun.

    Raises:
        ValueError: The log is of another plan: it has a line of another phase at that step.
    """
    begun = [phase for phase in phases if phase.start < _last_step(records)]
    for record in records:
        if record["event"] in ("step", "phase"):
            there = [(phase.kind, phase.round) for phase in begun if phase.start < record["step"] <= phase.end]
            if there != [(record["phase"], record["round"])]:
                raise ValueError(
                    f"the log has step {record['step']} in {record['phase']} of round {record['round']}, and the plan "
                    f"{there or 'nothing'}: they are not of one run"
                )
    return begun


def _shade(axes: Axes, records: Sequence[Record], phases: Sequence[ScheduledPhase]) -> None:
    """Shades the phases and draws a line at each decorrelation."""
    last = _last_step(records)
    for phase in phases:
        axes.axvspan(
            phase.start, min(phase.end, last), color=SHADES[phase.kind], linewidth=0, zorder=0, label=phase.kind
        )
    for record in borders(records):
        if record["event"] == "decorrelate":
            name = "decorrelation"
            axes.axvline(record["step"], color=INK, linewidth=0.8, ls=":", zorder=1, label=name)
    axes.set_xlim(0, last)


def _number_rounds(axes: Axes, records: Sequence[Record], phases: Sequence[ScheduledPhase]) -> None:
    """Writes `base`, `round 1`, 2, 3 ... over the phases, inside the axes' upper edge."""
    numbers = sorted({phase.round for phase in phases})
    names = {number: str(number) for number in numbers} | {0: "base"}
    if len(numbers) < 10:  # more leave no room for the word
        names[1] = "round 1"
    for number in numbers:
        parts = [phase for phase in phases if phase.round == number]
        middle = (parts[0].start + min(parts[-1].end, _last_step(records))) / 2
        axes.text(
            middle,
            0.97,
            names[number],
            transform=axes.get_xaxis_transform(),
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=TEXT - 1,
            color=INK,
        )


def _log_scale(axes: Axes) -> None:
    """Makes the vertical axis logarithmic, with plain numbers at 1, 2 and 5 of every decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
