"""The softmax loss of the paper (section 3.1), with label smoothing."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def softmax(logits: Float[Array, "N K"], labels: Int[Array, " N"], smoothing: float = 0.0) -> Float[Array, ""]:
    """Computes the mean cross-entropy of the softmax, in nats.

    Args:
        logits: Of each identity.
        labels: The right identities, 0 .. K-1. With any other the loss is NaN.
        smoothing: Share of the target that is spread evenly over all K identities, the right one among them
            (Szegedy et al. 2016, section 7).

    Examples:
        >>> print(softmax(jnp.zeros((1, 2)), jnp.array([0])))  # chance between two: ln 2
        0.6931472
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype), smoothing)
    loss = optax.softmax_cross_entropy(logits, targets).mean()
    # Such a label has no target, and would pass for an image that is no error at all.
    known = jnp.all((labels >= 0) & (labels < logits.shape[1]))
    return jnp.where(known, loss, jnp.full_like(loss, jnp.nan))
