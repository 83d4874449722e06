"""What training minimizes.

A loss is a function of what the network computes for a batch:

    loss_fn(outputs, labels, params, maps) -> scalar

``outputs`` are the network's `Outputs` for the images of a step, ``labels`` their classes 0 .. K-1, ``params`` all of
its parameters, for losses on a weight such as W, and ``maps`` (N, h, w, C) the backbone's last feature map. A loss of
your own is any such function; `make_loss_fn` makes the one of the settings.
"""

from collections.abc import Callable

from jaxtyping import Array, Float, Int, PyTree

from svdnet_jax.config.schema import Loss
from svdnet_jax.models.svdnet import Outputs
from svdnet_jax.training.losses.orthogonality import feature_penalty as feature_penalty
from svdnet_jax.training.losses.orthogonality import weight_penalty as weight_penalty
from svdnet_jax.training.losses.softmax import softmax as softmax
from svdnet_jax.training.losses.triplet import batch_hard_triplet as batch_hard_triplet

LossFn = Callable[[Outputs, Int[Array, " N"], PyTree[Array], Float[Array, "N h w C"]], Float[Array, ""]]


def softmax_loss(
    outputs: Outputs, labels: Int[Array, " N"], params: PyTree[Array], maps: Float[Array, "N h w C"]
) -> Float[Array, ""]:
    """Computes the softmax loss alone, as the paper trains.

    Args:
        outputs: Of the network; only the logits count.
        labels: The right classes, 0 .. K-1.
        params: Not looked at.
        maps: Not looked at.
    """
    return softmax(outputs.logits, labels)


def make_loss_fn(settings: Loss, axis_name: str | None = None) -> LossFn:
    """Returns the loss of the settings: softmax, with triplets and penalties if wanted.

    Args:
        settings: Which parts, and their weights.
        axis_name: Axis that the step is mapped over, whose devices hold the batch together.
    """

    def loss_fn(
        outputs: Outputs, labels: Int[Array, " N"], params: PyTree[Array], maps: Float[Array, "N h w C"]
    ) -> Float[Array, ""]:
        total = softmax(outputs.logits, labels, settings.label_smoothing)
        if settings.triplet != "none":
            margin = settings.margin if settings.triplet == "margin" else None
            total += batch_hard_triplet(outputs.features, labels, margin, axis_name)
        if settings.penalty.kind != "none":
            total += weight_penalty(params["eigenlayer"]["kernel"], settings.penalty)
        if settings.penalty.features:
            total += feature_penalty(maps, settings.penalty)
        return total

    return loss_fn
