"""Multi-query: all images of an identity from one camera ask together, by their mean feature.

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, "multiple queries" with average
pooling. In Market-1501 the images are those of the folder gt_bbox.
"""

import dataclasses
from typing import get_args

import numpy as np
from jaxtyping import Float64, Int64

from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.embeddings import Embeddings

COLUMNS = 256
"""Dimensions of the features summed at a time: it bounds the memory that float64 takes."""


def multi_query(images: Embeddings, metric: Metric = "euclidean") -> Embeddings:
    """Returns the mean feature of each identity in each camera, as queries for `evaluate`.

    Identities that the gallery lacks are not dropped here: gt_bbox also holds those of the training set, and `evaluate`
    does not count them.

    Args:
        images: N images. Junk (negative pids) is dropped; pid 0 is grouped like any identity.
        metric: The one to evaluate with. Under "cosine" features are scaled to length 1 before the mean, so that each
            image has the same say (as in layumi's Person_reID_baseline_pytorch); under "euclidean" they are taken as
            they are.

    Returns:
        One row per pair of pid and camera, in the order of their first images and with the names of these.

    Raises:
        ValueError: An unknown metric, or under cosine a feature of length zero.
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be {' or '.join(get_args(Metric))}; found {metric!r}.")
    kept = np.flatnonzero(images.pids >= 0)
    weights = _inverse_lengths(images, kept) if metric == "cosine" else np.ones(len(kept))
    first, group = _groups(images.pids[kept], images.cameras[kept])
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=len(first))
    means = np.empty((len(first), images.features.shape[1]), np.float64)
    for begin in range(0, means.shape[1] if len(first) else 0, COLUMNS):
        part = images.features[kept[order], begin : begin + COLUMNS] * weights[order, None]
        means[:, begin : begin + COLUMNS] = np.add.reduceat(part, np.cumsum(counts) - counts) / counts[:, None]
    rows = kept[first]
    return dataclasses.replace(
        images,
        features=means,
        pids=images.pids[rows],
        cameras=images.cameras[rows],
        names=images.names[rows],
    )


def _groups(
    pids: Int64[np.ndarray, " n"], cameras: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " n"]]:
    """Returns the first image of each pair of pid and camera, ascending, and the number of each image's pair."""
    # As codes 0, 1, ... a pair of any integers fits one number.
    _, pid = np.unique(pids, return_inverse=True)
    known, camera = np.unique(cameras, return_inverse=True)
    _, first, group = np.unique(pid * len(known) + camera, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(first), np.int64)
    number[order] = np.arange(len(first))
    return first[order], number[group]


def _inverse_lengths(images: Embeddings, rows: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Computes 1 / length of some rows."""
    lengths = np.sqrt(np.einsum("nd,nd->n", images.features, images.features, dtype=np.float64))[rows]
    if not lengths.all():
        row = rows[np.argmin(lengths)]
        raise ValueError(
            f"the feature of row {row} ({images.names[row]}) of the images to average is zero, so it has no cosine; "
            "use the euclidean metric or leave the image out."
        )
    return 1 / lengths
