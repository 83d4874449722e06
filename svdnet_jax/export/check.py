"""Compares an exported network with the one it was made of: features, retrieval and time, on real images."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from svdnet_jax.config.schema import Eval
from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import MachineError
from svdnet_jax.retrieval import Embeddings, Report, evaluate
from svdnet_jax.retrieval.embed import apply_in_batches
from svdnet_jax.retrieval.protocol import match, right_answers

Apply = Callable[[UInt8[np.ndarray, "N h w 3"]], Any]
"""From images to features (N, D)."""

GALLERY = 4
"""Gallery images for each query."""
BATCHES = (1, 64)
"""Images at a time that are timed; the last is that of the comparison."""
LIMITS: Mapping[str, float] = MappingProxyType({"float32": 0.02, "bfloat16": 0.2})
"""By the type of the run's backbone: difference, as a share of how far features lie from their mean, beyond which the
file computes something else. By rounding alone an untrained network, whose features hardly differ, comes to 1e-4, to
0.06 in bfloat16 and so to 0.01 by the TF32 of a GPU. Pooling without its padding changes them by more than 0.1."""


class Comparison(NamedTuple):
    """A network and its file on the same images."""

    queries: int
    gallery: int
    difference: float
    """The largest of any feature of any image."""
    spread: float
    """How far a feature of an image lies from the mean of all images, at most."""
    own: Report
    """Retrieval by the network."""
    exported: Report
    """Retrieval by the file."""


def choose(dataset: Dataset, queries: int, cross_camera: bool) -> tuple[Split, Split]:
    """Returns some queries that can be answered and `GALLERY` times as many gallery images, a positive of each in them.

    Args:
        dataset: With one valid query at least.
        queries: At most so many.
        cross_camera: As for `evaluate`.
    """
    matches = match(_ids(dataset.query), _ids(dataset.gallery), cross_camera)
    some = _spread(np.flatnonzero(matches.count > 0), queries)
    positives = matches.kept[right_answers(matches, some, 1)[:, 0]]
    others = np.setdiff1d(np.arange(len(dataset.gallery)), positives)
    gallery = np.union1d(positives, _spread(others, GALLERY * len(some) - len(np.unique(positives))))
    return _rows(dataset.query, some), _rows(dataset.gallery, gallery)


def compare(own: Apply, exported: Apply, query: Split, gallery: Split, settings: Eval, dtype: str) -> Comparison:
    """Embeds images with both, and ranks them.

    Args:
        own: The network.
        exported: Its file.
        query: From `choose`.
        gallery: Likewise.
        settings: Metric and cross-camera rule.
        dtype: Of the run's backbone, one of `LIMITS`.

    Raises:
        MachineError: The features differ by more than rounding, or are no finite numbers.
    """
    features = [
        [np.asarray(apply_in_batches(apply, split.images, BATCHES[-1])) for split in (query, gallery)]
        for apply in (own, exported)
    ]
    ours, theirs = (np.concatenate(each) for each in features)
    difference, spread = float(np.abs(ours - theirs).max()), float(np.abs(ours - ours.mean(axis=0)).max())
    if not difference <= LIMITS[dtype] * spread:  # NaN is not
        raise MachineError(
            f"the file gives other features than the run: the largest difference is {difference:.2g}, where features "
            f"of different images differ by {spread:.2g}. Nothing was written; try other versions of jax and jax2onnx"
        )
    measured = partial(evaluate, metric=settings.metric, cross_camera=settings.cross_camera)
    reports = (measured(_ids(query, sides[0]), _ids(gallery, sides[1])) for sides in features)
    return Comparison(len(query), len(gallery), difference, spread, *reports)


def seconds(apply: Apply, images: UInt8[np.ndarray, "N h w 3"], calls: int = 10, most: float = 3.0) -> float:
    """Returns the median time of a call, its features in host memory, after one that compiles.

    Args:
        apply: The network.
        images: Of each call.
        calls: At most so many.
        most: No call begins after so many seconds.
    """
    np.asarray(apply(images))
    times: list[float] = []
    while not times or (len(times) < calls and sum(times) < most):
        start = time.perf_counter()
        np.asarray(apply(images))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _spread(rows: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " m"]:
    """Returns at most so many of them, evenly spread: names are sorted by identity, so the first are few people."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), max(most, 0))).astype(int)]


def _rows(split: Split, rows: Int[np.ndarray, " n"]) -> Split:
    return Split(split.images[rows], split.pids[rows], split.cameras[rows], split.names[rows])


def _ids(split: Split, features: np.ndarray | None = None) -> Embeddings:
    features = np.zeros((len(split), 1), np.float32) if features is None else features
    return Embeddings(features, split.pids, split.cameras, split.names)
