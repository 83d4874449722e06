"""Evaluates a model at the borders of phases: training loss, S(W), retrieval by both embeddings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import Eval
from svdnet_jax.data.types import Dataset, Split, labels
from svdnet_jax.errors import TrainingDiverged
from svdnet_jax.models.svdnet import Outputs
from svdnet_jax.retrieval.embed import apply_in_batches
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.results import Report
from svdnet_jax.training.eval_fn import EvalFn
from svdnet_jax.training.state import TrainState

UNKNOWN: Mapping[str, str] = MappingProxyType({})
"""No fingerprints: embeddings that are looked at and not kept."""


@dataclass(frozen=True, eq=False)
class EvalResult:
    """One look at a model, with dropout and augmentation off."""

    loss: float
    """Mean softmax loss on training images, in nats; log(K) is chance."""
    accuracy: float
    """Share of those images given their own identity."""
    correlation: float
    """S(W)."""
    spectrum: Float[np.ndarray, " D"]
    """Singular values of W."""
    embedding: Report
    """Retrieval by the Eigenlayer's output."""
    pooled: Report
    """Retrieval by the Eigenlayer's input."""


def evaluate_model(state: TrainState, *, infer: EvalFn, dataset: Dataset, settings: Eval) -> EvalResult:
    """Measures a model on (a part of) the training set, the queries and the gallery.

    Raises:
        TrainingDiverged: The loss on the training images is not finite.
    """
    apply = partial(infer, state.variables)
    # Spread evenly: file names are sorted by identity, so the first ones would be few identities.
    count = min(len(dataset.train), settings.train_images)
    some = np.linspace(0, len(dataset.train) - 1, count).astype(int)
    logits = apply_in_batches(apply, dataset.train.images[some], settings.batch_size).logits
    loss, accuracy = _fit(logits, labels(dataset.train.pids)[0][some])
    if not np.isfinite(loss):
        raise TrainingDiverged(
            f"the loss on training images is {loss} after step {int(state.step)}: training diverged. "
            "Lower the learning rate and start in another `out`; log and checkpoints are intact"
        )
    query, gallery = (embed_split(apply, split, settings) for split in (dataset.query, dataset.gallery))
    reports = {
        name: evaluate(query[name], gallery[name], metric=settings.metric, cross_camera=settings.cross_camera)
        for name in ("embedding", "pooled")
    }
    return EvalResult(
        loss=loss,
        accuracy=accuracy,
        correlation=float(eigenlayer.correlation(state.eigenlayer)),
        spectrum=np.asarray(eigenlayer.spectrum(state.eigenlayer)),
        **reports,
    )


def embed_split(
    apply: Any,
    split: Split,
    settings: Eval,
    advance: Callable[[int], None] = lambda _: None,
    models: Mapping[str, str] = UNKNOWN,
) -> dict[str, Embeddings]:
    """Computes both embeddings of a split, ``embedding`` (N, D) and ``pooled`` (N, C).

    Args:
        apply: The network at rest, from images to `Outputs`.
        split: The images.
        settings: Of the evaluation.
        advance: Told how many images more are on their way.
        models: `fingerprints` of the network, where the embeddings are to be kept.
    """
    outputs: Outputs = apply_in_batches(apply, split.images, settings.batch_size, advance)
    return {
        name: Embeddings(getattr(outputs, name), split.pids, split.cameras, split.names, models.get(name, ""))
        for name in ("embedding", "pooled")
    }


def _fit(logits: Float[np.ndarray, "N K"], classes: Int[np.ndarray, " N"]) -> tuple[float, float]:
    """Computes mean softmax loss and accuracy."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    own = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
    loss = np.log(np.exp(scores).sum(axis=1)) - own
    return float(loss.mean()), float((scores.argmax(axis=1) == classes).mean())
