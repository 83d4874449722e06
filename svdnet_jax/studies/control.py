"""What decorrelation adds: RRI against the same budget without it, over seeds.

    svdnet study control
    svdnet study control --preset short-resnet50 --data.root Market-1501 --model.weights resnet50.h5

Both start from the same Step 0 of a seed and train for the same steps at the same learning rates; the table is that of
svdnet compare, which refuses pairs that do not. On two idle CPU cores a seed takes about two minutes.
"""

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.config.schema import Config
from svdnet_jax.reporting.log import Record
from svdnet_jax.studies import comparison, study, summary
from svdnet_jax.studies.decorrelation import with_rri

NAMES = {"Step 0": ("us", 0), "RRI": ("us", -1), "control": ("none", -1)}


def variants(options: study.Options) -> dict[str, Config]:
    """Returns the settings of RRI and of its control, by name."""
    return {method: with_rri(options.run, method=method) for method in ("us", "none")}


def measure(options: study.Options, console: Console) -> list[Record]:
    """Trains both with each seed and checks that they are pairs."""
    lines = study.train(options, variants(options), console)
    folders = [[options.folder / f"{name}-{seed}" for seed in options.seeds] for name in variants(options)]
    comparison.load_pairs(*folders)
    return lines


def tables(lines: summary.Lines) -> list[Table]:
    """Returns the table of `svdnet_jax.studies.comparison`."""
    return [comparison.table([*zip(*(summary.runs_of(lines, name) for name in ("us", "none")), strict=True)])]


def figure(lines: summary.Lines) -> Figure:
    """Returns retrieval of Step 0, RRI and control with each seed."""
    by_name = {name: summary.at_round(lines, *which) for name, which in NAMES.items()}
    return summary.retrieval_figure(by_name)


STUDY = study.Study(
    "control",
    "RRI and its control",
    study.Options,
    measure,
    tables,
    figure,
    "Does not show: what a longer Step 0 in place of the rounds would give, nor other learning rates for the control.",
)
