"""Which layout a folder has, and its images.

Published data sets: see `svdnet_jax.data.formats.known`, CUHK03's own files `svdnet_jax.data.formats.cuhk03`, your own
data `svdnet_jax.data.formats.csv_manifest`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from svdnet_jax.data.cache import FILE, REMEDY, is_remnant
from svdnet_jax.data.formats import csv_manifest, cuhk03, identity_folders, lists, market_style
from svdnet_jax.data.formats.known import CUHK03_IN_FOLDERS, IN_FOLDERS, IN_LISTS
from svdnet_jax.data.formats.lists import ListLayout
from svdnet_jax.data.formats.market_style import FolderLayout, SplitFiles
from svdnet_jax.data.formats.tables import ENDINGS
from svdnet_jax.data.index import DatasetIndex, refuse_outside
from svdnet_jax.errors import ConfigError, DataError


class Source(NamedTuple):
    """What reading may need beside the folder."""

    cache: Path
    """For images that must be unpacked."""
    camera: str | None = None
    """A regular expression whose first group is the camera in a file's name."""
    split: str | None = None
    """Of all images of a list that does not say it."""


@dataclass(frozen=True)
class Layout:
    """How one data set lies on disk."""

    sign: str
    """What it is known by, for messages."""
    lacking: Callable[[Path], str]
    """What keeps a folder from being one; empty if nothing does."""
    read: Callable[[Path, Source], SplitFiles]
    """Lists the images of a folder."""
    example: str = ""
    published: Mapping[str, int] | None = None
    called: tuple[str, ...] = ()
    """What its folder is called, where only that tells it from another; as with `data.layout` it is said."""


def _in_folders(layout: FolderLayout) -> Layout:
    return Layout(
        sign=layout.sign,
        lacking=partial(market_style.lacking, layout=layout),
        read=lambda folder, source: market_style.read(folder, layout),
        example=layout.naming.example,
        published=layout.published,
        called=layout.called,
    )


def _in_lists(layout: ListLayout) -> Layout:
    return Layout(
        sign=layout.sign,
        lacking=partial(lists.lacking, layout=layout),
        read=lambda folder, source: lists.read(folder, layout),
        published=layout.published,
    )


def _cuhk03(kind: str) -> Layout:
    return Layout(
        sign=f"cuhk03_new_protocol_config_{kind}.mat with images_{kind} or {cuhk03.IMAGES}, or a folder "
        f"{kind} or cuhk03_np_{kind} with Market-1501's three in it",
        lacking=partial(cuhk03.lacking, kind=kind),
        read=lambda folder, source: cuhk03.read(folder, source.cache, kind),
        example=CUHK03_IN_FOLDERS[kind].naming.example,
        published=CUHK03_IN_FOLDERS[kind].published,
    )


FALLBACK = "identity-folders"
"""Taken where there is nothing else, as most folders of folders look so."""
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        **{name: _in_folders(layout) for name, layout in IN_FOLDERS.items()},
        **{name: _in_lists(layout) for name, layout in IN_LISTS.items()},
        "cuhk03-labelled": _cuhk03("labeled"),
        "cuhk03-detected": _cuhk03("detected"),
        "manifest": Layout(
            sign=f"{csv_manifest.FILE} with the columns path,identity,camera,split, or query.csv, gallery.csv",
            lacking=csv_manifest.lacking,
            read=lambda folder, source: csv_manifest.read(folder, source.split),
        ),
        FALLBACK: Layout(
            sign=identity_folders.SIGN,
            lacking=identity_folders.lacking,
            read=lambda folder, source: identity_folders.read(folder, source.camera),
        ),
    }
)


MOST = 2**63 - 1
"""Of identities and cameras."""


def find_layout(
    root: Path,
    cache: Path,
    layout: str = "auto",
    *,
    outside: bool = False,
    camera: str | None = None,
    split: str | None = None,
) -> DatasetIndex:
    """Finds the data set in a folder and lists its images.

    Args:
        root: The unpacked folder, its parent, or a CSV manifest.
        cache: Where images go that must be unpacked first (CUHK03's).
        layout: A key of `LAYOUTS`, or ``auto``: whichever is found.
        outside: Whether its list or its links may name images outside of its folder.
        camera: A regular expression whose first group is the camera in a file's name, where a layout leaves it open.
        split: Of all images of a manifest that does not say it.

    Raises:
        ConfigError: Cameras or a split are given to a layout that says them itself.
        DataError: There is none or more than one (says what was looked for and what is there), it cannot be listed, or
            it names images outside.
    """
    if not root.exists():
        raise DataError(
            f"`data.root` {root}: no such folder; give the unpacked data set, its parent, or a CSV manifest"
        )
    if root.is_file():
        # Whoever names the layout knows that the file is a manifest, whatever it is called.
        wanted = ["manifest"] if layout == "manifest" or (layout == "auto" and root.suffix.lower() in ENDINGS) else []
    else:
        wanted = [name for name in LAYOUTS if name != FALLBACK] if layout == "auto" else [layout]
    candidates = _found([root], wanted) or _found(_inside(root), wanted)
    if not candidates and layout == "auto":
        below = [place for place in (root, *_inside(root)) if identity_folders.has_splits(place)]
        candidates = _found(below, [FALLBACK])[:1]
    if not candidates:
        raise DataError(_nothing(root, layout))
    if len(candidates) > 1:
        places = ", ".join(f"{name} in {folder}" for name, folder in candidates)
        names = " or ".join(dict(candidates))
        layouts = f", or `data.layout` {names}" if " or " in names else ""
        raise DataError(
            f"`data.root` {root}: holds several data sets: {places}; give the folder of one of them{layouts}"
        )
    name, folder = candidates[0]
    if camera is not None and name != FALLBACK:
        raise ConfigError(f"`data.camera_pattern` {camera}: is for {FALLBACK}, and {folder} is {name}; leave it out")
    if split is not None and name != "manifest":
        raise ConfigError(f"`data.split` {split}: is for lists, and {folder} is {name}; leave it out")
    listing = _listing(name, folder, LAYOUTS[name].read(folder, Source(cache, camera, split)))
    if not outside:
        refuse_outside(listing, cache)
    return listing


def _inside(root: Path) -> list[Path]:
    """Returns the folders in a folder, but those that may not be looked into."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK))


def _found(places: list[Path], layouts: list[str]) -> list[tuple[str, Path]]:
    return [(name, folder) for folder in places for name in _by_name(folder, layouts)]


def _by_name(folder: Path, layouts: list[str]) -> list[str]:
    """Returns the layouts that a folder has; of those with equal names of files the one it is called by."""
    fit = [name for name in layouts if not LAYOUTS[name].lacking(folder)]
    if len(layouts) == 1:
        return fit
    place = folder.resolve().name.lower()
    called = [name for name in fit if place in map(str.lower, LAYOUTS[name].called)]
    return called or [name for name in fit if not LAYOUTS[name].called]


def _nothing(root: Path, layout: str) -> str:
    if root.is_file():
        return f"`data.root` {root}: is a file; expected a CSV manifest (`data.layout` manifest) or a folder"
    if is_remnant(root):
        return f"`data.root` {root}: was prepared, and its {FILE} is gone; {REMEDY}"
    asked = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    looked = "\n".join(f"  {name}: {known.sign}\n    ({known.lacking(root)})" for name, known in asked.items())
    there = ", ".join(path.name for path in sorted(root.iterdir())[:12]) or "nothing"
    return (
        f"`data.root` {root}: no data set found, neither in this folder nor in one below it. Looked for\n"
        f"{looked}\nThe folder holds: {there}"
    )


def _listing(layout: str, root: Path, contents: SplitFiles) -> DatasetIndex:
    if not any(contents.splits.values()):
        raise DataError(f"{root}: no images of {layout}; expected {LAYOUTS[layout].sign}")
    for split, crops in contents.splits.items():
        names = [crop.name for crop in crops]
        # Names are sorted, so equal ones are neighbours.
        twice = [a for a, b in pairwise(names) if a == b]
        if twice:
            raise DataError(
                f"{root}: {len(twice)} images are listed twice in the {split} split, the first is {twice[0]}"
            )
    for crop in (crop for crops in contents.splits.values() for crop in crops):
        if not -MOST <= crop.pid <= MOST or not -MOST <= crop.camera <= MOST:
            raise DataError(
                f"{root}: the image {crop.name} is of identity {crop.pid} and camera {crop.camera}; expected whole "
                f"numbers up to {MOST}"
            )
        if "\0" in crop.name:
            raise DataError(f"{root}: the image {crop.name!r} is listed, and no file has such a name; mend the list")
    place = root.resolve()
    name = place.name if root.is_dir() else place.parent.name if place.name == csv_manifest.FILE else place.stem
    known = LAYOUTS[layout]
    return DatasetIndex(
        name,
        layout,
        root,
        contents.splits,
        contents.strange,
        known.example,
        known.published,
        contents.unread,
        contents.people,
        contents.notes,
    )
