"""A validation split: training identities held out to choose settings without the test set."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import DataError


def hold_out(dataset: Dataset, identities: int, seed: int, cross_camera: bool = True) -> Dataset:
    """Turns some training identities into query and gallery; the test split is dropped, so nothing is chosen on it.

    Of each held-out identity and camera the first image by name is a query and the others are its gallery, as in
    Market-1501. Drawn are only identities of whom every such query has a right answer.

    Args:
        dataset: What to divide.
        identities: How many leave training.
        seed: Of the draw.
        cross_camera: Whether the evaluation leaves out answers from the query's own camera.

    Raises:
        DataError: There are not so many identities to hold out with two left to train on.
    """
    train = dataset.train
    known, query = np.unique(train.pids), _first_of_each_camera(train)
    gallery = ~query
    if _own_cameras(train):  # leave-self-out: all that are held out are query and gallery, as in the test set
        query = gallery = np.ones(len(train), bool)
    fit = _answerable(train, gallery, cross_camera)
    most = min(len(fit), len(known) - 2)
    if not 1 <= identities <= most:
        rule = "two images in each of two cameras" if cross_camera else "two images in one camera"
        remedy = f"give 1 to {most}" if most > 0 else "none can be held out"
        raise DataError(
            f"`data.validation` {identities}: {dataset.name} has {len(known)} training identities, {len(fit)} of them "
            f"with {rule}, as their queries need, and two must be left to train on; {remedy}"
        )
    held = np.random.default_rng(seed).choice(fit, identities, replace=False)
    out = np.isin(train.pids, held)
    name = f"{dataset.name} (validation: {identities} of {len(known)} training identities)"
    parts = _part(train, ~out), _part(train, out & query), _part(train, out & gallery)
    return Dataset(name, *parts, dataset.people)


def _first_of_each_camera(split: Split) -> Bool[np.ndarray, " N"]:
    """Returns which images are the first by name of their identity and camera."""
    order = np.lexsort((split.names, split.cameras, split.pids))
    pairs = np.stack([split.pids, split.cameras], axis=1)[order]
    first = np.zeros(len(split), bool)
    first[order] = np.append(True, (pairs[1:] != pairs[:-1]).any(axis=1))
    return first


def _own_cameras(split: Split) -> bool:
    """Returns whether each image has a camera of its own, as where there are none and query set and gallery are one."""
    return len(np.unique(split.cameras)) == len(split)


def _answerable(split: Split, gallery: Bool[np.ndarray, " N"], cross_camera: bool) -> Int[np.ndarray, " K"]:
    """Identities that leave gallery images in every query's reach, in increasing order."""
    left = np.unique(np.stack([split.pids, split.cameras], axis=1)[gallery], axis=0)
    pids, cameras = np.unique(left[:, 0], return_counts=True)
    # With gallery images of two cameras, a query of any camera has one of another.
    return pids[cameras >= (2 if cross_camera else 1)]


def without(split: Split, pids: Int[np.ndarray, " n"]) -> Split:
    """Returns the images of other identities."""
    return _part(split, ~np.isin(split.pids, pids))


def _part(split: Split, chosen: Bool[np.ndarray, " N"]) -> Split:
    part = {name: getattr(split, name)[chosen] for name in ("images", "pids", "cameras", "names")}
    return replace(split, **part, images_hash=None)
