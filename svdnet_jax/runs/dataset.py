"""Loads the data set that settings name: on disk or built in, with the test or a validation split."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from rich.console import Console

from svdnet_jax.config.data import place_of
from svdnet_jax.config.schema import Config, Data, Eval
from svdnet_jax.data.holdout import hold_out, without
from svdnet_jax.data.index import SHOWN
from svdnet_jax.data.joined import join
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.data.synthetic import generate
from svdnet_jax.data.types import DISTRACTOR, JUNK, Dataset, check_identities
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

    With ``data.validation`` training identities take the place of the test set, which is not looked at. With
    ``data.more`` the training images of several data sets are joined; those held out are of the first.

    Raises:
        DataError: Data that cannot be used.
    """
    data, told = config.data, partial(say, console)
    try:
        dataset = first = _load(data, console)
        if data.more:
            more = [_load_more(each, data, console) for each in data.more]
            size = data.height, data.width
            dataset = join(first, more, data.cache, size, told, combine_all=data.combine_all)
    except OSError as error:
        raise DataError(f"`data.root` {config.data.root}, `data.cache` {config.data.cache}: {error}") from error
    if data.validation:
        held = hold_out(first, data.validation, config.seed, config.eval.cross_camera)
        left = without(dataset.train, held.query.pids) if data.more else held.train
        name = dataset.name + held.name.removeprefix(first.name)
        return replace(held, name=name, train=left, people=dataset.people)
    return replace(dataset, others=tuple(each for each in dataset.others if _can_be_tested(each, config, told)))


def load_test_dataset(config: Config, console: Console) -> Dataset:
    """Loads the data set that settings name first, for what looks at its test set alone.

    Raises:
        DataError: Data that cannot be used.
    """
    alone = replace(config.data, more=(), combine_all=False)
    return load_configured_dataset(replace(config, data=alone), console)


def _can_be_tested(other: Dataset, config: Config, told: Callable[[str], None]) -> bool:
    """Returns whether queries can be answered in a further data set; says why where they cannot.

    Raises:
        DataError: Identities are in both its training and its test set.
    """
    check_identities(other)
    try:
        count_valid(other, config.eval)
    except DataError as error:
        told(f"note: {error} It is trained on and not tested.")
        return False
    return True


def _load_more(place: str, data: Data, console: Console) -> Dataset:
    """Loads a further data set, named as in `data.more`."""
    root, layout = place_of(place)
    size = data.height, data.width
    return load_dataset(root, data.cache, size, layout, partial(say, console), outside=data.outside)


def _load(data: Data, console: Console) -> Dataset:
    if (root := data.root) is None:
        say(console, BUILT_IN)
        root = data.cache / f"synthetic-{generate.fingerprint(data.synthetic)}"
        if not root.exists():
            with counting("Drawing pedestrians", generate.count_images(data.synthetic), console) as advance:
                generate.write_synthetic(root, data.synthetic, advance)
    size = data.height, data.width
    given = {"camera": data.camera_pattern, "split": data.split}
    dataset = load_dataset(root, data.cache, size, data.layout, partial(say, console), outside=data.outside, **given)
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
            f"{dataset.query.names[pairs[0][0]]}, and with `cross_camera` False (when training, `eval.cross_camera` "
            "False) each would find itself; leave that option out: without cameras only a query's own image is left out"
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
