"""Packs image files into records by tensorflow-datasets, without TensorFlow, and reads them back.

This module imports tensorflow-datasets; what reads prepared data must not import it.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from svdnet_jax.data import images
from svdnet_jax.data.cache import Rows
from svdnet_jax.data.formats.detect import LAYOUTS
from svdnet_jax.data.index import SPLITS, DatasetIndex, ImageRecord
from svdnet_jax.data.resizing import resize_to_bytes
from svdnet_jax.errors import DataError

Record = Mapping[str, Any]


class Reid(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of any listed data set, ``reid/market1501`` and so on; images are copied as they are.

    Nothing is downloaded: ``Reid(listing=find_layout(...), config=listing.layout, file_format="array_record")`` packs,
    and without a listing what was packed is read.
    """

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name, description=LAYOUTS[name].sign) for name in LAYOUTS)

    def __init__(self, *, listing: DatasetIndex | None = None, **kwargs: Any) -> None:
        self._listing = listing
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "pid": np.int64,
            "camera": np.int64,
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            description="Crops of people with their identities and cameras; identities of train and test are disjoint.",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        if self._listing is None:
            raise ValueError("Reid packs a listing: give listing=find_layout(root, cache)")
        # TFDS refuses a split without examples.
        return {split: self._generate_examples(crops) for split, crops in self._listing.splits.items() if crops}

    def _generate_examples(self, crops: Sequence[ImageRecord]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, pid, camera, name in crops:
            yield name, {"image": str(path), "pid": pid, "camera": camera, "name": name}


def pack(listing: DatasetIndex, folder: Path) -> Reid:
    """Packs the files of a data set into records below ``folder``, unless they are there.

    Raises:
        OSError: A file cannot be read, or the records cannot be written.
    """
    settings: dict[str, Any] = {"config": listing.layout, "data_dir": str(folder), "file_format": "array_record"}
    tfds.disable_progress_bar()
    with (
        contextlib.redirect_stdout(io.StringIO()),  # TFDS announces a download that does not take place
        contextlib.suppress(FileExistsError),  # another process was faster; its records are as good as ours
    ):
        Reid(listing=listing, **settings).download_and_prepare()
    return Reid(**settings)


def unpack(packed: Reid, size: tuple[int, int] | None) -> Iterator[tuple[str, Rows]]:
    """Returns the splits, one after the other, with images decoded while they are taken.

    Args:
        packed: What `pack` made.
        size: Height and width that the images get; None: they have one size and stay as they are.

    Raises:
        DataError: An image cannot be decoded; names it.
    """
    for split in SPLITS:
        records: list[Record] = []
        if split in packed.info.splits:
            records += packed.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        # Records lie in the order of a hash of their names.
        records.sort(key=lambda record: record["name"])
        height, width = size or _size(records)
        decode = partial(_decode, height=height, width=width, resize=size is not None)
        yield (
            split,
            Rows(
                size=(height, width),
                images=map(decode, records),
                pids=np.array([record["pid"] for record in records], np.int64),
                cameras=np.array([record["camera"] for record in records], np.int64),
                names=np.array([_name(record) for record in records], np.str_),
            ),
        )


def _size(records: Sequence[Record]) -> tuple[int, int]:
    if not records:
        return 1, 1
    width, height = images.upright_size(io.BytesIO(records[0]["image"]), _name(records[0]))
    return height, width


def _decode(record: Record, height: int, width: int, resize: bool) -> UInt8[np.ndarray, "H W 3"]:
    image = images.decode(io.BytesIO(record["image"]), _name(record))
    if resize:
        return resize_to_bytes(np.asarray(image), (height, width))
    if image.size != (width, height):  # its header said so
        raise DataError(f"{_name(record)}: found {image.height}x{image.width}, all others are {height}x{width}")
    return np.asarray(image)


def _name(record: Record) -> str:
    return record["name"].decode()
