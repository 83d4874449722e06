"""Evaluates a model at the borders of phases: training loss, S(W), retrieval by both embeddings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32, Int

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import Eval
from svdnet_jax.data.types import Dataset, Split, labels
from svdnet_jax.errors import FeatureError, TrainingDiverged
from svdnet_jax.models.svdnet import Outputs
from svdnet_jax.retrieval.embed import apply_in_batches
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.intervals import ByIdentity, sum_by_identity
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.people import NUMBERS, People
from svdnet_jax.retrieval.results import Report
from svdnet_jax.training.embedding import EvalFn
from svdnet_jax.training.state import TrainState

UNKNOWN: Mapping[str, str] = MappingProxyType({})
"""No fingerprints: embeddings that are looked at and not kept."""


@dataclass(frozen=True, eq=False)
class Features:
    """What the network computes of images: enough to evaluate it again with another W."""

    train: Float32[np.ndarray, "N C"]
    """The Eigenlayer's input, of the training images that give loss and accuracy."""
    query: Mapping[str, Embeddings]
    """Both embeddings, by name."""
    gallery: Mapping[str, Embeddings]


@dataclass(frozen=True, eq=False)
class EvalResult:
    """One look at a model, with dropout and augmentation off."""

    loss: float
    """Mean softmax loss on training images, in nats; log(K) is chance."""
    accuracy: float
    """Share of those images given their own identity."""
    correlation: float
    """S(W)."""
    embedding: Report
    """Retrieval by the Eigenlayer's output."""
    pooled: Report
    """Retrieval by the Eigenlayer's input."""
    features: Features
    others: Mapping[str, Mapping[str, Report]] = field(default_factory=dict)
    """Retrieval on further test sets by each embedding, by the set's name; of a model with another W none."""


def evaluate_model(
    state: TrainState, *, infer: EvalFn, dataset: Dataset, settings: Eval, before: EvalResult | None = None
) -> EvalResult:
    """Measures a model on (a part of) the training set, the queries and the gallery.

    Args:
        state: Weights of the model.
        infer: The network at rest.
        dataset: What it is measured on.
        settings: Of the evaluation.
        before: Of the same model with another W, and another classifier perhaps. Its features are taken, and the
            images are not embedded again: the backbone is the same.

    Raises:
        TrainingDiverged: The loss on the training images is not finite, or features of test images cannot be ranked.
    """
    try:
        return _evaluated(state, infer, dataset, settings, before)
    except FeatureError as error:
        # The loss may be finite where test images are out of range, or where all features are zero.
        raise TrainingDiverged(
            f"after step {int(state.step)} the network gives features that cannot be ranked: {error} Training "
            f"diverged. {_REMEDY}"
        ) from error


_REMEDY = "Lower the learning rate and start in another `out`; log and checkpoints are intact"


def _evaluated(
    state: TrainState, infer: EvalFn, dataset: Dataset, settings: Eval, before: EvalResult | None
) -> EvalResult:
    some = _sample(len(dataset.train), settings.train_images)
    apply = partial(infer, state.variables)
    if before:
        trained = before.features.train
        logits = _classify(trained, state)
    else:
        outputs: Any = apply_in_batches(apply, dataset.train.images[some], settings.batch_size)
        trained, logits = outputs.pooled, outputs.logits
    loss, accuracy = _fit(logits, labels(dataset.train.pids)[0][some])
    if not np.isfinite(loss):
        raise TrainingDiverged(
            f"the loss on training images is {loss} after step {int(state.step)}: training diverged. {_REMEDY}"
        )

    if before:
        W, old = np.asarray(state.eigenlayer), before.features
        query, gallery = (_with_eigenlayer(sides, W) for sides in (old.query, old.gallery))
    else:
        query, gallery = (
            embed_split(apply, split, settings, people=dataset.people) for split in (dataset.query, dataset.gallery)
        )

    measured = partial(_measured, settings, query, gallery)
    return EvalResult(
        loss=loss,
        accuracy=accuracy,
        correlation=float(eigenlayer.correlation(state.eigenlayer)),
        embedding=measured("embedding"),
        pooled=before.pooled if before else measured("pooled"),
        features=Features(trained, query, gallery),
        others={} if before else {other.name: _on_other(apply, other, settings) for other in dataset.others},
    )


def _measured(settings: Eval, query: Mapping[str, Embeddings], gallery: Mapping[str, Embeddings], name: str) -> Report:
    return evaluate(query[name], gallery[name], metric=settings.metric, cross_camera=settings.cross_camera)


def _on_other(apply: Any, other: Dataset, settings: Eval) -> dict[str, Report]:
    """Returns retrieval on a further test set, by each embedding."""
    query, gallery = (embed_split(apply, split, settings) for split in (other.query, other.gallery))
    return {name: _measured(settings, query, gallery, name) for name in query}


def _sample(images: int, most: int) -> Int[np.ndarray, " n"]:
    """Returns rows of training images, evenly spread: names are sorted by identity, so the first are few people."""
    return np.linspace(0, images - 1, min(images, most)).astype(int)


def _classify(pooled: Float32[np.ndarray, "N C"], state: TrainState) -> Float32[np.ndarray, "N K"]:
    """Returns the logits that the layers above the backbone give."""
    classifier = jax.device_get(state.params["classifier"])
    logits: np.ndarray = pooled @ np.asarray(state.eigenlayer) @ classifier["kernel"]
    return logits + classifier.get("bias", np.float32(0))


def _with_eigenlayer(sides: Mapping[str, Embeddings], W: Float32[np.ndarray, "C D"]) -> dict[str, Embeddings]:
    """Returns both embeddings, the output of the Eigenlayer by another W."""
    return {**sides, "embedding": replace(sides["embedding"], features=sides["pooled"].features @ W)}


def embed_split(
    apply: Any,
    split: Split,
    settings: Eval,
    advance: Callable[[int], None] = lambda _: None,
    models: Mapping[str, str] = UNKNOWN,
    people: People = NUMBERS,
) -> dict[str, Embeddings]:
    """Computes both embeddings of a split, ``embedding`` (N, D) and ``pooled`` (N, C).

    Args:
        apply: The network at rest, from images to `Outputs`.
        split: The images.
        settings: Of the evaluation.
        advance: Told how many images more are on their way.
        models: `fingerprints` of the network, where the embeddings are to be kept.
        people: What identities are called that are texts.
    """
    outputs: Outputs = apply_in_batches(apply, split.images, settings.batch_size, advance)
    return {
        name: Embeddings(getattr(outputs, name), split.pids, split.cameras, split.names, models.get(name, ""), people)
        for name in ("embedding", "pooled")
    }


def by_identity(evaluation: EvalResult) -> dict[str, ByIdentity]:
    """Returns retrieval by each embedding, summed over the queries of each identity."""
    reports = {"embedding": evaluation.embedding, "pooled": evaluation.pooled}
    return {name: sum_by_identity(each, evaluation.features.query[name].pids) for name, each in reports.items()}


def _fit(logits: Float[np.ndarray, "N K"], classes: Int[np.ndarray, " N"]) -> tuple[float, float]:
    """Computes mean softmax loss and accuracy."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    own = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
    loss = np.log(np.exp(scores).sum(axis=1)) - own
    return float(loss.mean()), float((scores.argmax(axis=1) == classes).mean())
