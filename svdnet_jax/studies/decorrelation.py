"""What to put in place of W: US, U, UV', QD or nothing; with matched columns or not; with the classifier turned or not.

    svdnet study decorrelation
    svdnet study decorrelation --preset short-resnet50 --below 512 --data.root Market-1501 --model.weights ...

The paper's table of decorrelation methods. First each is put once in the place of W of the same converged Step 0: only
US leaves every distance, and so the ranking, as it was. Then each goes through the same rounds. Beside the paper:

- US and U without matched columns (the matching is in the authors' code and not in the paper; how many columns it
  moves is in the first table);
- US with the classifier turned with the features, so that the loss does not jump: does the gain survive?
- US and nothing in an Eigenlayer of fewer outputs than there are identities (--below).

On two idle CPU cores a seed takes four to five minutes.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import Config
from svdnet_jax.methods import Method
from svdnet_jax.reporting.log import Record
from svdnet_jax.reporting.terminal import terminal
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.intervals import MEASURES, sum_by_identity
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.runs import inference
from svdnet_jax.runs.base_run import without_rounds
from svdnet_jax.runs.directory import RunDir, load_eigenlayer
from svdnet_jax.studies import study, summary
from svdnet_jax.studies.choice import chosen
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.differences import mean_identities
from svdnet_jax.studies.trained import trained

METHODS: dict[str, Method] = {"Orig": "none", "US": "us", "U": "u", "UV'": "uvt", "QD": "qd"}
CONTROL = "nothing (control)"
SAMPLE = 200
"""Queries, evenly spread, whose distances to the whole gallery are compared."""


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    variants_rounds: int = 2
    """Rounds of the variants that no other study needs; what is compared is what all have after so many."""
    below: int = 64
    """Outputs of the narrower Eigenlayer, fewer than training identities; 0 leaves that comparison out."""


def variants(options: Options) -> dict[str, Config]:
    """Returns the settings of all runs by name; those that other studies have too have their names there."""
    config = options.run
    few = replace(config, rri=replace(config.rri, rounds=min(options.variants_rounds, config.rri.rounds)))
    configs = {"none": with_rri(config, method="none"), "us": with_rri(config, method="us")}
    configs |= {method: with_rri(few, method=method) for method in ("u", "uvt", "qd")}
    configs |= {f"{method}-unmatched": with_rri(few, method=method, match=False) for method in ("us", "u")}
    configs |= {"us-turned": with_rri(few, method="us", rotate_classifier=True)}
    if options.below:
        narrow = replace(few, model=replace(few.model, embedding_dim=options.below))
        configs |= {f"{m}-d{options.below}": with_rri(narrow, method=m) for m in ("none", "us")}
    return configs


def with_rri(config: Config, **changes: object) -> Config:
    """Returns the settings with other rounds."""
    return replace(config, rri=replace(config.rri, **changes))  # type: ignore[arg-type]


def measure(options: Options, console: Console) -> list[Record]:
    """Trains all, and puts each method once in the place of W after Step 0."""
    runs = variants(options)
    # Columns matched or not, wide or narrow: the rate is that of the method.
    families = {name: name.partition("-d")[0].replace("-unmatched", "") for name in runs}
    runs, choices = chosen(options, runs, families, console)
    lines, once = choices + study.train(options, runs, console), []
    for seed in options.seeds:
        folder = trained(options.folder, "base", without_rounds(options.run), seed, console)
        once += study.cached(folder / "replaced-by-identity.jsonl", partial(replaced, folder, seed))
    return lines + mean_identities(once, "variant")


def replaced(folder: Path, seed: int) -> list[Record]:
    """Applies each method once to the Step 0 of a run: S(W), retrieval, and what became of the distances."""
    embedder, W = inference.from_run(folder), load_eigenlayer(RunDir(folder), "base")
    assert W is not None, "written before the log's line"
    quiet = terminal(quiet=True)
    dataset = inference.load_eval_dataset(embedder.config, quiet)
    query, gallery = inference.embed_test(embedder, dataset, quiet)["pooled"]
    settings = embedder.config.eval
    lines: list[Record] = []
    for name, method in METHODS.items():
        new = np.asarray(eigenlayer.decorrelate(jnp.asarray(W), method, match=True))
        q, g = (Embeddings(h.features @ new, h.pids, h.cameras, h.names) for h in (query, gallery))
        report = evaluate(q, g, metric=settings.metric, cross_camera=settings.cross_camera)
        weights = {
            "event": "replaced",
            "variant": name,
            "seed": seed,
            "correlation": float(eigenlayer.correlation(jnp.asarray(new))),
            "moved": moved(W, np.asarray(eigenlayer.decorrelate(jnp.asarray(W), method))),
            "distances": distance_change(query.features, gallery.features[gallery.pids >= 0], W, new),
            "embedding": report.metrics(),
            "identities": sum_by_identity(report, query.pids).to_json(digits=3),
        }
        lines.append(weights)
    return lines


def moved(W: np.ndarray, new: np.ndarray) -> int:
    """Returns how many columns of the new weight the matching takes elsewhere or turns round."""
    order, sign = (np.asarray(column) for column in eigenlayer.match_columns(jnp.asarray(W), jnp.asarray(new)))
    return int(np.sum((order != np.arange(len(order))) | (sign < 0)))


def distance_change(query: np.ndarray, gallery: np.ndarray, W: np.ndarray, new: np.ndarray) -> float:
    """Returns the mean of abs(d' / d - 1) over pairs, d' scaled to the mean of d: a common factor ranks nothing.

    Args:
        query: Inputs of the Eigenlayer (Q, C), of which a sample is taken.
        gallery: The same of the gallery (G, C).
        W: The weight before.
        new: The weight after.
    """
    some = query[np.linspace(0, len(query) - 1, min(len(query), SAMPLE)).astype(int)]

    def distances(w: np.ndarray) -> np.ndarray:
        rows, others = (features.astype(np.float64) @ w.astype(np.float64) for features in (some, gallery))
        return np.concatenate([np.linalg.norm(others - row, axis=1) for row in rows])

    before, after = distances(W), distances(new)
    counted = before > 0
    before, after = before[counted], after[counted]
    return float(np.mean(np.abs(after * (before.mean() / after.mean()) / before - 1)))


def tables(lines: summary.Lines) -> list[Table]:
    """Returns tables with differences: W replaced once, and after the rounds."""
    heads = ("W becomes", "S(W)", "moved", "change of distances", "rank-1", "mAP", "mAP_market")
    caption = (
        "moved: columns that matching takes elsewhere or turns round; change: mean relative change of the distances of "
        "queries and gallery images, a common factor aside"
    )
    once = summary.make_table("Replaced once after Step 0, no training", heads, caption)
    for name in METHODS:
        alike = [line for line in lines if line["event"] == "replaced" and line["variant"] == name]
        moved, changed = (
            spread(summary.values(alike, "moved"), 0),
            spread(100 * summary.values(alike, "distances"), 2),
        )
        cells = [spread(summary.values(alike, "embedding", m), 1) for m in ("rank1", "mAP", "mAP_market")]
        once.add_row(name, spread(summary.values(alike, "correlation"), 3), moved, changed, *cells)
    changes = {name: summary.unlike(lines, {"variant": name}, {"variant": "Orig"}, MEASURES) for name in [*METHODS][1:]}
    less = summary.table_of(changes, ("rank-1", "mAP", "mAP_market"), "Replaced once, less W as it was")
    number = summary.last_round(lines)
    rounds = summary.make_table(f"After round {number}", ("variant", "S(W)", *summary.COMPARED))
    for title, records in by_title(lines, number).items():
        rounds.add_row(title, spread(summary.values(records, "correlation"), 2), *summary.compared(records))
    over = summary.difference_table(lines, pairs(lines), number, f"Less control, after round {number}")
    others = {title: (name, "us") for title, (name, control) in pairs(lines).items() if control == "none"}
    beside = summary.difference_table(
        lines,
        {title: pair for title, pair in others.items() if pair[0] != "us"},
        number,
        f"Less US, after round {number}",
    )
    return [once, less, rounds, over, *([beside] if beside.row_count else [])]


def pairs(lines: summary.Lines) -> dict[str, tuple[str, str]]:
    """Returns each variant and its control, by the variant's title."""
    names = dict.fromkeys(line["variant"] for line in lines if line["event"] == "phase")
    titles = {name: _title(name) for name in names}
    controls = {name: "none" + name[name.index("-d") :] if "-d" in name else "none" for name in titles}
    return {title: (name, controls[name]) for name, title in titles.items() if not name.startswith("none")}


FIXED = {
    "none": CONTROL,
    "us": "US",
    "u": "U",
    "uvt": "UV'",
    "qd": "QD",
    "us-unmatched": "US, columns not matched",
    "u-unmatched": "U, columns not matched",
    "us-turned": "US, classifier turned",
}


def _title(name: str) -> str:
    """Returns what tables and figure call a variant."""
    method, _, dim = name.partition("-d")
    return f"{FIXED[method]}, D = {dim}" if dim.isdigit() else FIXED[name]


def by_title(lines: summary.Lines, number: int) -> dict[str, list[Record]]:
    """Returns the lines of a round by what tables and figure call the variant, in their order."""
    titled = {"Step 0": summary.at_round(lines, "us", 0)}
    for name in dict.fromkeys(line["variant"] for line in lines if line["event"] == "phase"):
        _, _, dim = name.partition("-d")
        if dim.isdigit() and f"Step 0, D = {dim}" not in titled:
            titled[f"Step 0, D = {dim}"] = summary.at_round(lines, name, 0)
        titled[_title(name)] = summary.at_round(lines, name, number)
    return titled


def figure(lines: summary.Lines) -> Figure:
    """Returns mAP and rank-1 of all variants after the rounds."""
    return summary.retrieval_figure(by_title(lines, summary.last_round(lines)))


STUDY = study.Study(
    "decorrelation",
    "What takes the place of W",
    Options,
    measure,
    tables,
    figure,
    "Does not show: what more rounds would give, nor a rate chosen for unmatched columns or for another width by "
    "itself: they have that of their method.",
)
