"""Market-1501: its folders and file names, read through tensorflow-datasets without TensorFlow.

Layout: ``bounding_box_train``, ``query`` and ``bounding_box_test`` with names such as ``0002_c1s1_000451_03.jpg``
(identity, camera, sequence, frame, box). Source: Zheng et al., "Scalable Person Re-identification: A Benchmark",
ICCV 2015, and its read-me file.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from svdnet_jax.data.splits import DataError, Dataset, Split

FOLDERS: Mapping[str, str] = MappingProxyType(
    {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
)
# The release itself holds a few names that end in .jpg.jpg, and Windows left Thumbs.db in its folders.
NAME = re.compile(r"^(?P<pid>-1|\d{4,})_c(?P<camera>\d+)s\d+_\d+_\d+(\.jpg)+$", re.IGNORECASE)


class Market1501(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of a folder in Market-1501's layout; nothing is downloaded, images are copied as they are."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give the unpacked Market-1501 folder as DownloadConfig(manual_dir=...)."

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "pid": np.int64,
            "camera": np.int64,
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            homepage="https://zheng-lab-anu.github.io/Project/project_reid.html",
            description="Person crops of a campus in six cameras; identities of train and test are disjoint.",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        root = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(root / folder) for split, folder in FOLDERS.items()}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, pid, camera in parse_folder(folder):
            yield path.name, {"image": str(path), "pid": pid, "camera": camera, "name": path.name}


def find_root(root: Path) -> Path:
    """The folder that holds Market-1501's three folders: the one given, or a single one inside it.

    Raises:
        DataError: None or several; says what was looked for and what is there.
    """
    if not root.is_dir():
        raise DataError(f"--data.root {root}: no such folder; give the unpacked Market-1501 folder or its parent")
    inside = sorted(path.parent for path in root.glob(f"*/{FOLDERS['train']}"))
    found = [path for path in (root, *inside) if all((path / name).is_dir() for name in FOLDERS.values())]
    if len(found) != 1:
        what = "several data sets: " if found else "none; the folder holds: "
        there = ", ".join(path.name for path in (found or sorted(root.iterdir())[:12])) or "nothing"
        raise DataError(
            f"--data.root {root}: expected the folders {', '.join(FOLDERS.values())} there or in one folder "
            f"below, found {what}{there}"
        )
    return found[0]


def parse_folder(folder: Path) -> list[tuple[Path, int, int]]:
    """Path, identity and camera of the images in a folder, sorted by name.

    What is no JPEG is passed over, and so are hidden files (macOS leaves some beside each image).

    Raises:
        DataError: A JPEG whose name is not of the data set's form, or no image at all.
    """
    paths = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() == ".jpg" and path.is_file())
    if not paths:
        raise DataError(f"{folder}: no .jpg files")
    matches = [(path, NAME.match(path.name)) for path in paths]
    bad = [path.name for path, match in matches if match is None]
    if bad:
        raise DataError(
            f"{folder}: {len(bad)} of {len(paths)} image names are not of the form 0002_c1s1_000451_03.jpg, "
            f"the first is {bad[0]}"
        )
    return [(path, int(match["pid"]), int(match["camera"])) for path, match in matches if match]


def load(root: Path, cache: Path, size: tuple[int, int]) -> Dataset:
    """Reads a folder in Market-1501's layout into memory.

    The first call packs the files into records below ``cache``, named by a fingerprint of the folder's listing
    (names, sizes, times), so that a changed folder is packed anew; later calls read those.

    Args:
        root: The unpacked folder or its parent.
        cache: Where the records go.
        size: Height and width that images get if they differ in size; equal ones stay as they are.

    Raises:
        DataError: The layout is not Market-1501's, or an image cannot be decoded.
    """
    root = find_root(root)
    data_dir = str(cache / f"records-{_fingerprint(root)}")
    manual = tfds.download.DownloadConfig(manual_dir=str(root.resolve()))
    tfds.disable_progress_bar()
    with (
        contextlib.redirect_stdout(io.StringIO()),  # TFDS announces a download that does not take place
        contextlib.suppress(FileExistsError),  # another process was faster; its records are as good as ours
    ):
        Market1501(data_dir=data_dir, file_format="array_record").download_and_prepare(download_config=manual)
    builder = Market1501(data_dir=data_dir, file_format="array_record")
    return Dataset(root.resolve().name, *(_read(builder, split, size) for split in FOLDERS))


def _read(builder: Market1501, split: str, size: tuple[int, int]) -> Split:
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    # Records lie in the order of a hash of their names.
    records = sorted(source, key=lambda record: record["name"])
    sizes = {_open(record).size for record in records}
    width, height = sizes.pop() if len(sizes) == 1 else (size[1], size[0])
    images = np.empty((len(records), height, width, 3), np.uint8)
    for row, record in zip(images, records, strict=True):
        row[:] = _decode(record, (width, height))
    return Split(
        images=images,
        pids=np.array([record["pid"] for record in records], np.int64),
        cameras=np.array([record["camera"] for record in records], np.int64),
        names=np.array([record["name"].decode() for record in records]),
    )


def _open(record: Mapping[str, Any]) -> Image.Image:
    """The image of a record, its header read."""
    try:
        return Image.open(io.BytesIO(record["image"]))
    except OSError as error:
        raise _undecodable(record, error) from error


def _decode(record: Mapping[str, Any], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    try:
        image = _open(record).convert("RGB")
    except OSError as error:
        raise _undecodable(record, error) from error
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))


def _undecodable(record: Mapping[str, Any], error: OSError) -> DataError:
    name = record["name"].decode()
    return DataError(f"{name}: cannot be decoded ({error}); replace the file or take it away")


def _fingerprint(root: Path) -> str:
    listing = hashlib.sha256(str(root.resolve()).encode())
    for folder in FOLDERS.values():
        for path, _, _ in parse_folder(root / folder):
            status = path.stat()
            listing.update(f"{folder}/{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return listing.hexdigest()[:12]
