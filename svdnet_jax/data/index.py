"""The index of a data set on disk: which file shows whom, in which split; no image is opened."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from svdnet_jax.data.types import DISTRACTOR, JUNK
from svdnet_jax.data.unread import Unread
from svdnet_jax.errors import DataError

SPLITS = ("train", "query", "gallery")
SHOWN = 5
"""At most so many problems of one kind are spelled out in a message."""


class ImageRecord(NamedTuple):
    """One image of a person."""

    path: Path
    pid: int
    camera: int
    name: str
    """Unique in its split; the file's name, or its path within the data set where names alone may repeat."""


@dataclass(frozen=True)
class DatasetIndex:
    """Files, identities and cameras of a data set, each split sorted by name."""

    name: str
    layout: str
    root: Path
    splits: Mapping[str, tuple[ImageRecord, ...]]
    """``train``, ``query`` and ``gallery``."""
    strange: tuple[Path, ...] = ()
    """Images that are in the folders but whose names say neither identity nor camera."""
    example: str = ""
    """A name as they should be."""
    published: Mapping[str, int] | None = None
    """What `counts` gives for the data set as its authors describe it."""
    unread: Unread = field(default_factory=dict)
    """What else lies in its folders, by kind."""
    people: Mapping[int, str] = field(default_factory=dict)
    """Names of identities that are texts on disk."""
    notes: tuple[str, ...] = ()
    """What was taken for what, where there was a choice."""


def counts(listing: DatasetIndex) -> dict[str, int]:
    """Returns images and identities of each split, junk, and cameras; junk and distractors are nobody's identity."""
    counted = {}
    for split, crops in listing.splits.items():
        counted[f"{split} images"] = len(crops)
        counted[f"{split} identities"] = len({crop.pid for crop in crops} - {JUNK, DISTRACTOR})
    gallery = listing.splits["gallery"]
    counted["gallery images without junk"] = sum(crop.pid != JUNK for crop in gallery)
    counted["cameras"] = count_cameras(listing)
    return counted


def count_cameras(listing: DatasetIndex) -> int:
    """Returns how many cameras there are; 0 where there are none: all images have one, or each has one of its own."""
    seen_by = {crop.path: crop.camera for crops in listing.splits.values() for crop in crops}
    query, gallery = ({crop.path for crop in listing.splits[split]} for split in ("query", "gallery"))
    cameras = len({*seen_by.values()})
    own = cameras == len(seen_by) and bool(query & gallery)  # leave-self-out
    return 0 if cameras == 1 or own else cameras


def stamp(listing: DatasetIndex) -> str:
    """Returns a short hash of the listing and of the files' sizes and times; a moved data set keeps it.

    Raises:
        DataError: A listed file is not there.
    """
    digest = hashlib.blake2b(listing.layout.encode(), digest_size=6)
    for split, crops in listing.splits.items():
        for crop in crops:
            try:
                status = os.stat(crop.path)
            except FileNotFoundError:
                raise DataError(f"{crop.path}: is listed in the {split} split but is not there") from None
            line = f"{split} {crop.name} {crop.pid} {crop.camera} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def refuse_outside(listing: DatasetIndex, *others: Path, setting: str = "data.outside") -> None:
    """Keeps a list or a link from naming files elsewhere: a stranger's manifest could show any image of yours.

    Args:
        listing: The data set.
        others: Folders that are allowed beside its own, as that where its images are unpacked.
        setting: What allows it, for the message.

    Raises:
        DataError: Names the first image that lies elsewhere, and the setting that allows it.
    """
    root = listing.root if listing.root.is_dir() else listing.root.parent
    allowed = [Path(os.path.realpath(each)) for each in (root, *others)]
    inside: dict[Path, bool] = {}
    for split, crops in listing.splits.items():
        for crop in crops:
            folder = crop.path.parent
            if folder not in inside:
                inside[folder] = any(Path(os.path.realpath(folder)).is_relative_to(each) for each in allowed)
            kept = inside[folder]
            if crop.path.is_symlink():
                kept = any(Path(os.path.realpath(crop.path)).is_relative_to(each) for each in allowed)
            if not kept:
                raise DataError(
                    f"{listing.root}: the {split} image {crop.name} is {os.path.realpath(crop.path)}, outside of "
                    f"{allowed[0]}; if that is meant, give `{setting}`, else mend the list or the link"
                )


def refuse_strange(listing: DatasetIndex) -> None:
    """Keeps images of unknown identity from being left out silently.

    Raises:
        DataError: Names the first of them.
    """
    if listing.strange:
        total = len(listing.strange) + sum(map(len, listing.splits.values()))
        first = listing.strange[0]
        raise DataError(
            f"{listing.root}: {len(listing.strange)} of {total} image names are not of the form {listing.example}, "
            f"the first is {first.parent.name}/{first.name}; rename them or take them away"
        )
