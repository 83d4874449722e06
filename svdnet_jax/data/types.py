"""`Split` and `Dataset`, and the rules of the protocol they must obey."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int, UInt8

from svdnet_jax.errors import DataError

JUNK = -1
"""Market-1501's identity of bad detections: neither right nor wrong, left out of the evaluation."""
DISTRACTOR = 0
"""Market-1501's identity of people outside the test: always wrong."""


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded images of one split with their identities and cameras."""

    images: UInt8[np.ndarray, "N h w 3"]
    """RGB, all of one size."""
    pids: Int[np.ndarray, " N"]
    """Identity numbers as in the file names; `JUNK` and `DISTRACTOR` have their meaning in a gallery."""
    cameras: Int[np.ndarray, " N"]
    """Camera numbers as in the file names."""
    names: np.ndarray
    """File names (N,) str."""
    images_hash: str | None = None
    """`array_hash` of the images where it is known already, as of prepared data: hashing a gigabyte takes a second."""

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.pids)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run trains and tests on."""

    name: str
    """As it is shown."""
    train: Split
    """Images to train on, of other people than the rest."""
    query: Split
    """Images that are asked for."""
    gallery: Split
    """Images that are searched."""
    people: Mapping[int, str] = field(default_factory=dict)
    """What identities are called that are texts on disk, by pid."""
    others: tuple["Dataset", ...] = ()
    """Further test sets, by their names; their training images are among `train`."""


def labels(pids: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], int]:
    """Identities as class numbers 0 .. K-1 in increasing order of pid, and K."""
    known, classes = np.unique(pids, return_inverse=True)
    return classes.astype(np.int32), len(known)


def check_identities(dataset: Dataset) -> None:
    """Refuses a data set on whose identities nothing can be trained or measured.

    Raises:
        DataError: A split is empty, training has junk, distractors or a single identity, or identities are in both
            training and test.
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
        first = dataset.people.get(int(both[0]), both[0])
        raise DataError(
            f"{dataset.name}: {both.size} identities are in both training and test, the first is {first}; "
            "re-identification is measured on people never seen in training"
        )


def fingerprint(dataset: Dataset) -> str:
    """Returns a short hash of a data set's images, identities (as numbers), cameras and file names."""
    digest = hashlib.blake2b(digest_size=8)
    for split in (dataset.train, dataset.query, dataset.gallery):
        digest.update((split.images_hash or array_hash(split.images)).encode())
        for array in (split.pids, split.cameras, split.names):
            digest.update(array_hash(array).encode())
    for other in dataset.others:
        digest.update(f"{other.name} {fingerprint(other)}".encode())
    return digest.hexdigest()


def array_hash(array: np.ndarray) -> str:
    """Returns a hash of an array's type, shape and content."""
    digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
