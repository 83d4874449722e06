"""CUHK03 in the new protocol (CUHK03-NP): 767 identities to train on, 700 to test on.

The protocol's files, ``cuhk03_new_protocol_config_labeled.mat`` and ``..._detected.mat``, say for each image its
identity, its camera and its split. Images are those of the original ``cuhk-03.mat``, or PNG files made from it. Source:
Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, and the authors' release
(zhunzhong07/person-re-ranking); Li et al., "DeepReID", CVPR 2014.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from svdnet_jax.data.formats import market_style
from svdnet_jax.data.formats.known import CUHK03_IN_FOLDERS
from svdnet_jax.data.formats.market_style import SplitFiles
from svdnet_jax.data.index import SPLITS, ImageRecord
from svdnet_jax.data.unread import beside, by_kind
from svdnet_jax.errors import DataError
from svdnet_jax.matlab import read_matlab
from svdnet_jax.safe_writing import working_folder

IMAGES = "cuhk-03.mat"


def lacking(folder: Path, kind: str) -> str:
    """Returns what keeps ``folder`` from being CUHK03 of a kind (``labeled``, ``detected``); empty if nothing does."""
    cropped = _cropped(folder, kind)
    if not market_style.lacking(cropped, CUHK03_IN_FOLDERS[kind]):
        return ""
    if not _config(folder, kind).is_file():
        return f"neither {_config(folder, kind).name} nor {kind}/{market_style.FOLDERS['train']} there"
    if _images_folder(folder, kind).is_dir() or _images_file(folder):
        return ""
    return f"{_config(folder, kind).name} is there, but neither images_{kind} nor {IMAGES}"


def read(folder: Path, cache: Path, kind: str) -> SplitFiles:
    """Lists CUHK03.

    Args:
        folder: Where `lacking` finds nothing missing.
        cache: Gets the images as PNG files, once, where they are inside cuhk-03.mat.
        kind: ``labeled`` (boxes drawn by hand) or ``detected``.

    Raises:
        DataError: A file is damaged, or an image of the protocol is missing.
    """
    cropped = _cropped(folder, kind)
    if not market_style.lacking(cropped, CUHK03_IN_FOLDERS[kind]):
        return market_style.read(cropped, CUHK03_IN_FOLDERS[kind])
    images = _images_folder(folder, kind)
    if not images.is_dir():
        images = _extracted(_images_file(folder) or folder / IMAGES, kind, cache)
    config = _config(folder, kind)
    splits = {split: _crops(table, images) for split, table in _protocol(config).items()}
    there = {path.name for path in images.iterdir()}
    absent = [crop.name for crops in splits.values() for crop in crops if crop.name not in there]
    if absent:
        raise DataError(f"{images}: {len(absent)} of the images in {config.name} are not there, first {absent[0]}")
    paths = [crop.path for crops in splits.values() for crop in crops]
    return SplitFiles(splits, unread=by_kind(beside(paths)))


def _cropped(folder: Path, kind: str) -> Path:
    """Returns where Market-1501's three folders would be: in one named by the kind, or right here if this is it."""
    names = (kind, f"cuhk03_np_{kind}", f"cuhk03-np-{kind}")
    if folder.resolve().name.lower() in names:
        return folder
    return next((folder / name for name in names if (folder / name).is_dir()), folder / kind)


def _config(folder: Path, kind: str) -> Path:
    return folder / f"cuhk03_new_protocol_config_{kind}.mat"


def _images_folder(folder: Path, kind: str) -> Path:
    return folder / f"images_{kind}"


def _images_file(folder: Path) -> Path | None:
    """Returns the original file, where its archive puts it or beside the protocol's files."""
    return next((path for path in (folder / IMAGES, folder / "cuhk03_release" / IMAGES) if path.is_file()), None)


def _protocol(config: Path) -> dict[str, list[tuple[str, int, int]]]:
    """Returns the name, identity and camera of the images of each split."""
    wanted = ("filelist", "labels", "camId", *(f"{split}_idx" for split in SPLITS))
    try:
        table = {name: array.ravel().tolist() for name, array in read_matlab(config, wanted).items()}
        rows = list(zip(table["filelist"], table["labels"], table["camId"], strict=True))
        # Matlab counts from 1.
        return {split: [rows[_from_one(i)] for i in table[f"{split}_idx"]] for split in SPLITS}
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{config}: is not the protocol's file with filelist, labels, camId, train_idx, query_idx and gallery_idx "
            f"({error})"
        ) from error


def _from_one(index: int) -> int:
    """Returns a place counted from 0."""
    if index < 1:
        raise ValueError(f"found the place {index}; the first is 1")
    return index - 1


def _crops(table: list[tuple[str, int, int]], images: Path) -> tuple[ImageRecord, ...]:
    return tuple(
        sorted((ImageRecord(images / name, pid, camera, name) for name, pid, camera in table), key=lambda c: c.name)
    )


def _extracted(mat: Path, kind: str, cache: Path) -> Path:
    """Returns the folder of PNG files made from cuhk-03.mat; made if it is not there yet, whole or not at all."""
    from PIL import Image

    status = mat.stat()
    origin = f"{mat.resolve()} {status.st_size} {status.st_mtime_ns}"
    folder = cache / f"cuhk03-{kind}-{hashlib.blake2b(origin.encode(), digest_size=6).hexdigest()}"
    if folder.is_dir():
        return folder
    with working_folder(folder) as work:
        made = work / "made"
        made.mkdir()
        for name, pixels in _pictures(mat, kind):
            Image.fromarray(pixels).save(made / name)
        try:
            made.rename(folder)
        except OSError:  # another process may have been quicker
            if not folder.is_dir():
                raise
    return folder


def _pictures(mat: Path, kind: str) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """Returns names and pixels of all images of a kind.

    In Matlab, ``labeled{p}{i, j}`` is picture j (1 to 5 of the first camera, 6 to 10 of the second, or empty) of person
    i at camera pair p; its name is ``p_iii_v_jj.png`` with v the camera. HDF5 holds every array transposed.
    """
    import h5py

    try:
        with h5py.File(mat, "r") as file:
            for p, pair in enumerate(_references(file, file[kind]), start=1):
                people = np.asarray(file[pair]).T
                for i, person in enumerate(people, start=1):
                    for j, reference in enumerate(person, start=1):
                        pixels = np.asarray(file[reference]).T
                        if pixels.ndim == 3:  # an empty cell holds its size instead
                            yield f"{p}_{i:03d}_{1 if j <= 5 else 2}_{j:02d}.png", np.ascontiguousarray(pixels)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{mat}: is not CUHK03's {IMAGES} (Matlab 7.3) or is damaged ({error})") from error


def _references(file: Any, cells: Any) -> list[Any]:
    return list(np.asarray(cells).ravel())
