"""Images to embed: a folder, one file, a list of files, or a manifest that says whom they show."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from svdnet_jax.data.formats import csv_manifest
from svdnet_jax.data.formats.tables import ENDINGS as TABLES
from svdnet_jax.data.index import SHOWN, SPLITS, DatasetIndex, ImageRecord, refuse_outside
from svdnet_jax.data.types import JUNK
from svdnet_jax.data.unread import FOLDERS, IMAGES, Unread, by_kind, unread_line, why_not
from svdnet_jax.errors import DataError

LISTS = (".txt", ".lst")
"""Endings of lists: a path a line."""


class FoundImages(NamedTuple):
    """Images, and what lies beside them."""

    crops: tuple[ImageRecord, ...]
    """The images; pid -1, as for junk, and camera 0 where nobody knows whom they show."""
    unread: Unread
    """What else is there, by kind."""
    notes: tuple[str, ...] = ()
    """What a manifest's columns were taken for."""
    folder: Path = Path()
    """Where that is."""
    people: Mapping[int, str] = MappingProxyType({})
    """What identities are called that are texts."""

    def remarks(self) -> list[str]:
        """Returns what to say of them, a line each."""
        unread = [unread_line(self.unread, self.folder)] if self.unread else []
        return [*unread, *(f"note: {note}" for note in self.notes)]


def find_images(place: Path, split: str | None = None, *, outside: bool = False) -> FoundImages:
    """Returns the images that a path stands for.

    Args:
        place: A folder: all images in it and the folders in it, sorted by their paths there, which are their names. An
            image. A list (.txt) of paths, a line each, relative to it, in its order. Or a manifest, as
            `csv_manifest.read` describes it, with identities and cameras, sorted by path.
        split: Of a manifest: train, query or gallery; None for all.
        outside: Whether a list or a manifest may name images outside of its folder.

    Raises:
        DataError: Nothing of these, no images, or a list or manifest that cannot be used.
        OSError: A folder may not be looked into, or a file cannot be read.
    """
    ending = place.suffix.lower()
    if split and (place.is_dir() or ending not in TABLES):
        raise DataError(f"{place}: has no splits; `split` is for a manifest (path,identity,camera,split)")
    if place.is_dir():
        return _folder(place)
    if not place.is_file():
        raise DataError(f"{place}: is no folder and no file; give a folder of images, an image, a list or a manifest")
    if ending in IMAGES:
        return FoundImages((_nobody(place, place.name),), {})
    if ending in LISTS:
        found = FoundImages(_listed(place), {})
    elif ending in TABLES:
        found = _manifest(place, split)
    else:
        expected = f"an image ({', '.join(IMAGES)}), a list ({', '.join(LISTS)}) or a manifest ({', '.join(TABLES)})"
        raise DataError(f"{place}: its name ends in {ending or 'nothing'}; expected a folder, {expected}")
    if not outside:
        refuse_outside(DatasetIndex(place.name, "", place, {"listed": found.crops}), setting="outside")
    return found


def _nobody(path: Path, name: str) -> ImageRecord:
    return ImageRecord(path, JUNK, 0, name)


def _folder(folder: Path) -> FoundImages:
    """Finds images; hidden files and folders, links to folders, and files not named like `IMAGES` are not read."""
    paths, unread = {}, []
    for path, kind in _entries(folder):
        if kind is None:
            paths[path.relative_to(folder).as_posix()] = path
        elif kind:
            unread.append((kind, path))
    if not paths:
        there = f" ({unread_line(by_kind(unread), folder)})" if unread else ""
        raise DataError(f"{folder}: no image there; expected files named {', '.join(f'*{e}' for e in IMAGES)}{there}")
    return FoundImages(tuple(_nobody(paths[name], name) for name in sorted(paths)), by_kind(unread), folder=folder)


def _entries(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Returns everything in a folder and the folders in it, but these themselves, and why it is not read."""
    with os.scandir(folder) as entries:
        for entry in entries:
            kind = why_not(entry, IMAGES)
            if kind != FOLDERS:
                yield Path(entry.path), kind
            elif entry.is_symlink():  # it may lead in a circle
                yield Path(entry.path), "links to folders"
            elif entry.name.startswith("."):
                yield Path(entry.path), "hidden folders"
            else:
                yield from _entries(Path(entry.path))


def _listed(file: Path) -> tuple[ImageRecord, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is no list in UTF-8 ({error})") from error
    numbered = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not numbered:
        raise DataError(f"{file}: names no image; expected a path a line")
    _refuse(file, list(_problems(file, numbered)))
    return tuple(_nobody(file.parent / name, name) for name in numbered.values())


def _problems(file: Path, numbered: dict[int, str]) -> Iterator[str]:
    """Returns what is wrong with a list, each with its line."""
    seen: dict[str, int] = {}
    for number, name in numbered.items():
        if "\0" in name or not (file.parent / name).is_file():
            yield f"line {number}: found no file {name[:200]!r} in {file.parent}"
        elif (place := os.path.normpath(name)) in seen:
            yield f"line {number}: found {name} again, it is on line {seen[place]} already"
        seen.setdefault(os.path.normpath(name), number)


def _refuse(file: Path, problems: Sequence[str]) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{file}: {'; '.join(problems[:SHOWN])}{more}")


def _manifest(file: Path, split: str | None) -> FoundImages:
    if split not in (None, *SPLITS):
        raise DataError(f"{file}: `split` {split}: expected {', '.join(SPLITS)}")
    found = csv_manifest.read(file, unsaid=split or "gallery")
    # An image of the split query+gallery is in both.
    crops = {crop.name: crop for name in SPLITS for crop in found.splits[name] if split in (None, name)}
    if not crops:
        raise DataError(f"{file}: has no image{f' of the split {split}' if split else ''}")
    return FoundImages(
        tuple(crops[name] for name in sorted(crops)), found.unread, found.notes, file.parent, found.people
    )
