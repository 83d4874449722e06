"""What decorrelation adds: RRI against the same budget without it, over seeds.

    svdnet study control
    svdnet study control --preset short-resnet50 --data.root Market-1501 --model.weights resnet50.h5

Both start from the same Step 0 of a seed and train for the same steps, each at the rate that was chosen for it from the
same grid, on held-out identities. On two CPU cores ten seeds take half an hour, and the choice before them ten minutes.
"""

from dataclasses import dataclass

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.config.schema import Config
from svdnet_jax.reporting.log import Record
from svdnet_jax.studies import comparison, study, summary
from svdnet_jax.studies.choice import chosen
from svdnet_jax.studies.decorrelation import with_rri

NAMES = {"Step 0": ("us", 0), "RRI": ("us", -1), "control": ("none", -1)}


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of the runs, in place of --seed: three cannot tell a gain of four points from one of two."""


def variants(options: study.Options) -> dict[str, Config]:
    """Returns the settings of RRI and of its control, by name."""
    return {method: with_rri(options.run, method=method) for method in ("us", "none")}


def measure(options: study.Options, console: Console) -> list[Record]:
    """Trains both with each seed, each with the rate that suits it."""
    runs, choices = chosen(options, variants(options), {"us": "us", "none": "none"}, console)
    return choices + study.train(options, runs, console)


def tables(lines: summary.Lines) -> list[Table]:
    """Returns the table of `svdnet_jax.studies.comparison`."""
    number = summary.last_round(lines)
    difference = summary.difference_table(lines, {"RRI - control": ("us", "none")}, number, "Difference")
    # By seed, as that table has found the same ones in both.
    runs, controls = ({run[0]["seed"]: run for run in summary.runs_of(lines, name)} for name in ("us", "none"))
    return [comparison.table([comparison.Pair(runs[seed], controls[seed]) for seed in runs]), difference]


def figure(lines: summary.Lines) -> Figure:
    """Returns retrieval of Step 0, RRI and control with each seed."""
    by_name = {name: summary.at_round(lines, *which) for name, which in NAMES.items()}
    return summary.retrieval_figure(by_name)


STUDY = study.Study(
    "control",
    "RRI and its control",
    Options,
    measure,
    tables,
    figure,
    "Does not show: what a longer Step 0 in place of the rounds would give.",
)
