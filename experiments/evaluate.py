"""Retrieval metrics: of embeddings in files, or of a network on a data set.

    python -m experiments.evaluate --query q.npz --gallery g.npz
    python -m experiments.evaluate --query q.npz --gallery g.npz --metric cosine --no-cross-camera --json
    python -m experiments.evaluate --run runs/synthetic --data.root Market-1501-v15.09.15   a run on other data
    python -m experiments.evaluate --weights resnet50.h5 --data.root Market-1501-v15.09.15  ImageNet weights as they are

Prints rank-1, 5, 10 and 20, mAP by both rules and mINP, with the protocol and the counts they rest on. With
the option --json: one JSON object and nothing else, of rank1, rank5, rank10, rank20, mAP, mAP_market and mINP
in [0, 1], and valid_queries; for a network, one such object for each embedding. A file holds the arrays features
(N, D), pids (N,), cameras (N,) and names (N,), as svdnet_jax.Embeddings.save writes them. Market-1501's size
(3 368 queries, 19 732 gallery images, D = 1024) takes about four seconds on two CPU cores, half of them for starting
up; embedding that many images with a ResNet-50 takes about half an hour there.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments.cli import refuse
from svdnet_jax.config import ConfigError, Data, Layout, Run
from svdnet_jax.presets import PRESETS
from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import Report, evaluate


@dataclass(frozen=True)
class Source:
    """The data set that a network is tried on."""

    root: Path | None = None
    """Folder of a data set, a CSV manifest or a prepared folder. Not given: built-in synthetic pedestrians."""
    layout: Layout = "auto"
    """How it is laid out; auto looks."""
    cache: Path = Path("runs/data")
    """Folder for prepared data."""
    validation: int = 0
    """So many training identities as query and gallery instead of the test set; those that training with the same
    number and --seed 0 holds out."""


@dataclass(frozen=True)
class Options:
    """What to evaluate, and how."""

    query: Path | None = None
    """Embeddings of the query images (.npz)."""
    gallery: Path | None = None
    """Embeddings of the gallery images (.npz)."""
    run: Path | None = None
    """Folder of a run: its network on --data.root."""
    weights: str | None = None
    """Weights of a backbone: its pooled feature on --data.root."""
    preset: str = "paper-resnet50"
    """Network and input size of --weights."""
    size: tuple[int, int] | None = None
    """Height and width that --weights sees, if not the preset's."""
    data: Source = field(default_factory=Source)
    metric: Metric | None = None
    """Distance to rank by; cosine is 1 - cosine similarity. Not given: the run's own, else euclidean."""
    cross_camera: bool = True
    """Leave out gallery images of the query's identity taken by the query's camera."""
    save: Path | None = None
    """Folder to keep the embeddings of --run or --weights in."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object only."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog="python -m experiments.evaluate", description=__doc__)
    try:
        reports = _files(options) if options.query or options.gallery else _network(options)
    except (OSError, ValueError) as error:
        return refuse(str(error), 2)
    if options.json:
        found = {name: report.metrics() | {"valid_queries": report.valid_queries} for name, report in reports.items()}
        print(json.dumps(found.get("", found)))
        return 0
    for name, report in reports.items():
        print(*([f"{name}:"] if name else []), report, sep="\n")
    return 0


def _files(options: Options) -> dict[str, Report]:
    if options.query is None or options.gallery is None or options.run or options.weights:
        raise ConfigError("give --query and --gallery, or --run, or --weights")
    pair = Embeddings.load(options.query), Embeddings.load(options.gallery)
    return {"": evaluate(*pair, options.metric or "euclidean", options.cross_camera)}


def _network(options: Options) -> dict[str, Report]:
    # Flax and all that belongs to training, which files of embeddings can do without.
    from svdnet_jax import transfer

    if (options.run is None) == (options.weights is None):
        raise ConfigError("give --query and --gallery, or --run, or --weights")
    console = Console(stderr=options.json)
    if options.run:
        embedder = transfer.from_run(options.run)
    else:
        config = _preset(options)
        embedder = transfer.from_weights(options.weights or "", config)
    dataset = transfer.load_for(embedder, Data(**vars(options.data)), console)
    console.print(f"{embedder.source}, on {dataset.name}", highlight=False, soft_wrap=True)
    found = transfer.embed_test(embedder, dataset, console)
    if options.save:
        for kind, (query, gallery) in found.items():
            query.save(options.save / kind / "query.npz")
            gallery.save(options.save / kind / "gallery.npz")
    metric = options.metric or embedder.settings.metric
    return {kind: evaluate(*pair, metric, options.cross_camera) for kind, pair in found.items()}


def _preset(options: Options) -> Run:
    if options.preset not in PRESETS:
        raise ConfigError(f"--preset {options.preset}: unknown; choose one of {', '.join(PRESETS)}")
    config = PRESETS[options.preset]
    if options.size is None:
        return config
    height, width = options.size
    return replace(config, data=replace(config.data, height=height, width=width))


if __name__ == "__main__":
    sys.exit(main())
