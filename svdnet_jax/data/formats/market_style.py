"""Market-1501's three folders, in which a file's name says whom it shows and by which camera.

``bounding_box_train``, ``query`` and ``bounding_box_test``: Market-1501's own layout, in which DukeMTMC-reID and
CUHK03-NP were published too, each with names of its own form.
"""

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from svdnet_jax.data.index import ImageRecord
from svdnet_jax.data.unread import Unread, by_kind, why_not

FOLDERS: Mapping[str, str] = MappingProxyType(
    {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
)
_SUFFIXES = (".jpg", ".jpeg", ".png")
_GLANCE = 100  # so many names of a folder tell whose they are


class FilenamePattern(NamedTuple):
    """The form of a data set's file names; its groups ``pid`` and ``camera`` are integers."""

    pattern: re.Pattern[str]
    example: str


class SplitFiles(NamedTuple):
    """What was found in the folders of a data set."""

    splits: Mapping[str, tuple[ImageRecord, ...]]
    strange: tuple[Path, ...] = ()
    """Images whose names are of another form."""
    unread: Unread = MappingProxyType({})
    """What else lies in the folders, by kind."""


def lacking(folder: Path, naming: FilenamePattern) -> str:
    """Returns what keeps ``folder`` from being a data set with such names; empty if nothing does."""
    absent = [name for name in FOLDERS.values() if not (folder / name).is_dir()]
    if absent:
        return f"{', '.join(absent)} not there"
    images = {
        name: (entry.name for entry, kind in _entries(folder / name) if kind is None) for name in FOLDERS.values()
    }
    glance = [name for names in images.values() for name in islice(names, _GLANCE)]
    if any(map(naming.pattern.match, glance)):
        return ""
    return f"no image there is named like {naming.example}, but like {glance[0]}" if glance else "no image there"


def read(folder: Path, naming: FilenamePattern) -> SplitFiles:
    """Lists the images of the three folders.

    What is no JPEG or PNG is not read, and neither are hidden files: they are counted by kind.
    """
    splits, strange, unread = {}, [], []
    for split, name in FOLDERS.items():
        crops = []
        for entry, kind in _entries(folder / name):
            if kind is not None:
                unread.append((kind, Path(entry.path)))
            elif match := naming.pattern.match(entry.name):
                crops.append(ImageRecord(Path(entry.path), int(match["pid"]), int(match["camera"]), entry.name))
            else:
                strange.append(Path(entry.path))
        splits[split] = tuple(sorted(crops, key=lambda crop: crop.name))
    return SplitFiles(splits, tuple(sorted(strange)), by_kind((kind, path) for kind, path in unread if kind))


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], str | None]]:
    """Returns what lies in a folder, and why it is not read."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry, why_not(entry, _SUFFIXES)
