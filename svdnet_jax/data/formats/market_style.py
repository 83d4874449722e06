"""Folders of images in which a file's name says whom it shows and, most often, by which camera.

Market-1501's ``bounding_box_train``, ``query`` and ``bounding_box_test`` are the best known ones. Which folders, how
files are named and how people are numbered is data, a `FolderLayout`; the known ones are in `known.py`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from svdnet_jax.data.index import SPLITS, ImageRecord
from svdnet_jax.data.types import DISTRACTOR, JUNK
from svdnet_jax.data.unread import FOLDERS as INNER
from svdnet_jax.data.unread import Unread, by_kind, why_not

FOLDERS: Mapping[str, str] = MappingProxyType(
    {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
)
SUFFIXES = (".jpg", ".jpeg", ".png")
_GLANCE = 100  # so many names of a folder tell whose they are


class FilenamePattern(NamedTuple):
    """The form of a data set's file names; its groups ``pid`` and, where there is one, ``camera`` are integers."""

    pattern: re.Pattern[str]
    example: str


@dataclass(frozen=True)
class FolderLayout:
    """How a data set lies on disk: nothing but data."""

    naming: FilenamePattern
    published: Mapping[str, int]
    """What `index.counts` gives for it by its authors' description, or a part of that."""
    folders: Mapping[str, str] = field(default_factory=lambda: FOLDERS)
    """The folder of each split. One that ends in ``/*`` has a folder for each identity, and images in these only."""
    distractors: str = ""
    """A further folder of the gallery whose images show nobody in particular, whatever number is in their names."""
    called: tuple[str, ...] = ()
    """Where its file names are another data set's too: what its folder is called, by which the two are told apart."""
    from_zero: bool = False
    """Whether people are numbered from 0, in training and again in testing: 0 means a distractor here."""

    @property
    def sign(self) -> str:
        """Returns what it is known by, for messages."""
        named = f" in a folder called {' or '.join(self.called)}" if self.called else ""
        return f"folders {', '.join(self.all_folders)} with images named like {self.naming.example}{named}"

    @property
    def all_folders(self) -> tuple[str, ...]:
        """Returns the folders of all splits."""
        return (*self.folders.values(), *([self.distractors] if self.distractors else []))


class SplitFiles(NamedTuple):
    """What was found in the folders of a data set."""

    splits: Mapping[str, tuple[ImageRecord, ...]]
    strange: tuple[Path, ...] = ()
    """Images whose names are of another form."""
    unread: Unread = MappingProxyType({})
    """What else lies in the folders, by kind."""
    people: Mapping[int, str] = MappingProxyType({})
    """Names of identities that are texts."""
    notes: tuple[str, ...] = ()
    """What was taken for what, where there was a choice."""


def lacking(folder: Path, layout: FolderLayout) -> str:
    """Returns what keeps ``folder`` from being a data set of this layout; empty if nothing does."""
    absent = [name for name in layout.all_folders if not (folder / name.removesuffix("/*")).is_dir()]
    if absent:
        return f"{', '.join(absent)} not there"
    for names in filter(any, (tuple(layout.folders.values()), (layout.distractors,))):
        glance = [seen for name in names for seen in _glance(folder, name)]
        if not any(map(layout.naming.pattern.match, glance)):
            where = "there" if len(names) > 1 else f"in {names[0]}"
            named = f"is named like {layout.naming.example}, but like {glance[0]}" if glance else ""
            return f"no image {where} {named}".strip()
    return ""


def read(folder: Path, layout: FolderLayout) -> SplitFiles:
    """Lists the images of the folders.

    What is no JPEG or PNG is not read, and neither are hidden files: they are counted by kind.
    """
    found = _Found()
    splits = {split: _read_folder(folder, layout.folders[split], layout.naming, found) for split in SPLITS}
    if layout.from_zero:
        splits = number_from_one(splits)
    if layout.distractors:
        more = _read_folder(folder, layout.distractors, layout.naming, found)
        splits["gallery"] += [
            crop._replace(pid=min(crop.pid, DISTRACTOR), name=f"{layout.distractors}/{crop.name}") for crop in more
        ]
    return SplitFiles(
        {split: tuple(sorted(crops, key=lambda crop: crop.name)) for split, crops in splits.items()},
        tuple(sorted(found.strange)),
        by_kind((kind, path) for kind, path in found.unread if kind),
    )


def number_from_one(splits: Mapping[str, list[ImageRecord]]) -> dict[str, list[ImageRecord]]:
    """Numbers people anew that are numbered from 0 for training and again from 0 for testing.

    As 0 means a distractor here, and as train and test show different people, training identities go up by one and
    those of the test follow after them. Junk stays junk.
    """
    behind = 2 + max((crop.pid for crop in splits["train"]), default=-1)
    first = {"train": 1, "query": behind, "gallery": behind}
    return {
        split: [crop if crop.pid == JUNK else crop._replace(pid=crop.pid + first[split]) for crop in crops]
        for split, crops in splits.items()
    }


@dataclass(frozen=True)
class _Found:
    strange: list[Path] = field(default_factory=list)
    unread: list[tuple[str, Path]] = field(default_factory=list)


def _read_folder(root: Path, name: str, naming: FilenamePattern, found: _Found) -> list[ImageRecord]:
    """Returns the images of a folder of a data set; of an identity's folder it is in their names."""
    crops = []
    for inner, entry, kind in entries(root, name, SUFFIXES):
        if kind is not None:
            found.unread.append((kind, Path(entry.path)))
        elif match := naming.pattern.match(entry.name):
            camera = int(match["camera"]) if "camera" in naming.pattern.groupindex else 1
            crops.append(ImageRecord(Path(entry.path), int(match["pid"]), camera, inner + entry.name))
        else:
            found.strange.append(Path(entry.path))
    return crops


def _glance(root: Path, name: str) -> list[str]:
    images = (entry.name for _, entry, kind in entries(root, name, SUFFIXES) if kind is None)
    return list(islice(images, _GLANCE))


def entries(root: Path, name: str, endings: tuple[str, ...]) -> Iterator[tuple[str, os.DirEntry[str], str | None]]:
    """Returns what lies in a folder of a data set, in which of its folders, and why it is not read.

    Args:
        root: The data set.
        name: Of the folder; with ``/*`` at its end the folders in it are looked into.
        endings: Of the images.
    """
    with os.scandir(root / name.removesuffix("/*")) as outer:
        for entry in outer:
            kind = why_not(entry, endings)
            if not name.endswith("/*"):
                yield "", entry, kind
            elif kind == INNER and not entry.name.startswith("."):
                with os.scandir(entry.path) as images:
                    for image in images:
                        yield f"{entry.name}/", image, why_not(image, endings)
            else:
                yield "", entry, kind if kind is not None else "images beside the folders of identities"
