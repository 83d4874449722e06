"""Truncated SVD: what the Eigenlayer loses when it is made smaller, beside SVDNet, which keeps its size and gains.

    svdnet study truncated
    svdnet study truncated --preset short-resnet50 --data.root Market-1501 --model.weights resnet50.h5

W = U S V' of a trained network is cut to the k largest singular values (Denton et al. 2014, Girshick 2015), without any
more training: W of Step 0 and W after the last round of SVDNet. Retrieval needs the first of the two layers only, k
numbers an image. The runs are those of svdnet study control with US; beside them this takes some seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import repeat

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax import eigenlayer
from svdnet_jax.baselines.truncated_svd import break_even_rank, cost, truncate, truncation_error
from svdnet_jax.reporting.figures.studies import against
from svdnet_jax.reporting.log import Record
from svdnet_jax.reporting.terminal import terminal
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.intervals import MEASURES, sum_by_identity
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.runs import inference
from svdnet_jax.runs.base_run import without_rounds
from svdnet_jax.runs.load import load_run
from svdnet_jax.studies import study, summary
from svdnet_jax.studies.choice import chosen
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.decorrelation import with_rri
from svdnet_jax.studies.differences import mean_identities
from svdnet_jax.studies.trained import trained

NAMES = {"base": "Step 0", "us": "SVDNet"}
REPEATS = 20


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    ranks: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Ranks k; those beyond the number of outputs are left out, and the whole layer is measured too."""


def measure(options: Options, console: Console) -> list[Record]:
    """Cuts the weights of Step 0 and of SVDNet, seed by seed."""
    us, choices = chosen(options, {"us": with_rri(options.run, method="us")}, {"us": "us"}, console)
    configs = {"base": without_rounds(options.run)} | us
    lines, cuts = choices, []
    for name, config in configs.items():
        for seed in options.seeds:
            folder = trained(options.folder, name, config, seed, console)
            lines += study.tagged(folder, name, seed)
            ranks = "-".join(str(k) for k in options.ranks)
            compute = partial(cut, folder, options.ranks, name, seed)
            cuts += study.cached(folder / f"truncated-{ranks}-by-identity.jsonl", compute)
    return lines + mean_identities(cuts, "variant", "rank")


def cut(folder: Path, ranks: Sequence[int], variant: str, seed: int) -> list[Record]:
    """Returns the size, speed, error and retrieval at each rank and of the whole layer (rank 0) of a run."""
    embedder, W = inference.from_run(folder), jnp.asarray(load_run(folder).state.eigenlayer)
    quiet, settings = terminal(quiet=True), embedder.config.eval
    query, gallery = inference.embed_test(embedder, inference.load_eval_dataset(embedder.config, quiet), quiet)[
        "pooled"
    ]
    (C, D), values = W.shape, eigenlayer.factorize(W)[1]
    lines: list[Record] = []
    for k in [*(k for k in sorted(ranks) if k <= D), 0]:
        layers = truncate(W, k) if k else (W,)
        # The last layer turns the features only and needs not be there for retrieval.
        q, g = (
            Embeddings(h.features @ np.asarray(layers[0]), h.pids, h.cameras, h.names, h.model)
            for h in (query, gallery)
        )
        report = evaluate(q, g, metric=settings.metric, cross_camera=settings.cross_camera)
        error = truncation_error(values, k)[0] / np.linalg.norm(values) if k else 0.0
        found = {
            "event": "truncated",
            "variant": variant,
            "seed": seed,
            "rank": k,
            "outputs": D,
            "inputs": C,
            "break_even": break_even_rank(C, D),
            "parameters": cost(C, D, k or None).parameters,
            "error": float(error),
            "microseconds": timed(layers, gallery.features),
            "embedding": report.metrics(),
            "identities": sum_by_identity(report, q.pids).to_json(digits=3),
        }
        lines.append(found)
    return lines


def timed(layers: Sequence[jax.Array], features: np.ndarray) -> float:
    """Microseconds that the layers take for a thousand images, the fastest of some repetitions."""
    rows = jnp.asarray(np.resize(features, (1000, features.shape[1])))

    @jax.jit
    def apply(rows: jax.Array) -> jax.Array:
        for layer in layers:
            rows = jnp.matmul(rows, layer, precision=jax.lax.Precision.HIGHEST)
        return rows

    once: Callable[[], object] = lambda: apply(rows).block_until_ready()  # noqa: E731
    once()
    return min(repeat(once, number=1, repeat=REPEATS)) * 1e6


def at(lines: summary.Lines, variant: str, rank: int) -> list[Record]:
    """Returns the lines of a rank, one a seed; of the whole layer for 0."""
    return [x for x in lines if x["event"] == "truncated" and (x["variant"], x["rank"]) == (variant, rank)]


def ranks_of(lines: summary.Lines) -> list[int]:
    """Returns all ranks, the whole layer last, as 0."""
    return [*dict.fromkeys(line["rank"] for line in lines if line["event"] == "truncated")]


def tables(lines: summary.Lines) -> list[Table]:
    """Returns a row for each network and rank, and what each loses."""
    layer = at(lines, "base", 0)[0]
    heads = ("network, rank", "numbers", "µs", "error", "rank-1", "mAP", "mAP_market")
    caption = (
        f"numbers: in the layer, the whole one being {layer['inputs']} x {layer['outputs']}, smaller up to k = "
        f"{layer['break_even']}; µs: both layers, 1000 images; error: of W, in per cent of its norm"
    )
    made = summary.make_table("The Eigenlayer cut to rank k, without more training", heads, caption)
    for variant, name in NAMES.items():
        for k in ranks_of(lines):
            at_rank = at(lines, variant, k)
            cells = [f"  {at_rank[0]['parameters']}", f"  {np.median(summary.values(at_rank, 'microseconds')):.0f}"]
            cells.append(spread(100 * summary.values(at_rank, "error"), 1))
            cells += [spread(summary.values(at_rank, "embedding", m), 1) for m in MEASURES]
            made.add_row(f"{name}, {f'k = {k}' if k else 'whole'}", *cells)
    lost = {}
    for variant, name in NAMES.items():
        for k in [k for k in ranks_of(lines) if k]:
            cut, whole = ({"variant": variant, "rank": rank} for rank in (k, 0))
            lost[f"{name}, k = {k}"] = summary.unlike(lines, cut, whole, MEASURES)
    return [made, summary.table_of(lost, ("rank-1", "mAP", "mAP_market"), "Less the whole layer")]


def figure(lines: summary.Lines) -> Figure:
    """Returns rank-1 and mAP against the rank, the whole layer at its number of outputs."""
    D = at(lines, "base", 0)[0]["outputs"]
    return against(
        {
            title: {
                name: {
                    k or D: summary.values(at(lines, variant, k), "embedding", m).tolist()
                    for k in ranks_of(lines)
                    if k != D
                }
                for variant, name in NAMES.items()
            }
            for title, m in {"Rank-1": "rank1", "mAP": "mAP"}.items()
        },
        "rank k of the Eigenlayer",
        logarithmic=True,
    )


STUDY = study.Study(
    "truncated",
    "Truncated SVD",
    Options,
    measure,
    tables,
    figure,
    "Does not show: what training after the cut would win back, nor the cut of other layers. Times are of one layer by "
    "itself; in the whole network they are lost beside the backbone.",
)
