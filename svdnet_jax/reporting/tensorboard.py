"""Writes the numbers of a log for TensorBoard, by tensorboardX: one file of events that follows the log.

A run that goes on cuts its log where its checkpoint was taken, and event files cannot be cut. So whoever opens them
writes them anew from the lines of the log that are kept: no point is there twice, and those of the log are all there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.log import Record, scalars
from svdnet_jax.safe_writing import naming

SUFFIX = ".svdnet_jax"
"""Ends the names of our files: others in the folder stay."""


def check_tensorboard() -> None:
    """Refuses what needs tensorboardX where it is not installed.

    Raises:
        ConfigError: It is missing.
    """
    if find_spec("tensorboardX") is None:
        raise ConfigError("`log.tensorboard`: needs tensorboardX: pip install 'svdnet-jax[tensorboard]'")


@contextmanager
def event_file(folder: Path, records: Sequence[Record]) -> Iterator[Callable[[Record], None]]:
    """Opens the file of events of a run in place of those that it had.

    Args:
        folder: Where it lies; made if it is not there.
        records: Lines of the log so far, which it begins with.

    Yields:
        `write(record)`, to be called with every line of the log that follows.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    def write(record: Record) -> None:
        if event := _event(record):
            with naming(folder):
                writer.write_event(event)
                writer.flush()

    with naming(folder):
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            old.unlink()
        # Absolute, as tensorboardX takes s3:... for a place in a cloud. It writes in this thread: errors come through.
        writer = EventsWriter(str(folder.resolve() / "events"), SUFFIX)
        # A TensorBoard that is watching drops what it has read of the files before.
        writer.write_event(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
        for event in filter(None, map(_event, records)):
            writer.write_event(event)
        writer.flush()
    try:
        yield write
    finally:
        with naming(folder):
            writer.close()


def _event(record: Record) -> Any:
    """Returns the numbers of a line at its step; None for a line without."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    points = [Summary.Value(tag=name, simple_value=value) for name, value in scalars(record).items()]
    return Event(wall_time=time.time(), step=record["step"], summary=Summary(value=points)) if points else None
