"""Lists of images in text files, a path and an identity a line: MSMT17's and VehicleID's.

Which lists, where the images lie and the form of a line is data, a `ListLayout`; the known ones are in `known.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from svdnet_jax.data.formats.market_style import FilenamePattern, SplitFiles, number_from_one
from svdnet_jax.data.formats.one_set import is_one_set, with_own_cameras
from svdnet_jax.data.index import SHOWN, SPLITS, ImageRecord
from svdnet_jax.data.unread import beside, by_kind
from svdnet_jax.errors import DataError


@dataclass(frozen=True)
class ListLayout:
    """How a data set lies on disk: nothing but data."""

    lists: Mapping[str, tuple[str, ...]]
    """The files of each split, of which the first must be there."""
    images: tuple[Mapping[str, str], ...]
    """The folder of each split's images, in each version of the data set."""
    line: FilenamePattern
    """The form of a line: groups ``path`` and ``pid`` and, where there is one, ``camera``."""
    published: Mapping[str, int]
    """What `index.counts` gives for it by its authors' description, or a part of that."""
    ending: str = ""
    """Of the images' names, where the lines leave it out."""
    from_zero: bool = False
    """Whether people are numbered from 0, in training and again in testing: 0 means a distractor here."""

    @property
    def sign(self) -> str:
        """Returns what it is known by, for messages."""
        lists = dict.fromkeys(names[0] for names in self.lists.values())
        versions = [", ".join(dict.fromkeys(version.values())) for version in self.images]
        others = f" (or {' or '.join(versions[1:])})" if versions[1:] else ""
        return f"{', '.join(lists)} with {versions[0]}{others}"


def lacking(folder: Path, layout: ListLayout) -> str:
    """Returns what keeps ``folder`` from being a data set of this layout; empty if nothing does."""
    absent = dict.fromkeys(names[0] for names in layout.lists.values() if not (folder / names[0]).is_file())
    if absent:
        return f"{', '.join(absent)} not there"
    return "" if _version(folder, layout) else "the lists are there, the folders of images are not"


def read(folder: Path, layout: ListLayout) -> SplitFiles:
    """Lists the images that the lists name.

    Raises:
        DataError: A list is not in UTF-8, or a line of it is of another form; names file and line.
    """
    images = _version(folder, layout) or layout.images[0]
    splits = {
        split: [
            crop
            for name in layout.lists[split]
            if (folder / name).is_file()
            for crop in _crops(folder / name, folder / images[split], layout)
        ]
        for split in SPLITS
    }
    if layout.from_zero:
        splits = number_from_one(splits)
    sorted_splits = {split: tuple(sorted(crops, key=lambda crop: crop.name)) for split, crops in splits.items()}
    paths = [crop.path for crops in splits.values() for crop in crops]
    notes = []
    if "camera" not in layout.line.pattern.groupindex and is_one_set(sorted_splits):
        sorted_splits, note = with_own_cameras(sorted_splits)
        notes.append(note)
    return SplitFiles(sorted_splits, unread=by_kind(beside(paths)), notes=tuple(notes))


def _version(folder: Path, layout: ListLayout) -> Mapping[str, str] | None:
    versions = (version for version in layout.images if all((folder / name).is_dir() for name in version.values()))
    return next(versions, None)


def _crops(file: Path, images: Path, layout: ListLayout) -> list[ImageRecord]:
    """Returns the images of one list."""
    pattern, example = layout.line
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is no list in UTF-8 ({error}); expected lines such as {example!r}") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    matches = [(n, line, pattern.fullmatch(line)) for n, line in lines]
    bad = [f"line {n}: found {line!r}" for n, line, match in matches if match is None]
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(f"{file}: {'; '.join(bad[:SHOWN])}{more}; expected lines such as {example!r}")
    crops = []
    for match in (match for _, _, match in matches if match):
        name = match["path"] + layout.ending
        camera = int(match["camera"]) if "camera" in pattern.groupindex else 1
        crops.append(ImageRecord(images / name, int(match["pid"]), camera, name))
    return crops
