"""Writing files safely: whole or not at all, and never over a file that the command reads or did not make.

What a file is, is told by its content, as names tell little: a file of the kind that a command writes may be replaced
by that command, and everything else is somebody's work.
"""

import csv
import glob
import json
import os
import shutil
import socket
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from svdnet_jax.errors import ConfigError

Recognize = Callable[[Path], bool]
"""Whether an existing file is of the kind that a command writes."""


def refuse_overwrite(option: str, out: Path, made: Recognize, reads: Iterable[Path | str | None] = ()) -> None:
    """Refuses a file that a command must not write, before any work.

    Args:
        option: What named it, for the message.
        out: The file to be written.
        made: Tells the command's own kind of file.
        reads: Files that the command reads, and others that it writes. Links of both sorts are seen through, and names
            that differ in case only count as one, as they may be one file on the next machine.

    Raises:
        ConfigError: It is one of these, a folder, not an ordinary file, or of another kind.
    """
    if str(out) == "-":
        raise ConfigError(f"{option} -: means no stream here; give the name of a file (./- if it is to be called so)")
    for other in reads:
        if other is not None and _same(out, Path(other)):
            raise ConfigError(
                f"{option} {out}: would be written over, and this command reads or writes it as {other}; give {option} "
                "a file of its own"
            )
    if out.is_dir():
        raise ConfigError(f"{option} {out}: is a folder; give the name of a file, {out / 'NAME'}")
    device = Path("/dev") in out.absolute().parents  # /dev/stdout may be led to a file
    if not out.exists() and not device:
        return
    if device or not out.is_file():
        raise ConfigError(f"{option} {out}: is not an ordinary file; give the name of one")
    if out.stat().st_size and not made(out):  # an empty file, as of mktemp, is nobody's work
        raise ConfigError(
            f"{option} {out}: exists and is not what this command writes there, so it stays; give another name, or "
            "remove it first"
        )


def refuse_inside(option: str, out: Path, folders: Iterable[Path]) -> None:
    """Refuses a folder for results that is, or is in, a folder which the command reads.

    Raises:
        ConfigError: It is.
    """
    for folder in folders:
        if folder.is_dir() and (_same(out, folder) or folder.resolve() in out.resolve().parents):
            raise ConfigError(f"{option} {out}: is in {folder}, which this command reads; give a folder of its own")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file by renaming a complete one into its place, through a link if it is one; makes its folder."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes its place when it is complete, through a link if there is one; makes its folder.

    What a killed process left of it is replaced by the next one. An error of the system names the file.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.partial")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                # Else a power cut may leave an empty file under the new name.
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in the errors of the system, which do not say where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


@contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """Makes a folder beside a target, in which it is made; what killed processes of this machine left is taken away."""
    host = socket.gethostname()
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}-{glob.escape(host)}-*"):
        if (number := left.name.rpartition("-")[2]).isdigit() and not _alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    work = target.with_name(f".{target.name}-{host}-{uuid.uuid4().hex[:8]}-{os.getpid()}")
    with naming(target):
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def is_npz(*arrays: str, but: Collection[str] = ()) -> Recognize:
    """Recognises a file of such arrays, and without certain others."""

    def made(path: Path) -> bool:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as file:
            found = {name.removesuffix(".npy") for name in file.namelist()}
        return found >= set(arrays) and not found & set(but)

    return made


def is_csv(head: Sequence[str]) -> Recognize:
    """Recognises a table by its first line."""

    def made(path: Path) -> bool:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return next(csv.reader([file.readline(10_000)]), []) == list(head)

    return made


def is_json(*keys: str, lines: bool = False) -> Recognize:
    """Recognises an object with such keys, or a file of one on each line."""

    def made(path: Path) -> bool:
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text.partition("\n")[0] if lines else text)
        except ValueError:
            return False
        return isinstance(content, dict) and content.keys() >= set(keys)

    return made


def is_text(*parts: str) -> Recognize:
    """Recognises a text in which all of these occur."""
    return lambda path: all(part in path.read_text(encoding="utf-8", errors="replace") for part in parts)


def is_bytes(*parts: bytes) -> Recognize:
    """Recognises a file at whose beginning all of these occur."""

    def made(path: Path) -> bool:
        with path.open("rb") as file:
            head = file.read(2**20)
        return all(part in head for part in parts)

    return made


def is_figure(path: Path) -> bool:
    """Recognises a picture that matplotlib drew, or that says it is ours."""
    with path.open("rb") as file:
        head = file.read(400)
    return head.startswith(b"\x89PNG") and (b"Software\0Matplotlib" in head or b"Software\0svdnet_jax" in head)


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return os.path.realpath(one).casefold() == os.path.realpath(other).casefold()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    write_whole(path, json.dumps(content, indent=2).encode())
