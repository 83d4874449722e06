"""Orthogonality as a penalty in the loss, in place of RRI and on top of it.

    svdnet study penalties
    svdnet study penalties --preset short-resnet50 --data.root Market-1501 --model.weights resnet50.h5

From the Step 0 that all share, the rounds are trained with a penalty: without decorrelation, and with US. Kinds are
those of svdnet_jax/baselines/orthogonality.py (but double soft orthogonality, which is soft with twice its weight), of
the Eigenlayer's weight with the lengths of its columns taken out, as in S(W), and, as `features`, ABD-Net's of the last
feature map. As their authors use them, from the first step on, those of --from-start are trained too, with a Step 0 of
their own. Weights are chosen on held-out identities, from five around that with which the penalty adds --level nats to
the loss at the end of the first seed's Step 0. On two idle CPU cores a kind takes seven minutes with five seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.baselines.orthogonality import feature_spectral_difference, penalty
from svdnet_jax.config.schema import Config, Penalty
from svdnet_jax.data.batches import resize
from svdnet_jax.reporting.figures.studies import side_by_side
from svdnet_jax.reporting.log import Record
from svdnet_jax.reporting.terminal import terminal
from svdnet_jax.runs.base_run import without_rounds
from svdnet_jax.runs.dataset import load_configured_dataset
from svdnet_jax.runs.load import load_run
from svdnet_jax.studies import study, summary
from svdnet_jax.studies.choice import best_of, choose, chosen, line
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.decorrelation import CONTROL, with_rri
from svdnet_jax.studies.decorrelation import Options as Shared
from svdnet_jax.studies.trained import trained

Kind = Literal["soft", "coherence", "srip", "spectral-difference", "features"]
START = "-start"
"""End of the names of variants whose penalty begins with the first step."""
SAMPLE = 64
"""Training images, evenly spread, whose feature maps say how large that penalty is."""


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    kinds: tuple[Kind, ...] = ("soft", "coherence", "features")
    """Penalties that begin after Step 0. Not given, srip and spectral-difference are left out: they ask of the singular
    values what soft asks, and had its results."""
    from_start: tuple[Kind, ...] = ("soft",)
    """Penalties that begin with the first step, without US."""
    level: float = 1.0
    """What each adds to the loss at the end of Step 0 with a weight factor of 1, in nats."""
    weight_factors: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Factors on the weights: each penalty takes the best one on held-out identities, by itself; with US it has the
    same. One factor: nothing is chosen."""
    variants_rounds: int = Shared.variants_rounds
    """Rounds with penalties; what is compared is what all have after so many."""


def measure(options: Options, console: Console) -> list[Record]:
    """Trains all; the lines say kind and weight."""
    base = trained(options.folder, "base", without_rounds(options.run), options.seeds[0], console)
    needed = [*dict.fromkeys((*options.kinds, *options.from_start))]
    settings = {kind: scaled(kind, options.level / size) for kind, size in sizes(base, needed).items()}
    plain = {method: with_rri(options.run, method=method) for method in ("none", "us")}
    plain, choices = chosen(options, plain, {method: method for method in plain}, console)
    runs, weights = weighted(options, variants(options, settings, plain), console)
    results = study.train(options, runs, console)
    return choices + weights + [{**each, "weight": weight_of(runs[each["variant"]])} for each in results]


def weighted(options: Options, runs: dict[str, Config], console: Console) -> tuple[dict[str, Config], list[Record]]:
    """Returns all runs with the weights that were chosen for their penalties, and a line of each choice."""
    if len(options.weight_factors) < 2:
        return runs, []
    asked = {name: run for name, run in runs.items() if weight_of(run) and name.startswith("none-")}
    tried = choose(options, asked, heavier, options.weight_factors, 1.0, console) if asked else {}
    best = {name: best_of(means) for name, means in tried.items()}
    lines = [line("weight", name, weight_of(asked[name]), means, best[name]) for name, means in tried.items()]
    families = {name: name.replace("us-", "none-", 1) for name in runs}
    return {name: heavier(run, best.get(families[name], 1.0)) for name, run in runs.items()}, lines


def heavier(config: Config, factor: float) -> Config:
    """Returns the settings with the weight of the penalty multiplied."""
    own = config.loss.penalty
    weight, features = (float(f"{each * factor:.6g}") for each in (own.weight, own.features))
    return replace(config, loss=replace(config.loss, penalty=replace(own, weight=weight, features=features)))


def weight_of(config: Config) -> float:
    """Returns the weight of the penalty, 0 without one."""
    return config.loss.penalty.weight or config.loss.penalty.features


def variants(options: Options, settings: Mapping[Kind, Penalty], plain: Mapping[str, Config]) -> dict[str, Config]:
    """Returns settings of all runs by name.

    Args:
        options: Of the study.
        settings: Of each penalty that begins in the rounds.
        plain: Of the runs without one, ``none`` and ``us``, with their rates.
    """
    config, runs = options.run, dict(plain)
    few = {method: with_rri(run, rounds=min(options.variants_rounds, run.rri.rounds)) for method, run in runs.items()}
    for kind in options.kinds:
        for method, run in few.items():
            runs[f"{method}-{kind}"] = replace(run, loss=replace(config.loss, penalty=settings[kind]))
    for kind in options.from_start:
        early = replace(settings[kind], begin="start")
        runs[f"none-{kind}{START}"] = replace(few["none"], loss=replace(config.loss, penalty=early))
    return runs


def scaled(kind: Kind, weight: float) -> Penalty:
    """Returns the settings of a penalty that begins in the rounds."""
    if kind == "features":
        return Penalty(features=float(f"{weight:.3g}"), begin="rounds")
    return Penalty(kind, float(f"{weight:.3g}"), "columns", begin="rounds")


def sizes(base: Path, kinds: Sequence[Kind]) -> dict[Kind, float]:
    """Returns each penalty, with a weight of 1, of the network that Step 0 ended with."""
    trained = load_run(base)
    sized: dict[Kind, float] = {}
    for kind in kinds:
        if kind == "features":
            sized[kind] = float(feature_spectral_difference(feature_maps(trained)))
        else:
            sized[kind] = float(penalty(trained.state.eigenlayer, kind, "columns"))
    return sized


def feature_maps(trained: Any) -> Any:
    """Returns the last feature maps (N, h, w, C) of some training images."""
    config: Config = trained.config
    images = load_configured_dataset(config, terminal(quiet=True)).train.images
    some = images[np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int)]
    x = resize(jnp.asarray(some), (config.data.height, config.data.width))
    _, kept = trained.model.apply(trained.state.variables, x, train=False, mutable=["intermediates"])
    return kept["intermediates"]["maps"][0]


def by_title(lines: summary.Lines, number: int) -> dict[str, list[Record]]:
    """Returns the lines of a round by what tables and figure call the variant."""
    names = dict.fromkeys(line["variant"] for line in lines if line["event"] == "phase")
    return {"Step 0": summary.at_round(lines, "none", 0)} | {
        _title(name): summary.at_round(lines, name, number) for name in names
    }


def _title(name: str) -> str:
    """Returns what tables and figure call a variant."""
    method, _, kind = name.removesuffix(START).partition("-")
    title = {"none": kind or CONTROL, "us": f"US + {kind}" if kind else "US"}[method]
    return title + (", from the start" if name.endswith(START) else "")


def tables(lines: summary.Lines) -> list[Table]:
    """Returns a row for each penalty by itself and with US."""
    number = summary.last_round(lines)
    heads = ("rounds with", "weight", "S(W)", *summary.COMPARED)
    made = summary.make_table(f"After round {number}", heads)
    for title, records in by_title(lines, number).items():
        weight = records[0]["weight"] if title != "Step 0" else 0.0
        S = spread(summary.values(records, "correlation"), 2)
        made.add_row(title, f"  {weight:.3g}" if weight else "", S, *summary.compared(records))
    names = dict.fromkeys(line["variant"] for line in lines if line["event"] == "phase")
    pairs = {_title(name): (name, "none") for name in names if name != "none"}
    return [made, summary.difference_table(lines, pairs, number, f"Less control, after round {number}")]


def figure(lines: summary.Lines) -> Figure:
    """Returns mAP and S(W) of all."""
    titled = by_title(lines, summary.last_round(lines))
    panels = {
        "mAP": {
            kind: {name: summary.values(records, kind, "mAP").tolist() for name, records in titled.items()}
            for kind in ("embedding", "pooled")
        },
        "S(W), in per cent": {
            "embedding": {name: (100 * summary.values(r, "correlation")).tolist() for name, r in titled.items()}
        },
    }
    return side_by_side(panels)


STUDY = study.Study(
    "penalties",
    "Penalties in place of RRI and on top of it",
    Options,
    measure,
    tables,
    figure,
    "Does not show: what US is worth with a weight chosen beside it; it has that of the penalty alone. A penalty from "
    "the first step has a Step 0 of its own.",
)
