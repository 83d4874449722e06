"""The triplet loss on the hardest pairs of a batch."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def batch_hard_triplet(
    features: Float[Array, "N C"], labels: Int[Array, " N"], margin: float | None, axis: str | None = None
) -> Float[Array, ""]:
    """Computes the triplet loss on the hardest pairs of a batch (Hermans et al. 2017, equation 5).

    Each image is an anchor: its farthest image of the same identity, itself apart, should be nearer than its nearest
    image of another one. Anchors that lack either in this batch are left out of the mean; without any the loss is 0.
    (The strong baseline counts the anchor itself as a positive. That never decides anything unless an identity has
    one image in the batch: there it would make a positive at distance 0.)

    Args:
        features: Compared by Euclidean distance, not normalised.
        labels: Identities.
        margin: By how much nearer, in the unit of the distance. None: the soft margin, log(1 + exp(difference)).
        axis: Mapped axis whose devices hold the batch together. Each one's images are anchors there, and the mean over
            the devices is the loss of the batch.
    """
    everyone = jax.lax.all_gather(features, axis, tiled=True) if axis else features
    names = jax.lax.all_gather(labels, axis, tiled=True) if axis else labels
    first = jax.lax.axis_index(axis) * len(labels) if axis else 0
    same = labels[:, None] == names[None, :]
    oneself = jnp.arange(len(labels))[:, None] + first == jnp.arange(len(names))[None, :]
    positive = same & ~oneself
    squared = _squared_distances(jax.lax.stop_gradient(features), jax.lax.stop_gradient(everyone))
    farthest = jnp.argmax(jnp.where(positive, squared, -jnp.ones_like(squared)), axis=1)
    nearest = jnp.argmin(jnp.where(same, jnp.full_like(squared, jnp.inf), squared), axis=1)
    # Safe: two equal features have a gradient of 0, where that of the square root is infinite.
    to_positive = optax.safe_norm(features - everyone[farthest], 0.0, axis=1)
    difference = to_positive - optax.safe_norm(features - everyone[nearest], 0.0, axis=1)
    losses = jax.nn.softplus(difference) if margin is None else jax.nn.relu(difference + margin)
    counted = (jnp.any(positive, axis=1) & jnp.any(~same, axis=1)).astype(losses.dtype)
    anchors = jax.lax.pmean(jnp.sum(counted), axis) if axis else jnp.sum(counted)
    # A mean over devices may be a fraction of an anchor.
    return jnp.sum(losses * counted) / jnp.where(anchors > 0, anchors, jnp.ones_like(anchors))


def _squared_distances(features: Float[Array, "N C"], others: Float[Array, "M C"]) -> Float[Array, "N M"]:
    """Computes squared distances of all pairs, good enough to choose by; those chosen are measured again."""
    # The mean is in no distance, and in |x|^2 + |y|^2 - 2 x.y it costs digits. HIGHEST: no TF32 or bfloat16.
    middle = others.mean(axis=0, keepdims=True)
    features, others = features - middle, others - middle
    product = jnp.matmul(features, others.T, precision=jax.lax.Precision.HIGHEST)
    lengths = jnp.sum(features**2, axis=1)[:, None] + jnp.sum(others**2, axis=1)[None, :]
    return jnp.maximum(lengths - 2 * product, 0)
