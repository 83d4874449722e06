"""What gains: columns that are orthogonal, or the shock to the classifier? W = U S against W R, R a random rotation.

    svdnet study rotation
    svdnet study rotation --preset short-resnet50 --data.root Market-1501 --model.weights ...

U S is W V: a rotation of the features, which leaves every distance as it was, makes the columns orthogonal, and throws
the classifier off. W R with a random orthogonal R does the same but for the orthogonality: S(W) stays low. Both go
through as many rounds, with and without matched columns, with and without the classifier turned with the features
(which takes the shock away); nothing in place of W is the control of both.

The second table has the differences with 95 % intervals: over seeds by Student's t, and over the identities of the
test set by resampling them, mean over the seeds. On two idle CPU cores a seed takes about four minutes.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.config.schema import Config
from svdnet_jax.reporting.log import Record
from svdnet_jax.studies import control, study, summary
from svdnet_jax.studies.choice import chosen
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.decorrelation import with_rri

CONTROL = "nothing (control)"


@dataclass(frozen=True)
class Options(control.Options):
    """What to compare."""

    variants_rounds: int = 2
    """Rounds of the variants that no other study needs; what is compared is what all have after so many."""


class Title(NamedTuple):
    """What tables and figure call a variant."""

    method: str
    matched: bool
    turned: bool

    def __str__(self) -> str:
        return {"us": "U S", "rotation": "W R"}[self.method] + self.how

    @property
    def how(self) -> str:
        """What is done beside replacing W."""
        return ("" if self.matched else ", unmatched") + (", turned" if self.turned else "")


TITLES = {
    method + ("" if matched else "-unmatched") + ("-turned" if turned else ""): Title(method, matched, turned)
    for method in ("us", "rotation")
    for matched in (True, False)
    for turned in (False, True)
}


ALIKE = {name: name.replace("us", "rotation", 1) for name in TITLES if name.startswith("us")}
"""Each U S and the rotation that is like it in all else."""


LESS_CONTROL = {str(title): (name, "none") for name, title in TITLES.items()}
LESS_ROTATION = {TITLES[us].how.removeprefix(", ") or "matched": (us, other) for us, other in ALIKE.items()}
"""What is compared: each with the control, and U S with the rotation."""


def variants(options: Options) -> dict[str, Config]:
    """Returns the settings of all runs by name; those that other studies have too have their names there."""
    config = options.run
    few = replace(config, rri=replace(config.rri, rounds=min(options.variants_rounds, config.rri.rounds)))
    configs = {"none": with_rri(config, method="none")}
    for name, (method, matched, turned) in TITLES.items():
        whole = config if name == "us" else few
        configs[name] = with_rri(whole, method=method, match=matched, rotate_classifier=turned)
    return configs


def measure(options: Options, console: Console) -> list[Record]:
    """Trains all."""
    runs = variants(options)
    # Matched or not: the same shock to the classifier, so the same rate.
    families = {name: name.replace("-unmatched", "") for name in runs}
    runs, choices = chosen(options, runs, families, console)
    return choices + study.train(options, runs, console)


def tables(lines: summary.Lines) -> list[Table]:
    """Returns all variants after a round, and the differences that answer the question, with intervals."""
    number = summary.last_round(lines)
    heads = ("W becomes", "S(W)", "first jump", *summary.COMPARED)
    caption = (
        "first jump: of the loss on training images, at the first replacement; unmatched: the new columns in the order "
        "of the SVD; turned: the classifier turned with the features"
    )
    rounds = summary.make_table(f"After round {number}", heads, caption)
    for title, records in _by_title(lines, number).items():
        S = spread(summary.values(records, "correlation"), 2)
        rounds.add_row(title, S, _jump(lines, title), *summary.compared(records))
    return [
        rounds,
        summary.difference_table(lines, LESS_CONTROL, number, "Less control"),
        summary.difference_table(lines, LESS_ROTATION, number, "U S - W R"),
    ]


def _by_title(lines: summary.Lines, number: int) -> dict[str, list[Record]]:
    """Returns the lines of Step 0 and of a round by what tables and figure call the variant."""
    there = {line["variant"] for line in lines}
    titled = {"Step 0": summary.at_round(lines, "none", 0), CONTROL: summary.at_round(lines, "none", number)}
    return titled | {
        str(title): summary.at_round(lines, name, number) for name, title in TITLES.items() if name in there
    }


def _jump(lines: summary.Lines, title: str) -> str:
    """Loss before and after the first replacement of W, mean over the seeds."""
    names = [name for name, text in TITLES.items() if str(text) == title]
    first = [r for r in lines if r["event"] == "decorrelate" and r["variant"] in names and r["round"] == 1]
    if not first:
        return ""
    before, after = (np.mean([record["loss"][when] for record in first]) for when in ("before", "after"))
    return f"  {before:.2f}>{after:.2f}"


def figure(lines: summary.Lines) -> Figure:
    """Returns mAP and rank-1 of all variants after the rounds."""
    number = summary.last_round(lines)
    return summary.retrieval_figure(_by_title(lines, number))


STUDY = study.Study(
    "rotation",
    "What gains: orthogonal columns, or the shock to the classifier?",
    Options,
    measure,
    tables,
    figure,
    "Does not show: what more rounds would give.",
)
