"""MSMT17's list files: ``0000/0000_000_01_0303morning_0015_0.jpg 0`` is a path and an identity.

The third field of a file's name is its camera. Version 1 has the images in ``train`` and ``test``, version 2 (faces
blurred) in ``mask_train_v2`` and ``mask_test_v2``.
"""

import re
from pathlib import Path

from svdnet_jax.data.formats.market_style import SplitFiles
from svdnet_jax.data.index import SHOWN, ImageRecord
from svdnet_jax.data.unread import beside, by_kind
from svdnet_jax.errors import DataError

EXAMPLE = "0000/0000_000_01_0303morning_0015_0.jpg 0"
_LINE = re.compile(r"(?P<path>\S*?[^/\s_]+_[^/\s_]+_(?P<camera>\d+)_[^/\s]+) +(?P<pid>\d+)")
_LISTS = ("list_train.txt", "list_query.txt", "list_gallery.txt")
_VERSIONS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))


def lacking(folder: Path) -> str:
    """Returns what keeps ``folder`` from being MSMT17; empty if nothing does."""
    absent = [name for name in _LISTS if not (folder / name).is_file()]
    if absent:
        return f"{', '.join(absent)} not there"
    return "" if _version(folder) else "the lists are there, the folders of images are not"


def read(folder: Path) -> SplitFiles:
    """Lists MSMT17; its validation list is part of training, as in the published results.

    The lists number people from 0 for training and again from 0 for testing. As 0 means a distractor here, and as train
    and test show different people, training identities go up by one and those of the test follow after them.

    Raises:
        DataError: A list is not in UTF-8, or a line of it is of another form; names file and line.
    """
    train_images, test_images = _version(folder) or _VERSIONS[0]
    known = [path for path in (folder / "list_train.txt", folder / "list_val.txt") if path.is_file()]
    train = [crop for path in known for crop in _crops(path, folder / train_images, 1)]
    behind = 1 + max((crop.pid for crop in train), default=0)
    query, gallery = (_crops(folder / name, folder / test_images, behind) for name in _LISTS[1:])
    splits = {"train": train, "query": query, "gallery": gallery}
    sorted_splits = {split: tuple(sorted(crops, key=lambda crop: crop.name)) for split, crops in splits.items()}
    paths = [crop.path for crops in splits.values() for crop in crops]
    return SplitFiles(sorted_splits, unread=by_kind(beside(paths)))


def _version(folder: Path) -> tuple[str, str] | None:
    return next((names for names in _VERSIONS if all((folder / name).is_dir() for name in names)), None)


def _crops(file: Path, images: Path, first: int) -> list[ImageRecord]:
    """Returns the images of one list, whose identity 0 gets the number ``first``."""
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is no list in UTF-8 ({error}); expected lines such as {EXAMPLE!r}") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    matches = [(n, line, _LINE.fullmatch(line)) for n, line in lines]
    bad = [f"line {n}: found {line!r}" for n, line, match in matches if match is None]
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(f"{file}: {'; '.join(bad[:SHOWN])}{more}; expected lines such as {EXAMPLE!r}")
    return [
        ImageRecord(images / m["path"], int(m["pid"]) + first, int(m["camera"]), m["path"]) for _, _, m in matches if m
    ]
