"""Arrays from files of strangers: what a file says of itself is held against its size before anything is allocated.

NumPy believes a header: one of a hundred bytes can ask for 10**18 numbers, and a small archive can unfold to gigabytes.
"""

import math
import stat
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

UNFOLDED = 2**28
"""Bytes that a compressed archive may always unfold to; a larger one to `RATIO` times its own size."""
RATIO = 30
"""Most that numbers are compressed by; features shrink by a tenth, and only equal numbers by a thousand."""
ROWS = 2**20
"""Length that an array without a single byte, as (N, 0), may always have; else that of the file."""
_UNREADABLE = (
    *(ValueError, SyntaxError, TypeError, KeyError, IndexError, OverflowError, AttributeError, tokenize.TokenError),
    *(EOFError, OSError, RuntimeError, MemoryError, SystemError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise for pickled objects, headers that are no literals, and files with any byte changed."""


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Reads an `.npy` without pickle.

    Args:
        path: The file.
        mapped: Maps it into memory instead of reading it.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no ordinary file, is damaged, or its header does not fit its size.
    """
    size = _size(path)
    with path.open("rb") as file:
        try:
            _check_header(file, size, size)
            if not mapped:
                file.seek(0)
                return _readable(np.lib.format.read_array(file, allow_pickle=False))
            # As a plain array: indexing a memmap costs more than indexing an array over the same memory.
            return _readable(np.asarray(np.lib.format.open_memmap(path, "r")))
        except _UNREADABLE as error:
            raise ValueError(_reason(error)) from error


def read_arrays(path: Path, wanted: Sequence[str], expected: str) -> dict[str, np.ndarray]:
    """Returns those of the wanted arrays that an `.npz` holds, read without pickle.

    Args:
        path: The file.
        wanted: Names of arrays; others are passed over.
        expected: What a good file is, for the message.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no ordinary file or no .npz, is damaged, unfolds to more than its size allows, or holds
            pickled objects.
    """
    try:
        size = _size(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected {expected}.") from None
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an .npz file, or one cut short; expected {expected}.")
        arrays: dict[str, np.ndarray] = {}
        name = "the list of arrays"
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, wanted)
                room = max(RATIO * size, UNFOLDED)
                _check_unfolded(list(members.values()), room)
                for name, member in members.items():
                    with archive.open(member) as content:
                        _check_header(content, member.file_size, size)
                    with archive.open(member) as content:
                        arrays[name] = _readable(np.lib.format.read_array(content, allow_pickle=False))
        except _UNREADABLE as error:
            raise ValueError(
                f"{path}: cannot read {name} ({_reason(error)}); expected plain numbers and text, no pickled objects: "
                "np.array(names, dtype=str), np.array(pids, dtype=np.int64)."
            ) from error
    return arrays


def array_names(path: Path) -> list[str]:
    """Returns the names of the arrays that an `.npz` holds."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _size(path: Path) -> int:
    """Returns the bytes of an ordinary file; opening a pipe would wait for its writer, and a device has no end."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):  # opening a folder says what it is
        raise ValueError("is not an ordinary file but a pipe or a device; give the name of a file")
    return found.st_size


def _members(archive: zipfile.ZipFile, wanted: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    held = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    return {name: held[name] for name in wanted if name in held}


def _check_unfolded(members: Sequence[zipfile.ZipInfo], room: int) -> None:
    """Refuses an archive that unfolds to more than its size allows."""
    # Of the other methods a few bytes unfold to gigabytes at a stroke.
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError("it is compressed otherwise than by np.savez and np.savez_compressed")
    unfolded = sum(member.file_size for member in members)
    if unfolded > room:
        raise ValueError(
            f"it unfolds to {unfolded} bytes, and a file of its size to {room} at most; save it by np.savez, which "
            "does not compress"
        )


def _check_header(content: IO[bytes], size: int, whole: int) -> None:
    """Refuses a header that asks for more than there is.

    Args:
        content: An `.npy` from its beginning.
        size: Its bytes.
        whole: Bytes of the file that it is in.
    """
    version = np.lib.format.read_magic(content)
    # Version 3 has the lengths of version 2, and names of fields in UTF-8, which no array of plain numbers has.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    if dtype.hasobject or dtype.names is not None:
        raise ValueError(f"it holds {'pickled objects' if dtype.hasobject else 'records'}")
    lengths = [int(length) for length in shape]
    needed, room = math.prod(lengths) * dtype.itemsize, size - content.tell()
    if min(lengths, default=0) < 0 or needed > room:
        raise ValueError(f"its header asks for {dtype} {shape}, {needed} bytes, and {room} follow")
    # Nothing is read for (10**9, 0), but whoever goes through its rows allocates for each.
    if math.prod(length for length in lengths if length) > max(whole, size, ROWS):
        raise ValueError(f"its header asks for {dtype} {shape}, and the file has {whole} bytes")


def _readable(array: np.ndarray) -> np.ndarray:
    """Returns an array whose text is text: NumPy takes any 32 bits for a character, and Python fails later."""
    if array.dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.size and codes.max() > sys.maxunicode:
            raise ValueError(f"it holds the character {codes.max():#x}, and there are none beyond {sys.maxunicode:#x}")
    return array


def _reason(error: BaseException) -> str:
    """Returns what is wrong, in a line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
