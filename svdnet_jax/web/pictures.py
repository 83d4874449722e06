"""The pictures that the page shows: where they come from, and thumbnails of them, made once and kept within a bound."""

import io
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from svdnet_jax.data.images import decode, upright_size
from svdnet_jax.errors import DataError

Pictures = Callable[[int], Image.Image]
"""From the row of an image to its picture; DataError where there is none or it cannot be shown."""

MOST_PIXELS = 2**24
"""Of a picture that is decoded for the page, 16.8 million: a photograph of a telephone, while more is no crop of a
person. Resizing takes 12 bytes a pixel, 200 MB."""
SIZE = (160, 320)
"""Most that a thumbnail has in width and height."""
QUALITY = 90
ROOM = 2**27
"""Bytes of thumbnails that are kept, 128 MiB: Market-1501's gallery takes a third of it."""


def from_arrays(images: UInt8[np.ndarray, "N H W 3"], held: Sequence[str], names: Sequence[str]) -> Pictures:
    """Returns the pictures of prepared images.

    Args:
        images: Decoded.
        held: Their names.
        names: Of the rows that will be asked for.
    """
    row_of = {name: row for row, name in enumerate(held)}

    def read(row: int) -> Image.Image:
        if names[row] not in row_of:
            raise DataError(f"{names[row]}: is not among the images of the data set")
        return Image.fromarray(images[row_of[names[row]]])

    return read


def from_folder(root: Path, files: Mapping[str, Path], names: Sequence[str]) -> tuple[Pictures, int]:
    """Returns the pictures of files in a folder, and of how many names there is none.

    A name is a path in the folder or, where only one file there has it, a file's own name. Nothing outside of the
    folder is read: what a link in it leads to is looked at each time.

    Args:
        root: The folder.
        files: The images that were found in it, by their paths there.
        names: Of the rows that will be asked for.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in files.values():
        by_name[path.name].append(path)
    unique = {name: paths[0] for name, paths in by_name.items() if len(paths) == 1}
    paths = [files.get(name) or unique.get(name) for name in names]
    top = root.resolve()

    def read(row: int) -> Image.Image:
        path = paths[row]
        if path is None:
            raise DataError(f"{names[row]}: is not in the folder of images")
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{names[row]}: is gone") from error
        if not real.is_file():  # a pipe would be waited for
            raise DataError(f"{names[row]}: is no file any more")
        if not real.is_relative_to(top):
            raise DataError(f"{names[row]}: is a link that leads out of the folder of images")
        refuse_large(real, names[row])
        return decode(real, names[row])

    return read, paths.count(None)


def refuse_large(file: Path | io.BytesIO, name: str) -> None:
    """Refuses a picture of too many pixels by its header, before one of them is decoded.

    Raises:
        DataError: It has more than `MOST_PIXELS`, or is no image.
    """
    width, height = upright_size(file, name)
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{name}: has {width} x {height} pixels, and at most {MOST_PIXELS / 1e6:.1f} million are shown or searched "
            "for; cut out the person, or make it smaller"
        )


class Thumbnails:
    """Small pictures as JPEG: each is made once, whoever asks at the same time.

    The least used go when there is no room.

    Args:
        pictures: By set, ``query`` or ``gallery``.
        room: Bytes to keep at most.
    """

    def __init__(self, pictures: Mapping[str, Pictures], room: int = ROOM) -> None:
        self._pictures, self._room = pictures, room
        self._lock = Lock()
        self._made: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._size = 0

    def get(self, kind: str, row: int) -> bytes:
        """Returns a thumbnail.

        Raises:
            DataError: There is no picture, or it cannot be shown.
        """
        key = kind, row
        with self._lock:
            waiting = self._made.get(key)
            if waiting is not None:
                self._made.move_to_end(key)
            else:
                self._made[key] = own = Future[bytes]()
        if waiting is not None:
            return waiting.result()
        try:
            made = _thumbnail(self._pictures[kind](row))
        except BaseException as error:
            with self._lock:
                self._made.pop(key)  # asked for again, it is looked for again
            own.set_exception(error)
            raise
        own.set_result(made)
        self._keep(len(made))
        return made

    def _keep(self, size: int) -> None:
        """Counts a new one, and lets go of the least used while there is no room."""
        with self._lock:
            self._size += size
            for key in list(self._made):
                if self._size <= self._room:
                    return
                if self._made[key].done():  # another may be at work
                    self._size -= len(self._made.pop(key).result())


def _thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail(SIZE, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
