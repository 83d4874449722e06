"""A network on data that it was not trained on: a trained run, or ImageNet weights as they are."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
from jaxtyping import Array, UInt8
from rich.console import Console

from svdnet_jax.config import ConfigError, Run
from svdnet_jax.data.splits import DataError, Dataset
from svdnet_jax.loading import count_valid, load_dataset
from svdnet_jax.models.pretrained import Pretrained, read_pretrained
from svdnet_jax.models.svdnet import Outputs, SVDNet, build
from svdnet_jax.reporting.progress import counting
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.training.fingerprint import fingerprints
from svdnet_jax.training.initial import as_pretrained, pixel_statistics, with_weights
from svdnet_jax.training.measure import embeddings
from svdnet_jax.training.state import TrainState, create
from svdnet_jax.training.step import inputs_of, make_infer
from svdnet_jax.training.trained import finished_note, is_run, load_trained


class Embedder(NamedTuple):
    """A network at rest, and what is known of it."""

    apply: Callable[[UInt8[Array, "B H W 3"]], Outputs]
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
