"""The nouns of the data side: `Split` and `Dataset`, and the rules of the protocol they must obey."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

JUNK = -1
"""Market-1501's identity of bad detections: neither right nor wrong, left out of the evaluation."""
DISTRACTOR = 0
"""Market-1501's identity of people outside the test: always wrong."""


class DataError(ValueError):
    """Data that cannot be used; the message names the file or folder, what was found and what was expected."""


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded images of one split with their identities and cameras."""

    images: UInt8[np.ndarray, "N H W 3"]
    """RGB, all of one size."""
    pids: Int[np.ndarray, " N"]
    """Identity numbers as in the file names; `JUNK` and `DISTRACTOR` have their meaning in a gallery."""
    cameras: Int[np.ndarray, " N"]
    """Camera numbers as in the file names."""
    names: np.ndarray
    """File names (N,) str."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pids)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run trains and tests on."""

    name: str
    train: Split
    query: Split
    gallery: Split


def labels(pids: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], int]:
    """Identities as class numbers 0 .. K-1 in increasing order of pid, and K."""
    known, classes = np.unique(pids, return_inverse=True)
    return classes.astype(np.int32), len(known)


def check_protocol(dataset: Dataset, *, cross_camera: bool) -> None:
    """Refuses a data set whose results would mean nothing, before any training.

    Raises:
        DataError: A split is empty, training has junk, distractors or a single identity, identities are in both
            training and test, or no query has a right answer in the gallery.
    """
    for name in ("train", "query", "gallery"):
        if not len(getattr(dataset, name)):
            raise DataError(f"{dataset.name}: the {name} split has no images")
    train, query, gallery = dataset.train, dataset.query, dataset.gallery
    if (train.pids <= DISTRACTOR).any():
        raise DataError(f"{dataset.name}: {int((train.pids <= 0).sum())} training images have pid -1 or 0")
    if len(np.unique(train.pids)) < 2:
        raise DataError(f"{dataset.name}: training needs two identities at least, found one")
    both = np.intersect1d(train.pids, np.concatenate([query.pids, gallery.pids]))
    if both.size:
        raise DataError(
            f"{dataset.name}: {both.size} identities are in both training and test, the first is {both[0]}; "
            "re-identification is measured on people never seen in training"
        )
    if not _answerable(query, gallery, cross_camera).any():
        alone = _answerable(query, gallery, False).sum()
        raise DataError(
            f"{dataset.name}: none of {len(query)} queries has a right answer in the gallery; {alone} have images "
            "of their identity there, all from the query's own camera (--eval.no-cross-camera would count them)"
        )


def _answerable(query: Split, gallery: Split, cross_camera: bool) -> np.ndarray:
    """Whether each query has a gallery image of its identity (from another camera)."""
    if not cross_camera:
        return np.isin(query.pids, gallery.pids)
    seen = np.unique(np.stack([gallery.pids, gallery.cameras]), axis=1)
    cameras_of, counts = np.unique(seen[0], return_counts=True)
    same = {(int(pid), int(camera)) for pid, camera in seen.T}
    places = dict(zip(cameras_of.tolist(), counts.tolist(), strict=True))
    pairs = zip(query.pids.tolist(), query.cameras.tolist(), strict=True)
    return np.array([places.get(pid, 0) > ((pid, camera) in same) for pid, camera in pairs])
