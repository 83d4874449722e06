"""PCANet: retrieval by histograms of PCA filters learned from pixels, without labels or gradients.

    svdnet study pcanet
    svdnet study pcanet --data.root Market-1501-v15.09.15 --data.height 128 --data.width 64

Chan et al. 2015, two stages, evaluated by the protocol that the networks are evaluated by: with the Euclidean distance
of the paper's histograms, with that of their square roots (Hellinger), and beside it the pixels as they are, all in the
size that the networks see. There is no randomness in it, so no seeds. Half a minute on two CPU cores, and five minutes
for Market-1501; memory is that of a batch of images, and a few times the 16 384 numbers an image that are the result.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.baselines import pcanet
from svdnet_jax.config.schema import Config
from svdnet_jax.data.batches import resize
from svdnet_jax.data.types import Dataset, fingerprint, labels
from svdnet_jax.reporting.figures.studies import side_by_side
from svdnet_jax.reporting.log import Record
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.intervals import MEASURES, sum_by_identity
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.runs.dataset import count_valid, load_configured_dataset
from svdnet_jax.studies import study, summary
from svdnet_jax.studies.differences import mean_identities

TITLES = {"pixels": "pixels", "plain": "PCANet", "root": "PCANet, square roots"}
PAIRS = (("plain", "pixels"), ("root", "plain"))
"""What is compared."""
BLOCKS = (4, 2)
"""Blocks of an image from top to bottom and from left to right."""


@dataclass(frozen=True)
class Options(study.Options):
    """What to measure; seeds are not used."""

    fit_images: int = 5000
    """At most so many training images, evenly spread, to learn filters from, as in the authors' release."""


def measure(options: Options, console: Console) -> list[Record]:
    """Learns the filters and evaluates each kind of feature; kept by the data's fingerprint."""
    dataset = load_configured_dataset(options.run, console)
    data, settings = options.run.data, options.run.eval
    how = f"{data.height}x{data.width}-{options.fit_images}-{settings.metric}-{settings.cross_camera}"
    path = options.folder / f"pcanet-{fingerprint(dataset)}-{how}-by-identity.jsonl"
    options.folder.mkdir(parents=True, exist_ok=True)
    return study.cached(path, lambda: compute(options, dataset))


def compute(options: Options, dataset: Dataset) -> list[Record]:
    """Returns the lines of all kinds, with what they rest on."""
    start = {
        "event": "start",
        "variant": "",
        "seed": None,
        "dataset": dataset.name,
        "identities": labels(dataset.train.pids)[1],
        "train": len(dataset.train),
        "valid_queries": count_valid(dataset, options.run.eval),
        "gallery": len(dataset.gallery),
        "machine": study.machine(),
    }
    size = options.run.data.height, options.run.data.width
    block = max(1, size[0] // BLOCKS[0]), max(1, size[1] // BLOCKS[1])
    count = min(options.fit_images, len(dataset.train))
    some = dataset.train.images[np.linspace(0, len(dataset.train) - 1, count).astype(int)]
    begun = time.monotonic()
    net = pcanet.fit(shrunk(some, size), pcanet.Settings(block=block))
    fitted = time.monotonic() - begun
    pixels = [shrunk(split.images, size) for split in (dataset.query, dataset.gallery)]
    begun = time.monotonic()
    histograms = [pcanet.features(net, images) for images in pixels]
    each = (time.monotonic() - begun) / (len(dataset.query) + len(dataset.gallery))
    # Made one after the other: each is gigabytes on a data set like Market-1501.
    features: dict[str, Callable[[], list[np.ndarray]]] = {
        "pixels": lambda: [images.reshape(len(images), -1).astype(np.float32) for images in pixels],
        "plain": lambda: histograms,
        "root": lambda: [np.sqrt(rows) for rows in histograms],
    }
    cost = {"fit_seconds": fitted, "milliseconds": 1000 * each}
    lines: list[Record] = []
    for name, sides in features.items():
        line = one(sides(), dataset, options.run) | ({} if name == "pixels" else cost)
        lines.append({"event": "features", "variant": name, "seed": None, **line})
    return [start, *mean_identities(lines, "variant")]


def shrunk(images: np.ndarray, size: tuple[int, int], block: int = 256) -> np.ndarray:
    """Returns images in the size that the networks see, as bytes."""
    blocks = (np.asarray(resize(jnp.asarray(images[i : i + block]), size)) for i in range(0, len(images), block))
    return np.concatenate([np.rint(part).astype(np.uint8) for part in blocks])


def one(sides: Sequence[np.ndarray], dataset: Dataset, config: Config) -> dict[str, Any]:
    """Returns retrieval by features of queries and gallery."""
    query, gallery = (
        Embeddings(features, split.pids, split.cameras, split.names)
        for features, split in zip(sides, (dataset.query, dataset.gallery), strict=True)
    )
    report = evaluate(query, gallery, metric=config.eval.metric, cross_camera=config.eval.cross_camera)
    identities = sum_by_identity(report, query.pids).to_json(digits=3)
    return {"numbers": query.features.shape[1], "embedding": report.metrics(), "identities": identities}


def tables(lines: summary.Lines) -> list[Table]:
    """Returns a row for each kind of feature, and differences."""
    heads = ("feature", "numbers", "s to fit", "ms an image", "rank-1", "rank-5", "rank-10", "mAP", "mAP_market")
    made = summary.make_table("PCANet, by the same protocol", heads)
    for line in _features(lines):
        cost = [f"  {line[name]:.1f}" if name in line else "" for name in ("fit_seconds", "milliseconds")]
        measures = ("rank1", "rank5", "rank10", "mAP", "mAP_market")
        made.add_row(
            TITLES[line["variant"]],
            f"  {line['numbers']}",
            *cost,
            *(f"  {100 * line['embedding'][m]:.1f}" for m in measures),
        )
    known = any(line["event"] == "identities" for line in lines)
    caption = "95 % intervals over the identities of the test set, resampled" if known else None
    rows = {
        f"{TITLES[ours]} - {TITLES[theirs]}": summary.unlike(lines, {"variant": ours}, {"variant": theirs}, MEASURES)
        for ours, theirs in PAIRS
    }
    return [made, summary.table_of(rows, ("rank-1", "mAP", "mAP_market"), "Differences", caption)]


def _features(lines: summary.Lines) -> list[Record]:
    return [line for line in lines if line["event"] == "features"]


def figure(lines: summary.Lines) -> Figure:
    """Returns rank-1 and mAP of each kind."""
    panels = {
        title: {"": {TITLES[line["variant"]]: [100 * line["embedding"][m]] for line in _features(lines)}}
        for title, m in {"mAP": "mAP", "Rank-1": "rank1"}.items()
    }
    return side_by_side(panels)


STUDY = study.Study(
    "pcanet",
    "PCANet",
    Options,
    measure,
    tables,
    figure,
    "Does not show: other patches, filters or blocks than the authors' for faces, with blocks for a person's shape.",
)
