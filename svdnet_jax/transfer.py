"""A network on data that it was not trained on: a trained run, or ImageNet weights as they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Array, UInt8
from rich.console import Console

from svdnet_jax.config import Data, Eval, Run
from svdnet_jax.data.splits import Dataset, Split
from svdnet_jax.models.pretrained import read_pretrained
from svdnet_jax.models.svdnet import Outputs, build
from svdnet_jax.reporting.progress import counting
from svdnet_jax.retrieval.embed import embed
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.run import load_dataset
from svdnet_jax.training.initial import pixel_statistics, with_weights
from svdnet_jax.training.state import TrainState, create
from svdnet_jax.training.step import inputs_of, make_infer
from svdnet_jax.training.trained import finished_note, load_trained


class Embedder(NamedTuple):
    """A network at rest, and what is known of it."""

    apply: Callable[[UInt8[Array, "B H W 3"]], Outputs]
    kinds: tuple[str, ...]
    """Its embeddings that mean something: ``embedding`` and ``pooled``."""
    size: tuple[int, int]
    """Height and width that it sees."""
    settings: Eval
    source: str


def from_run(folder: Path) -> Embedder:
    """The network of a run folder's latest checkpoint.

    Raises:
        ConfigError: No run folder, or none that this version can read.
    """
    trained = load_trained(folder)
    source = f"{folder}, {finished_note(trained)}"
    return _embedder(trained.config, trained.model, trained.state, ("embedding", "pooled"), source)


def from_weights(spec: str, config: Run) -> Embedder:
    """A pretrained backbone as it is; its pooled feature is the only embedding.

    Args:
        spec: What `read_pretrained` reads.
        config: Its network and input size.

    Raises:
        ConfigError: The weights cannot be read, or are of another network.
    """
    weights = read_pretrained(spec)
    if weights.layouts and config.model.layout not in weights.layouts:
        config = replace(config, model=replace(config.model, layout=cast(Any, weights.layouts[0])))
    model = build(config.model, classes=2)
    state = create(model, inputs_of(config).size, config.seed, *pixel_statistics(config, weights))
    return _embedder(config, model, with_weights(state, weights), ("pooled",), weights.source)


def _embedder(config: Run, model: Any, state: TrainState, kinds: tuple[str, ...], source: str) -> Embedder:
    size = inputs_of(config).size
    infer = make_infer(model, size)
    variables = jax.device_put(state.variables)
    return Embedder(lambda images: infer(variables, images), kinds, size, config.eval, source)


def load_for(embedder: Embedder, data: Data, console: Console) -> Dataset:
    """The data set that an embedder is to be tried on.

    Raises:
        DataError: Data that cannot be used.
    """
    height, width = embedder.size
    return load_dataset(Run(data=replace(data, height=height, width=width)), console)


def embed_test(embedder: Embedder, dataset: Dataset, console: Console) -> dict[str, tuple[Embeddings, Embeddings]]:
    """Query and gallery of a data set, by each embedding."""
    with counting("Embedding images", len(dataset.query) + len(dataset.gallery), console) as advance:
        query, gallery = (_embed(embedder, split, advance) for split in (dataset.query, dataset.gallery))
    return {kind: (query[kind], gallery[kind]) for kind in embedder.kinds}


def _embed(embedder: Embedder, split: Split, advance: Callable[[int], None]) -> dict[str, Embeddings]:
    outputs: Outputs = embed(embedder.apply, split.images, embedder.settings.batch_size, advance)
    return {
        kind: Embeddings(np.asarray(getattr(outputs, kind)), split.pids, split.cameras, split.names)
        for kind in embedder.kinds
    }
