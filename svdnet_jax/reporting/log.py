"""The log of a run, metrics.jsonl: one JSON object a line, made to be read by other programs.

Events are `start`, `resume`, `step`, `phase`, `decorrelate` and `end`. A checkpoint stores the
log's length and hash, so that a resumed run cuts what the killed process wrote afterwards: the file then
reads as if nothing had happened, but for the line that says `resume`. A log that changed is refused. docs/log.md says
what each line holds.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from svdnet_jax.errors import LogError
from svdnet_jax.safe_writing import naming

Record = Mapping[str, Any]
"""One line of the log."""

TRIES, PAUSE = 5, 0.05
"""Times that a line without an end is looked at again, and seconds between: its writer may be about to end it."""
_RETRIEVAL = tuple(
    f"{name}.{measure}" for name in ("embedding", "pooled") for measure in ("rank1", "mAP", "mAP_market")
)
_KEYS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "start": ("dataset", "seed"),
        "step": ("step", "learning_rate", "loss"),
        "phase": ("phase", "round", "step", "loss", "correlation", *_RETRIEVAL),
        "decorrelate": ("round", "step", "method"),
    }
)
"""What lines of each event must hold, those in sections with a dot."""
_NOT_MEASURED = ("phase", "round", "step", "correlation")
"""What is left of it at the end of a restraint that was not to be evaluated."""
_TEXTS = {"dataset", "phase", "method"}
_REPLACEMENTS = {"us": "US", "u": "U", "uvt": "UV'", "qd": "QD", "rotation": "WR", "none": "W"}


@dataclass(frozen=True)
class Log:
    """A log to append to. Made by `open_log`; holds no open file, so there is nothing to close."""

    path: Path

    def write(self, record: Record) -> None:
        """Appends one line and hands it to the system; all but `step` lines are forced to the disk.

        Args:
            record: Plain values, mappings and sequences; NumPy and JAX scalars become numbers.

        Raises:
            LogError: A value is NaN, infinite or nothing JSON knows. Nothing is written then.
        """
        try:
            line = json.dumps(_plain(record, ""), allow_nan=False)
        except ValueError as error:
            where = f"{record.get('event', 'record')} line at step {record.get('step', '?')}"
            raise LogError(f"{self.path}: {where} was not written: {error}") from None
        # A file that is gone is not made anew: its earlier lines would be missing.
        with naming(self.path), self.path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(line.encode() + b"\n")
            file.flush()
            if record.get("event") != "step":
                os.fsync(file.fileno())

    @property
    def offset(self) -> int:
        """Bytes written so far, once they are on the disk: what a checkpoint stores."""
        with naming(self.path), self.path.open("r+b") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    @property
    def hash(self) -> str:
        """SHA-256 of all that was written so far, in hex digits; a checkpoint stores it beside the offset."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def open_log(path: Path, offset: int | None, expected: str | None = None) -> Log:
    """Opens a log for a new run, or for one that goes on from a checkpoint.

    Args:
        path: The file; its folder exists.
        offset: Bytes to keep, from `Log.offset`; what follows is cut, half lines included. None
            starts an empty log, also where a process died before its first checkpoint.
        expected: Hash of what is kept, from `Log.hash`; None from a checkpoint of an older version.

    Raises:
        LogError: The file is not the one that the checkpoint was taken with: it is shorter, has no line that ends at
            `offset`, or other bytes before it. It is left as it is. Or it has lines that only a run with checkpoints
            can have written, and there is none to go on from.
    """
    if not offset:
        refuse_to_lose(path)
        path.write_bytes(b"")
        return Log(path)
    check_log(path, offset, expected)
    with path.open("r+b") as file:
        file.truncate(offset)
        os.fsync(file.fileno())
    return Log(path)


def check_log(path: Path, offset: int, expected: str | None) -> None:
    """Makes sure that a log is the one that a checkpoint was taken with; for the arguments see `open_log`.

    Raises:
        LogError: It is not; says in what.
    """
    fix = "Put the run's own log back from a copy, or start a new run in another folder with `out`."
    kept = path.read_bytes()[:offset] if path.exists() else b""
    if len(kept) < offset:
        raise LogError(f"{path}: the checkpoint needs {offset} bytes of log, found {len(kept)}. {fix}")
    if not kept.endswith(b"\n"):
        raise LogError(f"{path}: no line ends at byte {offset}, where the checkpoint was. {fix}")
    if expected is not None and hashlib.sha256(kept).hexdigest() != expected:
        raise LogError(
            f"{path}: was changed: its first {offset} bytes are not those that the checkpoint was taken with, by their "
            f"hash. {fix}"
        )


def refuse_to_lose(path: Path) -> None:
    """Keeps a log that is worth something from being overwritten, as when somebody deleted the checkpoints.

    Raises:
        LogError: It has lines that only a run with checkpoints can have written.
    """
    text = path.read_bytes() if path.exists() else b""
    # A phase ends with a line and then a checkpoint; without any the process may have died in between.
    after = text.partition(b'{"event": "phase"')[2].partition(b"\n")[2]
    if after:
        raise LogError(
            f"{path}: holds the lines of a run that had checkpoints, and there is none to go on from. Nothing was "
            "changed. Put them back, or give another `out`; to begin this run anew, take the folder away"
        )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads every line of a log.

    Raises:
        LogError: A line is cut short, is not JSON, or is not an object with an `event`; the message
            names file and line.
    """
    records = []
    for number, line in enumerate(_whole_lines(path).splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            raise LogError(
                f"{path}:{number}: the last line has no end: its writer was killed or is still "
                "writing. Resume the run, which cuts it, or delete the line."
            )
        try:
            record = json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            raise LogError(f"{path}:{number}: not a line of JSON: {error}") from None
        if not isinstance(record, dict) or not isinstance(record.get("event"), str):
            raise LogError(f'{path}:{number}: expected an object with "event", found {line[:60]!r}')
        records.append(record)
    return records


def check_records(path: Path, records: Sequence[Record]) -> None:
    """Makes sure that lines of a log hold what tables and figures are made of.

    Raises:
        LogError: A line lost a key or a number; names file and line.
    """
    fix = "Put the run's own log back from a copy, or train the run anew"
    if not records or records[0]["event"] != "start" or not after_rounds(records):
        raise LogError(f"{path}: expected a first line 'start' and lines 'phase', as training writes them. {fix}")
    for number, record in enumerate(records, start=1):
        for key, held in _held(record):
            if not isinstance(held, str if key in _TEXTS else int | float):
                raise LogError(f"{path}:{number}: a line `{record['event']}` has no {key} that can be used. {fix}")


def _held(record: Record) -> Iterator[tuple[str, Any]]:
    """Yields what a line holds of what it must hold, by key; None where it does not."""
    event = record["event"]
    for key in _KEYS.get(event, ()) if event != "phase" or is_measured(record) else _NOT_MEASURED:
        yield key, _at(record, key)
    if record["event"] == "phase" and "others" in record:
        others = record["others"]
        if not isinstance(others, Mapping):
            yield "others", None
            return
        for name, measured in others.items():
            yield from ((f"{key} on {name}", _at(measured, key)) for key in _RETRIEVAL)


def _at(held: Any, key: str) -> Any:
    """Returns what is held under a key, in a section where it has a dot; None where nothing is."""
    for name in key.split("."):
        held = held.get(name) if isinstance(held, Mapping) else None
    return held


def _whole_lines(path: Path) -> bytes:
    """Returns the content of a log, whose last line its writer may be writing right now."""
    for _ in range(TRIES):
        content = path.read_bytes()
        if not content or content.endswith(b"\n"):
            break
        time.sleep(PAUSE)
    return content


def borders(records: Sequence[Record]) -> list[Record]:
    """Picks the lines at the borders of phases: `phase`, and `decorrelate` but the control's."""
    return [
        record
        for record in records
        if record["event"] == "phase" or (record["event"] == "decorrelate" and record["method"] != "none")
    ]


def is_measured(record: Record) -> bool:
    """Returns whether a line about a border has loss and retrieval; one of a restraint may go without."""
    return record.get("phase") != "restraint" or bool({"loss", "accuracy", "embedding", "pooled"} & record.keys())


def border_name(record: Record) -> str:
    """Names a border for people: `base`, `1 W = US`, `1 restraint`, `1 relaxation`."""
    if record["event"] == "decorrelate":
        return f"{record['round']} W = {_REPLACEMENTS[record['method']]}"
    return f"{record['round']} {record['phase']}" if record["round"] else str(record["phase"])


def scalars(record: Record) -> dict[str, float]:
    """Returns the numbers of a line that can be drawn over steps, such as `phase/embedding.mAP`; none of other lines.

    Args:
        record: A line; those of `step`, `phase` and `decorrelate` have such numbers.
    """
    if record["event"] not in ("step", "phase", "decorrelate"):
        return {}
    values = flatten({name: value for name, value in record.items() if name not in ("step", "round")})
    return {f"{record['event']}/{name}": value for name, value in values.items() if isinstance(value, int | float)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns dotted names -> values, as the options on the command line are called."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def after_rounds(records: Sequence[Record]) -> list[Record]:
    """Picks the `phase` lines that a round is judged by: the base, every relaxation, and a final restraint."""
    return [r for r in records if r["event"] == "phase" and r.get("phase") in ("base", "relaxation", "final")]


def on_held_out(records: Sequence[Record]) -> bool:
    """Returns whether a run was tested on training identities that it held out, other ones with each seed."""
    return bool(_at(records[0], "settings.data.validation"))


def other_sets(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Returns the `phase` lines as they are on each further test set, by its name."""
    found: dict[str, list[Record]] = {}
    for record in records:
        for name, measured in record.get("others", {}).items():
            found.setdefault(name, []).append({**record, **measured})
    return found


def _plain(value: Any, name: str) -> Any:
    """Turns a value into what JSON knows, or says which part of it JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{name}[{index}]") for index, part in enumerate(value)]
    if getattr(value, "ndim", None) == 0:  # a NumPy or JAX scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which JSON cannot hold; has the training diverged?")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"{name} is a {type(value).__name__}; JSON holds numbers, text, lists and mappings")


def _refuse(token: str) -> NoReturn:
    raise ValueError(f"{token} is not JSON")
