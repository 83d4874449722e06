"""What a run writes while it trains: lines of its log, matrices and embeddings at borders, checkpoints."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from svdnet_jax.config.schema import Run
from svdnet_jax.config.serialize import to_json
from svdnet_jax.reporting.log import Log
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs import checkpoint
from svdnet_jax.runs.directory import save_matrix
from svdnet_jax.runs.load import Place
from svdnet_jax.runs.report import base_embeddings, save_embeddings
from svdnet_jax.training.log_interval import Record, Unreported
from svdnet_jax.training.state import TrainState


def emit(
    folder: Path,
    log: Log | None,
    show: Callable[[Record], None],
    embed_test: Callable[[TrainState], tuple[dict[str, Embeddings], dict[str, Embeddings]]] | None,
    record: Record,
    state: TrainState,
) -> None:
    """Tells the world of a record; of several processes the first, though all of them compute what it writes."""
    if log:
        log.write(record)
        show(record)
        # Enough for the pictures: Step 0, the first decorrelation, the latest relaxation.
        match (record["event"], record.get("phase"), record.get("round")):
            case ("phase", "base" | "relaxation" | "final" as border, _) | ("decorrelate" as border, _, 1):
                save_matrix(folder, border, np.asarray(state.eigenlayer))
    # On disk before the checkpoint that follows, so that a run which goes on from there has them.
    if embed_test and record["event"] == "phase" and record["phase"] == "base":
        sides = embed_test(state)
        if log:
            save_embeddings(base_embeddings(folder), *sides)


def keep(
    config: Run,
    saved: checkpoint.Checkpoints,
    log: Log | None,
    start: Place,
    state: TrainState,
    seconds: float,
    metrics: Mapping[str, float] | None,
    unreported: Unreported,
) -> None:
    """Writes a checkpoint with the place of its state in the run.

    Args:
        config: Settings of the run.
        saved: Its checkpoints.
        log: Its log; only the first of several processes has one.
        start: The place that it began from.
        state: What to keep.
        seconds: Time that its phase has taken so far.
        metrics: Retrieval by the embedding, where it was just measured.
        unreported: Loss and accuracy of the steps since the last line of the log.
    """
    place = start._replace(
        phase=int(state.cursor.phase),
        stream=int(state.step),
        log_offset=log.offset if log else None,
        log_hash=log.hash if log else None,
        phase_seconds=seconds,
        unreported=unreported,
    )
    metadata = {"config": to_json(config), "place": place._asdict()}
    checkpoint.save(saved, state, metadata, metrics)
