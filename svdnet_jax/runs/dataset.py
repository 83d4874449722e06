"""Loads the data set that settings name: on disk or built in, with the test or a validation split."""

from dataclasses import replace
from functools import partial

import numpy as np
from rich.console import Console

from svdnet_jax.config.schema import Config, Data, Eval
from svdnet_jax.data.holdout import hold_out
from svdnet_jax.data.index import SHOWN
from svdnet_jax.data.load import load_dataset
from svdnet_jax.data.synthetic import generate
from svdnet_jax.data.types import DISTRACTOR, JUNK, Dataset
from svdnet_jax.errors import DataError
from svdnet_jax.reporting.progress import counting
from svdnet_jax.reporting.terminal import say
from svdnet_jax.retrieval import protocol
from svdnet_jax.retrieval.embeddings import Embeddings

BUILT_IN = (
    "No `data.root` given: built-in synthetic pedestrians. For Market-1501: `data.root` FOLDER, "
    "the unpacked data set or its parent."
)


def load_configured_dataset(config: Config, console: Console) -> Dataset:
    """Loads the data set of a run; the built-in one is drawn first if it is not there yet.

    With ``data.validation`` training identities take the place of the test set, which is not looked at.

    Raises:
        DataError: Data that cannot be used.
    """
    try:
        dataset = _load(config.data, console)
    except OSError as error:
        raise DataError(f"`data.root` {config.data.root}, `data.cache` {config.data.cache}: {error}") from error
    if config.data.validation:
        dataset = hold_out(dataset, config.data.validation, config.seed, config.eval.cross_camera)
    return dataset


def _load(data: Data, console: Console) -> Dataset:
    if (root := data.root) is None:
        say(console, BUILT_IN)
        root = data.cache / f"synthetic-{generate.fingerprint(data.synthetic)}"
        if not root.exists():
            with counting("Drawing pedestrians", generate.count_images(data.synthetic), console) as advance:
                generate.write_synthetic(root, data.synthetic, advance)
    size = data.height, data.width
    told = partial(say, console)
    dataset = load_dataset(root, data.cache, size, data.layout, told, outside=data.outside, camera=data.camera_pattern)
    return dataset if data.root else replace(dataset, name="synthetic pedestrians")


def count_valid(dataset: Dataset, settings: Eval) -> int:
    """Counts queries that have a positive in the gallery, before any training.

    Raises:
        DataError: There are none; the message says why and what to do.
    """
    query, gallery = (
        Embeddings(np.zeros((len(split), 1), np.float32), split.pids, split.cameras, split.names)
        for split in (dataset.query, dataset.gallery)
    )
    matches = protocol.match(query, gallery, settings.cross_camera)
    if not matches.count.any():
        raise DataError(f"{dataset.name}: {protocol.explain_no_match(query, gallery, matches)}")
    if not settings.cross_camera:
        _refuse_selves(dataset)
    return int((matches.count > 0).sum())


def _refuse_selves(dataset: Dataset) -> None:
    """Keeps queries from finding themselves, where no rule leaves them out."""
    rows = {name: row for row, name in enumerate(dataset.gallery.names.tolist())}
    pairs = [(row, rows[name]) for row, name in enumerate(dataset.query.names.tolist()) if name in rows]
    pairs = [(q, g) for q, g in pairs if dataset.query.pids[q] == dataset.gallery.pids[g]]
    # Two files of one name may be two images: looked at are as many as it takes to know.
    if any(np.array_equal(dataset.query.images[q], dataset.gallery.images[g]) for q, g in pairs[:SHOWN]):
        raise DataError(
            f"{dataset.name}: {len(pairs)} of {len(dataset.query)} queries are in the gallery too, the first is "
            f"{dataset.query.names[pairs[0][0]]}, and with `eval.cross_camera` False each would find itself; leave "
            "that option out: without cameras only a query's own image is left out"
        )


def summary(dataset: Dataset, valid: int) -> str:
    """Returns a data set in a line: images, identities, and how many queries can be answered."""
    train, query, gallery = dataset.train, dataset.query, dataset.gallery
    return (
        f"{dataset.name}: {len(train)} training images of {len(np.unique(train.pids))} identities; "
        f"{len(query)} queries of {len(np.unique(query.pids))} other identities, {valid} of them valid (with a right "
        f"answer); {len(gallery)} gallery images, "
        f"of which {int((gallery.pids == DISTRACTOR).sum())} distractors and "
        f"{int((gallery.pids == JUNK).sum())} junk"
    )
