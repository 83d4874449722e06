"""Retrieval metrics: of embeddings in files, or of a network on a data set.

    svdnet evaluate --query q.npz --gallery g.npz
    svdnet evaluate --query q.npz --gallery g.npz --metric cosine --no-cross-camera --json
    svdnet evaluate --query q.npz --gallery g.npz --rerank --distances --camera-pairs --figures figures
    svdnet evaluate --query q.npz --gallery g.npz --intervals
    svdnet evaluate --query all.npz --gallery all.npz --leave-self-out row    query set = gallery set
    svdnet evaluate --query gt_bbox.npz --gallery g.npz --multi-query
    svdnet evaluate --run runs/synthetic --data.root Market-1501-v15.09.15   a run on other data
    svdnet evaluate --weights resnet50.h5 --data.root Market-1501-v15.09.15  ImageNet weights as they are

Prints rank-1, 5, 10 and 20, mAP by both rules and mINP, with the protocol and the counts they rest on. With
the option --json: one JSON object and nothing else, of rank1, rank5, rank10, rank20, mAP, mAP_market and mINP
in [0, 1], and valid_queries, with --rerank those of the new ranking and the others under without_rerank, and what else
was asked for under its name; for a network, one such object for each embedding.

A file holds the arrays features (N, D), pids (N,), cameras (N,) and, if there are any, names (N,), as
svdnet_jax.retrieval.Embeddings.save or np.savez writes them; files of torchreid's names (qf, q_pids, q_camids, gf,
...), layumi's pytorch_result.mat, .npy with a list beside it and PyTorch's .pt are read too (docs/evaluation.md).
Features are of any number type, pids and cameras integers of any type with a sign, which mean the same in both files;
pid -1 marks junk, 0 distractors. Junk is left out here, but that re-ranking looks at it, as its authors' code does;
toolkits drop it before, so for their re-ranked numbers drop it from the file. Features are taken as they are: for
numbers published with cosine similarity or features of length 1, give --metric cosine. A vector that is common to all
features changes nothing, however large; features in float64 are ranked by what float64 tells. Notes on stderr say
where numbers may not mean what one thinks, such as a query's own image in the gallery. No file is written over that is
read, nor one that is not of the kind written.

Market-1501's size (3 368 queries, 19 732 gallery images, D = 1024) takes about four seconds on two CPU cores, half of
them for starting up, and with --rerank ten more; embedding that many images with a ResNet-50 takes about half an hour.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from svdnet_jax.cli.exits import fail, fail_on
from svdnet_jax.cli.measures import (
    FIGURES,
    PICTURES,
    RANKS,
    Findings,
    Measures,
    as_json,
    difference_text,
    differences_json,
    draw,
    draw_pictures,
    less_pooled,
    run_evaluation,
    text,
)
from svdnet_jax.cli.source import Source, with_source
from svdnet_jax.config.flags import Flag
from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.ranks import is_ranks
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.embeddings import IS_EMBEDDINGS
from svdnet_jax.retrieval.foreign import from_one, load_embeddings
from svdnet_jax.safe_writing import is_bytes, is_figure, refuse_overwrite

if TYPE_CHECKING:
    from svdnet_jax.data.types import Dataset
    from svdnet_jax.runs.inference import Embedder

Seen = tuple["Dataset", "Embedder"]
"""What a network was measured on, and the network."""
CHOICE = "give --query and --gallery, or --run, or --weights"


@dataclass(frozen=True)
class Options:
    """What to evaluate, and how."""

    query: Path | None = None
    """Embeddings of the query images: .npz, .npy, .mat or .pt, also with the gallery in one file."""
    gallery: Path | None = None
    """Embeddings of the gallery images, likewise."""
    pids_from_zero: Flag = False
    """Identities of --query and --gallery are numbered from 0: the pid 0 is a person and no distractor."""
    run: Path | None = None
    """Folder of a run: the network of its latest checkpoint."""
    weights: str | None = None
    """Weights of a backbone: its pooled feature."""
    preset: str = "paper-resnet50"
    """Network and input size of --weights."""
    size: tuple[int, int] | None = None
    """Height and width that --weights sees, if not the preset's."""
    data: Source = field(default_factory=Source)
    metric: Metric | None = None
    """Distance to rank by; cosine is 1 - cosine similarity. Not given: the run's own, else euclidean."""
    cross_camera: bool = True
    """Leave out gallery images of the query's identity taken by the query's camera; never where the run did not."""
    save: Path | None = None
    """Folder to keep the embeddings of --run or --weights in."""
    export: Path | None = None
    """File (.safetensors) to keep the backbone of --run or --weights in, for --model.weights."""
    measures: Annotated[Measures, tyro.conf.arg(name="")] = field(default_factory=Measures)
    json: Flag = False
    """Print one JSON object only."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet evaluate") -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    try:
        _check(options)
        findings, seen = (_files(options), None) if options.query else _network(options)
        drawn = _draw(findings, options.measures, seen)
    except (OSError, ValueError, MemoryError) as error:
        return fail_on(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    less = less_pooled(findings)
    for note in dict.fromkeys(note for each in findings.values() for note in each.notes):
        say(terminal(stderr=True), f"note: {note}")
    if options.json:
        values = {name: as_json(each) for name, each in findings.items()}
        if less:
            values["embedding"]["less_pooled"] = differences_json(less)
        say(terminal(), json.dumps(values.get("", values)))
        return 0
    for name, each in findings.items():
        say(terminal(), "\n".join([*([f"{name}:"] if name else []), text(each)]))
    if less:
        say(terminal(), difference_text("embedding less pooled", less))
    if drawn:
        say(terminal(), f"figures: {' '.join(map(str, drawn))}")
    return 0


def _check(options: Options) -> None:
    """Refuses before any work what does not go together, lest it be passed over in silence."""
    files = options.query is not None or options.gallery is not None
    sources = files, options.run is not None, options.weights is not None
    if sum(sources) != 1 or (files and None in (options.query, options.gallery)):
        raise ConfigError(CHOICE)
    if options.pids_from_zero and not files:
        raise ConfigError("--pids-from-zero is for files of embeddings; give --query and --gallery, or leave it out")
    if files and (options.save or options.export or options.data != Source()):
        raise ConfigError("--save, --export and --data are for a network; give --run or --weights, or leave them out")
    if options.measures.leave_self_out and not files:
        raise ConfigError(
            "--leave-self-out is for embeddings in files; a data set says it itself: images of the split query+gallery "
            "in a manifest without a column camera, or folders train and test"
        )
    if options.weights is None and (options.size or options.preset != Options.preset):
        raise ConfigError("--preset and --size are for --weights; files and runs have their own")
    if not 0 <= options.data.validation <= 10**6:
        raise ConfigError(f"--data.validation {options.data.validation}: must be from 0 to {10**6} identities")
    _check_outputs(options, [options.query, options.gallery, options.weights])


def _check_outputs(options: Options, reads: list[Path | str | None]) -> None:
    kinds = ("",) if options.query else ("embedding", "pooled")
    for kind in kinds:
        if folder := options.measures.figures:
            for name in (*FIGURES, *PICTURES):
                refuse_overwrite("--figures", folder / kind / f"{name}.png", is_figure, reads)
            refuse_overwrite("--figures", folder / kind / RANKS, is_ranks, reads)
        for name in ("query", "gallery") if options.save else ():
            refuse_overwrite("--save", (options.save or Path()) / kind / f"{name}.npz", IS_EMBEDDINGS, reads)
    if options.export:
        made = is_bytes(*(f'"{name}":'.encode() for name in ("mean", "std", "layouts")))
        refuse_overwrite("--export", options.export, made, reads)


def _draw(findings: dict[str, Findings], asked: Measures, seen: "Seen | None") -> list[Path]:
    folder, paths = asked.figures, []
    for name, each in findings.items() if folder else ():
        paths += draw(each, (folder or Path()) / name)
        # A query that is the mean of several images is none of them.
        if seen and not asked.multi_query:
            paths += draw_pictures(each, name, *seen, (folder or Path()) / name)
    return paths


def _files(options: Options) -> dict[str, Findings]:
    pair = load_embeddings(options.query or "", "query"), load_embeddings(options.gallery or "", "gallery")
    if options.pids_from_zero:
        if not any((side.pids == 0).any() for side in pair):
            raise ConfigError("--pids-from-zero: no pid is 0 in query or gallery; leave it out")
        pair = from_one(pair[0]), from_one(pair[1])
    return {"": run_evaluation(*pair, options.metric or "euclidean", options.cross_camera, options.measures)}


def _network(options: Options) -> tuple[dict[str, Findings], "Seen"]:
    # Flax and all that belongs to training, which files of embeddings can do without.
    from svdnet_jax.models.pretrained.load import write_pretrained
    from svdnet_jax.runs import inference

    console = terminal(stderr=options.json)
    if options.run:
        embedder = inference.from_run(options.run)
    else:
        embedder = inference.from_weights(options.weights or "", inference.preset(options.preset, options.size))
    if options.export:
        write_pretrained(options.export, embedder.weights)
    config = _with_data(embedder.config, options)
    dataset = inference.load_eval_dataset(config, console)
    if embedder.weights.note:
        say(console, f"{embedder.weights.source}: {embedder.weights.note}")
    say(console, f"{embedder.weights.source}, on {dataset.name}")
    embedded = inference.embed_test(embedder, dataset, console)
    if options.save:
        for kind, (query, gallery) in embedded.items():
            query.save(options.save / kind / "query.npz")
            gallery.save(options.save / kind / "gallery.npz")
    protocol = config.eval.metric, config.eval.cross_camera
    findings = {kind: run_evaluation(*pair, *protocol, options.measures) for kind, pair in embedded.items()}
    return findings, (dataset, embedder)


def _with_data(config: Config, options: Options) -> Config:
    """Returns the settings of a network with the data and the protocol that were asked for."""
    config = with_source(config, options.data, replaced=bool(options.data.root or options.weights))
    metric = options.metric or config.eval.metric
    cross_camera = config.eval.cross_camera and options.cross_camera
    return replace(config, eval=replace(config.eval, metric=metric, cross_camera=cross_camera))
