"""Writes while a run trains: log lines, W and embeddings at borders of phases, checkpoints.

All hosts of a run compute what is written and call these functions; only the lead host has a log, and writes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import to_json
from svdnet_jax.reporting.log import Log
from svdnet_jax.runs import checkpoint
from svdnet_jax.runs.base_run import BaseRun
from svdnet_jax.runs.directory import RunDir, save_eigenlayer, save_embeddings, save_identities
from svdnet_jax.runs.evaluate import with_fingerprints
from svdnet_jax.runs.restore import RunPosition, position_to_json
from svdnet_jax.training.evaluation import by_identity
from svdnet_jax.training.events import Decorrelated, PhaseEnded, Record, SaveDue

LATEST_OF = ("base", "relaxation", "final")
"""Phases at whose ends W is kept for the figures, beside that of the first decorrelation."""


class RunOutput(NamedTuple):
    """Where a run that is going on writes."""

    config: Config
    run_dir: RunDir
    checkpoints: checkpoint.Checkpoints
    log: Log | None
    """Of the lead host; None on the others."""
    show: Callable[[Record], None]
    """Shows a line of the log to people."""
    start: RunPosition
    """Where this process began."""
    write_event: Callable[[Record], None] = lambda record: None
    """Writes a line of the log for TensorBoard, where somebody asked for it and there is a log."""


def log_record(output: RunOutput, record: Record, *, show: bool = True) -> None:
    """Writes a line of the log, and shows it."""
    if output.log:
        output.log.write(record)
        output.write_event(record)
        if show:
            output.show(record)


def save_border(output: RunOutput, event: PhaseEnded | Decorrelated) -> None:
    """Writes what a border of phases leaves behind: its line of the log, results by identity, W, Step 0's embeddings.

    They are on disk before the checkpoint that follows, so that a run which goes on from there has them.
    """
    record, state = event.record, event.state
    log_record(output, record)
    evaluation = event.evaluation if isinstance(event, PhaseEnded) else None
    if output.log and evaluation:
        save_identities(output.run_dir, record["round"], record["phase"], by_identity(evaluation))
    border = record["phase"] if isinstance(event, PhaseEnded) else "decorrelate"
    if output.log and (border in LATEST_OF or (border == "decorrelate" and record["round"] == 1)):
        save_eigenlayer(output.run_dir, border, np.asarray(state.eigenlayer))
    if output.log and evaluation and border == "base" and output.config.rri.rounds:
        query, gallery = with_fingerprints(evaluation.features, state, output.config)
        save_embeddings(output.run_dir, query, gallery, base=True)


def save_checkpoint(output: RunOutput, event: SaveDue) -> None:
    """Writes a checkpoint: the state, and its position in the run."""
    state, log = event.state, output.log
    position = output.start._replace(
        phase=int(state.cursor.phase),
        step=int(state.step),
        log_offset=log.offset if log else None,
        log_hash=log.hash if log else None,
        phase_seconds=event.phase_seconds,
        unreported=event.unreported,
    )
    metadata = {"config": to_json(output.config), "place": position_to_json(position)}
    checkpoint.save(output.checkpoints, state, metadata, event.metrics)


def copy_base_run(output: RunOutput, base: BaseRun, start: Record) -> None:
    """Writes the lines that an unbroken run would have in its log when the steps of Step 0 are done.

    Args:
        output: Of the run at hand.
        base: Its base run.
        start: The `start` line of the run at hand.
    """
    log_record(output, {**start, "weights": base.start["weights"]})
    for record in base.steps:
        # Not shown: nobody wants to see the lines of training that is not going on.
        log_record(output, record, show=False)
