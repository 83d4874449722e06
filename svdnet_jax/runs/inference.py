"""Embeds other data with a trained run, or with pretrained weights as they are.

The data is a data set, to measure on, or any folder of images, to search in.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from rich.console import Console

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.config.validate import MOST_PIXELS
from svdnet_jax.data.index import SHOWN, ImageRecord
from svdnet_jax.data.resizing import resize_image
from svdnet_jax.data.types import Dataset
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.models.pretrained.load import Pretrained, check_fit, load_pretrained
from svdnet_jax.models.svdnet import BACKBONES, Outputs, SVDNet, create_model
from svdnet_jax.reporting.progress import counting
from svdnet_jax.reporting.terminal import say
from svdnet_jax.retrieval.embed import apply_in_batches
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.people import NUMBERS, People
from svdnet_jax.runs.dataset import count_valid, load_test_dataset
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.load import finished_note, load_run
from svdnet_jax.runs.pictures import Pixels
from svdnet_jax.training.embedding import make_eval_fn, make_eval_fn_resized
from svdnet_jax.training.evaluation import embed_split
from svdnet_jax.training.fingerprint import fingerprints
from svdnet_jax.training.init import as_pretrained, initial_shapes, pixel_statistics, with_weights
from svdnet_jax.training.pixel_features import make_pixel_fn
from svdnet_jax.training.state import TrainState, init_state


class Embedder(NamedTuple):
    """A network at rest, and what is known of it."""

    apply: Callable[[UInt8[np.ndarray, "B h w 3"]], Outputs]
    """To bytes of any size."""
    apply_resized: Callable[[Float32[np.ndarray, "B H W 3"]], Outputs]
    """To pixels in [0, 255] of the network's size."""
    apply_pixelwise: Pixels
    """To either: the features of pixels, whose means are the embeddings."""
    kinds: tuple[str, ...]
    """Its embeddings that mean something: ``embedding`` and ``pooled``."""
    config: Config
    """Of the run; of the preset for weights as they are."""
    weights: Pretrained
    """Its backbone."""
    models: Mapping[str, str]
    """The network's fingerprint for each of its embeddings."""


def from_run(folder: Path) -> Embedder:
    """Loads the network of a run's latest checkpoint.

    Raises:
        ConfigError: No run folder, or none that this version can read.
    """
    trained = load_run(folder)
    weights = as_pretrained(trained.state, f"{folder}, {finished_note(trained)}", (trained.config.model.layout,))
    return _embedder(trained.config, trained.model, trained.state, ("embedding", "pooled"), weights)


def preset(name: str, size: tuple[int, int] | None) -> Config:
    """Returns the settings that weights as they are are tried with.

    Args:
        name: Of the preset.
        size: Height and width that the network sees, if not the preset's.

    Raises:
        ConfigError: No such preset, or a size that cannot be.
    """
    if name not in PRESETS:
        raise ConfigError(f"`preset` {name}: unknown; choose one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    height, width = size or (config.data.height, config.data.width)
    if not all(8 <= side <= MOST_PIXELS for side in (height, width)):
        raise ConfigError(f"`size` {height} {width}: height and width must be from 8 to {MOST_PIXELS}")
    return replace(config, data=replace(config.data, height=height, width=width))


def from_weights(spec: str, config: Config) -> Embedder:
    """Loads a pretrained backbone as it is; its pooled feature is the only embedding.

    Args:
        spec: What `load_pretrained` reads.
        config: Its network and input size; the graph is the one that the weights were trained in, and the backbone that
            of the weights where they do not fit this one, which the note of the weights says.

    Raises:
        ConfigError: The weights cannot be read, or are of another network.
    """
    if RunDir(Path(spec)).is_run:
        raise ConfigError(f"`weights` {spec}: is the folder of a run; give it as `run`")
    config, weights = _fitted(config, load_pretrained(spec))
    if weights.layouts and config.model.layout not in weights.layouts:
        config = replace(config, model=replace(config.model, layout=cast(Any, weights.layouts[0])))
    model = create_model(config.model, num_classes=2)
    state = init_state(model, input_size(config.data), config.seed, *pixel_statistics(config.model, weights))
    return _embedder(config, model, with_weights(state, weights), ("pooled",), weights)


def _fitted(config: Config, weights: Pretrained) -> tuple[Config, Pretrained]:
    """Returns settings with the backbone that the weights are of, and the weights with a note if it is another one."""
    own = config.model.backbone
    for name in (own, *BACKBONES):
        # Without an Eigenlayer, which is not looked at and may have more outputs than this backbone has channels.
        model = config.model if name == own else replace(config.model, backbone=name, embedding_dim=0)
        found = replace(config, model=model)
        try:
            check_fit(initial_shapes(found), weights)
        except ConfigError:
            continue
        said = [weights.note, f"read as {name}, and not {own}" if name != own else ""]
        return found, weights._replace(note="; ".join(part for part in said if part))
    return config, weights  # what does not fit is told when they are put in


def _embedder(
    config: Config, model: SVDNet, state: TrainState, kinds: tuple[str, ...], weights: Pretrained
) -> Embedder:
    variables, models = jax.device_put(state.variables), fingerprints(state.variables, config, kinds)
    size = input_size(config.data)
    apply, resized, pixelwise = make_eval_fn(model, size), make_eval_fn_resized(model), make_pixel_fn(model, size)
    applied = partial(apply, variables), partial(resized, variables), partial(pixelwise, variables)
    return Embedder(*applied, kinds, config, weights, models)


def load_eval_dataset(config: Config, console: Console) -> Dataset:
    """Loads the data set that a network is to be tried on; refused first if nothing could be measured.

    Args:
        config: Of the network, its data replaced. Training images are not needed.
        console: Where to say what takes long.

    Raises:
        DataError: Data that cannot be used.
    """
    dataset = load_test_dataset(config, console)
    for name in ("query", "gallery"):
        if not len(getattr(dataset, name)):
            raise DataError(f"{dataset.name}: the {name} split has no images")
    count_valid(dataset, config.eval)
    return dataset


def embed_test(embedder: Embedder, dataset: Dataset, console: Console) -> dict[str, tuple[Embeddings, Embeddings]]:
    """Embeds query and gallery of a data set, by each embedding."""
    with counting("Embedding images", len(dataset.query) + len(dataset.gallery), console) as advance:
        look = partial(
            embed_split,
            embedder.apply,
            settings=embedder.config.eval,
            advance=advance,
            models=embedder.models,
            people=dataset.people,
        )
        query, gallery = look(dataset.query), look(dataset.gallery)
    return {kind: (query[kind], gallery[kind]) for kind in embedder.kinds}


def embed_images(
    embedder: Embedder,
    crops: Sequence[ImageRecord],
    kind: str | None,
    console: Console,
    people: People = NUMBERS,
) -> Embeddings:
    """Returns embeddings of image files.

    Each image is brought to the network's size by itself, so that its embedding does not depend on what lies beside it:
    in batches of one length it is the same to the bit. (A batch of another length is summed in another order, which is
    rounding, as is the difference to a data set of images of one size, which the compiled network resizes.) All are
    decoded once before the first is embedded; a batch at a time is held in memory.

    Args:
        embedder: The network.
        crops: At least one.
        kind: The embedding; None for the first that the network has.
        console: Where to say what takes long, and how images were changed.
        people: What identities are called that are texts.

    Raises:
        ConfigError: The network has no such embedding.
        DataError: Some cannot be used; the message names them.
    """
    kind = kind or embedder.kinds[0]
    if kind not in embedder.kinds:
        raise ConfigError(f"`kind` {kind}: weights as they are have no Eigenlayer; choose {embedder.kinds[0]}")
    with counting("Looking at images", len(crops), console) as advance:
        changed = _looked_at(crops, advance)
    for change, number in changed.most_common():
        say(console, f"{number} images were {change}")
    data, batch = embedder.config.data, min(embedder.config.eval.batch_size, len(crops))
    features = []
    with counting("Embedding images", len(crops), console) as advance:
        for start in range(0, len(crops), batch):
            chosen = crops[start : start + batch]
            images = np.stack([_pixels(crop, (data.height, data.width)) for crop in chosen])
            features.append(getattr(apply_in_batches(embedder.apply_resized, images, batch, advance), kind))
    pids, cameras, names = (np.array([getattr(crop, name) for crop in crops]) for name in ("pid", "camera", "name"))
    return Embeddings(np.concatenate(features), pids, cameras, names, embedder.models[kind], people)


def _looked_at(crops: Sequence[ImageRecord], advance: Callable[[int], None]) -> Counter[str]:
    """Returns how images were changed that are known then to be decodable to their end."""
    from svdnet_jax.data.images import read_picture  # imports Pillow, which nothing else here needs

    changed: Counter[str] = Counter()
    problems = []
    for crop in crops:
        try:
            changed.update(read_picture(crop.path, str(crop.path)).changed)
        except DataError as error:
            problems.append(str(error))
        advance(1)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        lines = [f"{len(problems)} of {len(crops)} images cannot be used", *problems[:SHOWN], *more]
        raise DataError("\n    ".join(lines))
    return changed


def _pixels(crop: ImageRecord, size: tuple[int, int]) -> Float32[np.ndarray, "H W 3"]:
    from svdnet_jax.data.images import decode

    return resize_image(np.asarray(decode(crop.path, str(crop.path))), size)
