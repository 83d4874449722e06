"""A data set decoded once: a folder of arrays that are mapped into memory, read without any image library.

``dataset.json`` says what the folder holds; ``train_images.npy`` (uint8 N, H, W, 3), ``train_pids.npy``,
``train_cameras.npy``, ``train_names.npy`` and the same of query and gallery hold it. Training from such a folder needs
nothing but numpy to read its data. Texts of identities are in ``dataset.json``, under ``people``, by pid.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from svdnet_jax.arrays import read_array
from svdnet_jax.data.index import SPLITS
from svdnet_jax.data.types import Dataset, Split, array_hash
from svdnet_jax.errors import DataError
from svdnet_jax.safe_writing import working_folder

FORMAT = 2
"""Raised whenever the same image files give other pixels: in format 1 pictures were not turned upright, gray of 16 bits
was clipped, and other sizes were resized by Pillow."""
FILE = "dataset.json"
REMEDY = "prepare it again (the help of `svdnet check-data` says how)"


class Rows(NamedTuple):
    """A split whose images come one after the other: all of them decoded may not fit into memory."""

    size: tuple[int, int]
    """Height and width of every image."""
    images: Iterable[UInt8[np.ndarray, "H W 3"]]
    pids: Int[np.ndarray, " N"]
    cameras: Int[np.ndarray, " N"]
    names: np.ndarray


def is_prepared(folder: Path) -> bool:
    """Returns whether this is a prepared folder, whole or not."""
    return (folder / FILE).is_file()


def is_remnant(folder: Path) -> bool:
    """Returns whether a folder holds arrays of a prepared one and nothing else, not even what describes them."""
    arrays = {_file(folder, split, name) for split in SPLITS for name in ("images", "pids", "cameras", "names")}
    held = {*folder.iterdir()} if folder.is_dir() else set()
    return bool(held) and held <= arrays


def write_prepared(dataset: Dataset, folder: Path, about: Mapping[str, Any] | None = None) -> None:
    """Writes a data set as a prepared folder, whole or not at all.

    Args:
        dataset: What to write.
        folder: The new folder.
        about: More to say of it in dataset.json: where it comes from.

    Raises:
        DataError: The folder exists already.
    """
    splits = {split: getattr(dataset, split) for split in SPLITS}
    rows = {split: Rows(s.images.shape[1:3], s.images, s.pids, s.cameras, s.names) for split, s in splits.items()}
    write_rows(dataset.name, rows.items(), folder, {**(about or {}), **about_people(dataset.people)})


def about_people(people: Mapping[int, str]) -> dict[str, Any]:
    """Returns what dataset.json says of identities that are texts; nothing where there are none."""
    return {"people": {str(pid): text for pid, text in people.items()}} if people else {}


def write_rows(
    name: str, splits: Iterable[tuple[str, Rows]], folder: Path, about: Mapping[str, Any] | None = None
) -> None:
    """Does what `write_prepared` does for images that come one after the other.

    Args:
        name: Of the data set.
        splits: ``train``, ``query`` and ``gallery`` with their images, taken one after the other.
        folder: The new folder.
        about: More to say of it in dataset.json.

    Raises:
        DataError: The folder exists already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already and not empty; name a new folder")
    with working_folder(folder) as work:
        made = work / "made"
        made.mkdir()
        arrays = {split: _write_split(made, split, rows) for split, rows in splits}
        content = {"format": FORMAT, "name": name, **(about or {}), "arrays": arrays}
        (made / FILE).write_text(json.dumps(content, indent=2))
        try:
            made.rename(folder)
        except OSError:
            if not is_prepared(folder):  # else another process was quicker; its folder is as good as ours
                raise


def _write_split(folder: Path, split: str, rows: Rows) -> dict[str, Any]:
    """Writes the arrays of a split; their types, shapes and hashes by name."""
    shape = (len(rows.pids), *rows.size, 3)
    images = np.lib.format.open_memmap(_file(folder, split, "images"), "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        # Else a full disk would show when a page is written back, which ends the process without a word.
        with _file(folder, split, "images").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    for row, image in zip(images, rows.images, strict=True):
        row[:] = image
    images.flush()
    arrays = {"images": images, "pids": rows.pids, "cameras": rows.cameras, "names": rows.names}
    for name in ("pids", "cameras", "names"):
        np.save(_file(folder, split, name), arrays[name], allow_pickle=False)
    return {name: _describe(array) for name, array in arrays.items()}


def read_prepared(folder: Path, layout: str = "auto") -> Dataset:
    """Maps a prepared folder into memory; images are read from disk when they are used, and cannot be written to.

    All arrays are compared with their hashes, so that no bit has changed since they were written. That reads all
    images once, the three splits at the same time: Market-1501's 849 MB, 485 of them in the gallery, take about a
    second where they lie in memory already (blake2b, 0.5 to 1 GB/s on a core).

    Args:
        folder: The prepared folder.
        layout: What it is to have been made from; with ``auto``, or where the folder does not say, anything will do.

    Raises:
        DataError: The folder was made by another version or from another layout, or a file is missing, truncated or
            changed.
    """
    content = _content(folder)
    made_from = content.get("layout", layout)
    if layout not in ("auto", made_from):
        raise DataError(
            f"`data.root` {folder}: was prepared from {made_from}, and `data.layout` {layout} is wanted; give the "
            f"folder prepared from {layout}, or `data.layout` {made_from}"
        )
    # One after the other: NumPy reads a header by `ast`, which in threads of Python 3.11 can end in a SystemError.
    opened = [_open_split(folder, split) for split in SPLITS]
    with ThreadPoolExecutor(len(SPLITS)) as pool:  # hashing lets go of the interpreter's lock
        splits = pool.map(
            lambda split, arrays: _verified(folder, split, arrays, content["arrays"][split]), SPLITS, opened
        )
        train, query, gallery = splits
    people = {int(pid): text for pid, text in content.get("people", {}).items()}
    return Dataset(content["name"], train, query, gallery, people)


def reuse_prepared(folder: Path, say: Callable[[str], None]) -> Dataset | None:
    """Returns prepared data of the cache; None where there are none. Damaged ones are taken away, which is said."""
    if is_remnant(folder):
        say(f"{folder}: {FILE} is gone; it is taken away and made again from the files")
        remove_prepared(folder)
    elif is_prepared(folder):
        try:
            return read_prepared(folder)
        except DataError as error:  # it is ours
            say(f"{str(error).removesuffix(REMEDY)}it is taken away and made again from the files")
            remove_prepared(folder)
    return None


def remove_prepared(folder: Path) -> None:
    """Removes a prepared folder, or what is left of one, and nothing else: the file that makes it one goes first.

    Raises:
        DataError: It is none.
    """
    if not is_prepared(folder) and not is_remnant(folder):
        raise DataError(f"{folder}: holds other files than prepared data; move them away")
    (folder / FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / FILE).read_text())
        version, _, arrays = content["format"], content["name"], content["arrays"]
        described = [arrays[split][name] for split in SPLITS for name in ("images", "pids", "cameras", "names")]
        complete = version == FORMAT and all(isinstance(about, dict) for about in described)
        people = content.get("people", {})
        complete = complete and all(int(pid) and isinstance(text, str) for pid, text in people.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder / FILE}: cannot be read as prepared data ({error!r}); {REMEDY}") from error
    if not complete:
        raise DataError(f"{folder / FILE}: found format {version}, expected {FORMAT} with all its arrays; {REMEDY}")
    return content


def _open_split(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a split, its images mapped."""
    arrays = {}
    for name in ("images", "pids", "cameras", "names"):
        file = _file(folder, split, name)
        try:
            arrays[name] = read_array(file, mapped=name == "images")
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: is missing or damaged ({error}); {REMEDY}") from error
    return arrays


def _verified(
    folder: Path, split: str, arrays: Mapping[str, np.ndarray], known: Mapping[str, Mapping[str, Any]]
) -> Split:
    """Returns a split whose arrays are those that were written."""
    for name, array in arrays.items():
        file, actual, written = _file(folder, split, name), _describe(array), dict(known[name])
        if actual | {"hash": ""} != written | {"hash": ""}:
            raise DataError(f"{file}: found {actual}, expected {written}; {REMEDY}")
        if actual != written:
            raise DataError(f"{file}: was changed since it was written, its hash is another; {REMEDY}")
    return Split(**arrays, images_hash=known["images"]["hash"])


def _describe(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "hash": array_hash(array)}


def _file(folder: Path, split: str, array: str) -> Path:
    return folder / f"{split}_{array}.npy"
