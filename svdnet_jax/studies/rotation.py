"""What gains: columns that are orthogonal, or the shock to the classifier? W = U S against W R, R a random rotation.

    svdnet study rotation
    svdnet study rotation --preset short-resnet50 --data.root Market-1501 --model.weights ...

U S is W V: a rotation of the features, which leaves every distance as it was, makes the columns orthogonal, and throws
the classifier off. W R with a random orthogonal R does the same but for the orthogonality: S(W) stays low. Both go
through the same rounds, with and without matched columns, with and without the classifier turned with the features
(which takes the shock away); nothing in place of W is the control of both.

The second table has the differences with 95 % intervals: over seeds by Student's t, and over the identities of the
test set by resampling them, mean over the seeds. On two idle CPU cores a seed takes about four minutes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.config.schema import Config
from svdnet_jax.reporting.log import Record
from svdnet_jax.reporting.terminal import terminal
from svdnet_jax.retrieval.intervals import Interval, by_identity, over_seeds, per_identity
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.runs import inference
from svdnet_jax.studies import study, summary
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.decorrelation import with_rri

CONTROL = "nothing (control)"
KINDS = ("embedding", "pooled")
MEASURES = ("rank1", "mAP")
PAIRS = (("us", "none"), ("rotation", "none"), ("us", "rotation"))


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds of the runs, in place of --seed."""
    variants_rounds: int = 2
    """Rounds of the variants that no other study needs; what is compared is what all have after so many."""


class Title(NamedTuple):
    """What tables and figure call a variant."""

    method: str
    matched: bool
    turned: bool

    def __str__(self) -> str:
        name = {"us": "U S", "rotation": "W R"}[self.method]
        return name + ("" if self.matched else ", not matched") + (", classifier turned" if self.turned else "")


TITLES = {
    method + ("" if matched else "-unmatched") + ("-turned" if turned else ""): Title(method, matched, turned)
    for method in ("us", "rotation")
    for matched in (True, False)
    for turned in (False, True)
}


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
    """Trains all, and sums the results of the last models identity by identity."""
    chosen = variants(options)
    lines = study.train(options, chosen, console)
    # Only the last model of a run is there, and models after other rounds are not compared.
    if len({config.rri.rounds for config in chosen.values()}) == 1:
        for name, config in chosen.items():
            for seed in options.seeds:
                folder = study.trained(options, name, config, seed, console)
                lines += study.cached(folder / "identities.jsonl", partial(identities, folder, name, seed))
    return lines


def identities(folder: Path, variant: str, seed: int) -> list[Record]:
    """Sums of rank-1 and AP over the queries of each identity, by both embeddings, of the last model of a run."""
    embedder = inference.from_run(folder)
    quiet, settings = terminal(quiet=True), embedder.config.eval
    sides = inference.embed_test(embedder, inference.load_eval_dataset(embedder.config, quiet), quiet)
    line: dict[str, Any] = {"event": "identities", "variant": variant, "seed": seed}
    for kind in KINDS:
        query, gallery = sides[kind]
        report = evaluate(query, gallery, metric=settings.metric, cross_camera=settings.cross_camera)
        line[kind] = {}
        for name, values in {"rank1": report.first_hit == 1, "mAP": report.ap}.items():
            summed = per_identity(np.asarray(values, float), query.pids, report.first_hit > 0)
            line |= {"pids": summed.pids.tolist(), "queries": summed.queries.tolist()}
            line[kind][name] = summed.sums.tolist()
    return [line]


def tables(lines: summary.Lines) -> list[Table]:
    """Returns all variants after a round, and the differences that answer the question, with intervals."""
    number = summary.last_round(lines)
    heads = ("W becomes", "S(W)", "first jump", *summary.COMPARED)
    caption = f"first jump: of the loss on training images, at the first replacement; {summary.DIFFERENCES}"
    rounds = summary.make_table(f"After round {number}", heads, caption)
    control = summary.at_round(lines, "none", number)
    for title, records in _by_title(lines, number).items():
        over = [] if title in ("Step 0", CONTROL) else control
        S = spread(summary.values(records, "correlation"), 2)
        rounds.add_row(title, S, _jump(lines, title), *summary.compared(records, over))
    intervals = summary.make_table(
        f"Differences after round {number}, with 95 % intervals",
        ("", "", "over seeds", "over identities"),
        "over seeds: Student's t of the difference seed by seed; over identities: mean over the seeds, test identities "
        "resampled",
    )
    for row in differences(lines, number):
        intervals.add_row(*row)
    return [rounds, intervals]


def differences(lines: summary.Lines, number: int) -> Iterator[tuple[str, ...]]:
    """Returns the rows of the second table."""
    for ours, theirs in PAIRS:
        pair = [summary.at_round(lines, name, number) for name in (ours, theirs)]
        if not all(pair):
            continue
        names = [CONTROL if name == "none" else str(TITLES[name]) for name in (ours, theirs)]
        for kind in KINDS:
            for measured in MEASURES:
                first, second = (summary.values(records, kind, measured) for records in pair)
                seeds = _show(over_seeds(first - second))
                people = _over_identities(lines, ours, theirs, kind, measured)
                yield f"{names[0]} - {names[1]}", f"{kind} {measured}", seeds, _show(people) if people else ""


def _over_identities(lines: summary.Lines, ours: str, theirs: str, kind: str, measured: str) -> Interval | None:
    """Returns the mean difference over the seeds, the same identities resampled in all; None without sums."""
    sums: dict[str, list[Record]] = {
        name: [line for line in lines if line["event"] == "identities" and line["variant"] == name]
        for name in (ours, theirs)
    }
    if not sums[ours] or not sums[theirs]:
        return None
    first, second = (np.mean([line[kind][measured] for line in sums[name]], axis=0) for name in (ours, theirs))
    ends = by_identity(first - second, np.array(sums[ours][0]["queries"]))
    return Interval(*(100 * end for end in ends))


def _show(interval: Interval) -> str:
    return f"  {interval.value:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


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
    "Does not show: what more rounds would give, nor other learning rates.",
)
