"""Counts the files of a data set's folders that are not read, by kind.

Counted are the folders that images are taken from. What systems leave behind (Thumbs.db, desktop.ini, .DS_Store and
macOS's ._ files) is no data and is not counted.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePath

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of image files that can be read, in small or large letters."""
LINKS = "links that lead nowhere"
FOLDERS = "folders"
UNNAMED = "images that the list does not name"

Unread = Mapping[str, tuple[Path, ...]]
"""Paths by kind: ``.webp``, `LINKS` and so on."""

_LEFTOVERS = ("thumbs.db", "desktop.ini", ".ds_store")


def why_not(entry: os.DirEntry[str], endings: tuple[str, ...]) -> str | None:
    """Returns the kind of what is not read, None for a file with one of the endings; empty for what systems leave."""
    name = entry.name.lower()
    # os.scandir knows without another call what is a file.
    if name.endswith(endings) and not name.startswith(".") and entry.is_file():
        return None
    if name in _LEFTOVERS or name.startswith("._"):
        return ""
    if entry.is_dir():
        return FOLDERS
    if not entry.is_file():
        return LINKS if entry.is_symlink() else "neither files nor folders"
    return "hidden files" if name.startswith(".") else PurePath(name).suffix or "without an ending"


def by_kind(entries: Iterable[tuple[str, Path]]) -> Unread:
    """Returns kinds and paths, the most frequent kind first."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for kind, path in entries:
        kinds[kind].append(path)
    return {kind: tuple(sorted(kinds[kind])) for kind in sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))}


def beside(images: Collection[Path]) -> Iterator[tuple[str, Path]]:
    """Finds what lies in the folders of listed images: images that are not listed, and links that lead nowhere."""
    known = {os.path.normpath(path) for path in images}
    for folder in sorted({path.parent for path in images if path.parent.is_dir()}):
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = why_not(entry, IMAGES)
                if os.path.normpath(entry.path) not in known and kind in (None, LINKS):
                    yield kind or UNNAMED, Path(entry.path)


def unread_line(unread: Unread, root: Path) -> str:
    """Returns one line: how many of each kind are not read, and the first of each."""
    parts = (f"{len(paths)} {kind} (first: {_within(paths[0], root)})" for kind, paths in unread.items())
    return f"not read: {', '.join(parts)}"


def _within(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
