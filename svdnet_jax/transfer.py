"""A network on data that it was not trained on: a trained run, or ImageNet weights as they are.

The data is a data set, to measure on, or any folder of images, to search in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import UInt8
from rich.console import Console

from svdnet_jax.config import ConfigError, Run
from svdnet_jax.data.listing import SHOWN, Crop
from svdnet_jax.data.splits import JUNK, DataError, Dataset
from svdnet_jax.loading import count_valid, load_dataset
from svdnet_jax.models.pretrained import Pretrained, read_pretrained
from svdnet_jax.models.svdnet import Outputs, SVDNet, build
from svdnet_jax.presets import PRESETS
from svdnet_jax.reporting.progress import counting
from svdnet_jax.retrieval.embed import embed
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.training.fingerprint import fingerprints
from svdnet_jax.training.initial import as_pretrained, pixel_statistics, with_weights
from svdnet_jax.training.measure import embeddings
from svdnet_jax.training.state import TrainState, create
from svdnet_jax.training.step import inputs_of, make_infer
from svdnet_jax.training.trained import finished_note, is_run, load_trained

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Endings of names, in small or large letters."""


class Embedder(NamedTuple):
    """A network at rest, and what is known of it."""

    apply: Callable[[UInt8[np.ndarray, "B H W 3"]], Outputs]
    kinds: tuple[str, ...]
    """Its embeddings that mean something: ``embedding`` and ``pooled``."""
    config: Run
    """Of the run; of the preset for weights as they are."""
    weights: Pretrained
    """Its backbone."""
    models: Mapping[str, str]
    """The network's fingerprint for each of its embeddings."""


def from_run(folder: Path) -> Embedder:
    """The network of a run folder's latest checkpoint.

    Raises:
        ConfigError: No run folder, or none that this version can read.
    """
    trained = load_trained(folder)
    weights = as_pretrained(trained.state, f"{folder}, {finished_note(trained)}", (trained.config.model.layout,))
    return _embedder(trained.config, trained.model, trained.state, ("embedding", "pooled"), weights)


def preset(name: str, size: tuple[int, int] | None) -> Run:
    """The settings that weights as they are are tried with.

    Args:
        name: Of the preset.
        size: Height and width that the network sees, if not the preset's.

    Raises:
        ConfigError: No such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: unknown; choose one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    height, width = size or (config.data.height, config.data.width)
    return replace(config, data=replace(config.data, height=height, width=width))


def from_weights(spec: str, config: Run) -> Embedder:
    """A pretrained backbone as it is; its pooled feature is the only embedding.

    Args:
        spec: What `read_pretrained` reads.
        config: Its network and input size; the graph is the one that the weights were trained in.

    Raises:
        ConfigError: The weights cannot be read, or are of another network.
    """
    if is_run(Path(spec)):
        raise ConfigError(f"--weights {spec}: is the folder of a run; give it as --run")
    weights = read_pretrained(spec)
    if weights.layouts and config.model.layout not in weights.layouts:
        config = replace(config, model=replace(config.model, layout=cast(Any, weights.layouts[0])))
    model = build(config.model, classes=2)
    state = create(model, inputs_of(config).size, config.seed, *pixel_statistics(config, weights))
    return _embedder(config, model, with_weights(state, weights), ("pooled",), weights)


def _embedder(config: Run, model: SVDNet, state: TrainState, kinds: tuple[str, ...], weights: Pretrained) -> Embedder:
    infer = make_infer(model, inputs_of(config).size)
    models = fingerprints(state.variables, config, kinds)
    return Embedder(partial(infer, jax.device_put(state.variables)), kinds, config, weights, models)


def load_for(config: Run, console: Console) -> Dataset:
    """The data set that a network is to be tried on; refused before any work if nothing could be measured.

    Args:
        config: Of the network, its data replaced. Training images are not needed.
        console: Where to say what takes long.

    Raises:
        DataError: Data that cannot be used.
    """
    dataset = load_dataset(config, console)
    for name in ("query", "gallery"):
        if not len(getattr(dataset, name)):
            raise DataError(f"{dataset.name}: the {name} split has no images")
    count_valid(dataset, config)
    return dataset


def embed_test(embedder: Embedder, dataset: Dataset, console: Console) -> dict[str, tuple[Embeddings, Embeddings]]:
    """Query and gallery of a data set, by each embedding."""
    with counting("Embedding images", len(dataset.query) + len(dataset.gallery), console) as advance:
        look = partial(
            embeddings, embedder.apply, settings=embedder.config.eval, advance=advance, models=embedder.models
        )
        query, gallery = look(dataset.query), look(dataset.gallery)
    return {kind: (query[kind], gallery[kind]) for kind in embedder.kinds}


def find_images(folder: Path) -> tuple[Crop, ...]:
    """All images in a folder and the folders in it, sorted by their paths there, which are their names.

    Nobody knows whom they show: pids are -1, as for junk, and cameras 0.

    Args:
        folder: Hidden files, and those that are not named like `IMAGES`, are passed over.

    Raises:
        DataError: No folder, or no images in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; give one with images in it")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    crops = tuple(Crop(names[name], JUNK, 0, name) for name in sorted(names) if "/." not in f"/{name}")
    if not crops:
        raise DataError(f"{folder}: no image there; expected files named {', '.join(f'*{end}' for end in IMAGES)}")
    return crops


def embed_images(embedder: Embedder, crops: Sequence[Crop], kind: str | None, console: Console) -> Embeddings:
    """Embeddings of image files.

    As in a data set, images of one size reach the network as they are, and those of different sizes are brought to the
    network's first. All are decoded once before the first is embedded; a batch at a time is held in memory.

    Args:
        embedder: The network.
        crops: At least one.
        kind: The embedding; None for the first that the network has.
        console: Where to say what takes long.

    Raises:
        ConfigError: The network has no such embedding.
        DataError: Some cannot be decoded; the message names them.
    """
    kind = kind or embedder.kinds[0]
    if kind not in embedder.kinds:
        raise ConfigError(f"--kind {kind}: weights as they are have no Eigenlayer; choose {embedder.kinds[0]}")
    with counting("Looking at images", len(crops), console) as advance:
        sizes = _sizes(crops, advance)
    data, batch = embedder.config.data, min(embedder.config.eval.batch_size, len(crops))
    size = (data.width, data.height) if len(sizes) > 1 else sizes.pop()
    features = []
    with counting("Embedding images", len(crops), console) as advance:
        for start in range(0, len(crops), batch):
            images = np.stack([_pixels(crop, size) for crop in crops[start : start + batch]])
            features.append(getattr(embed(embedder.apply, images, batch, advance), kind))
    pids, cameras, names = (np.array([getattr(crop, name) for crop in crops]) for name in ("pid", "camera", "name"))
    return Embeddings(np.concatenate(features), pids, cameras, names, embedder.models[kind])


def _sizes(crops: Sequence[Crop], advance: Callable[[int], None]) -> set[tuple[int, int]]:
    """Widths and heights of images that are known then to be decodable to their end."""
    from svdnet_jax.data.images import decode  # imports Pillow, which nothing else here needs

    sizes, problems = set(), []
    for crop in crops:
        try:
            sizes.add(decode(crop.path, str(crop.path)).size)
        except DataError as error:
            problems.append(str(error))
        advance(1)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        lines = [f"{len(problems)} of {len(crops)} images cannot be used", *problems[:SHOWN], *more]
        raise DataError("\n    ".join(lines))
    return sizes


def _pixels(crop: Crop, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    from svdnet_jax.data.images import RESIZE, decode

    return np.asarray(decode(crop.path, str(crop.path)).resize(size, RESIZE))  # a copy, where that is its size
