"""Penalties that ask for orthogonal columns of W, or of feature maps; SVDNet is compared with them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.baselines.orthogonality import feature_spectral_difference, penalty
from svdnet_jax.config.schema import Penalty


def weight_penalty(W: Float[Array, "C D"], settings: Penalty) -> Float[Array, ""]:
    """Computes the penalty on the Eigenlayer's weight, times its weight; 0 where there is none."""
    if settings.kind == "none":
        return jnp.zeros((), W.dtype)
    return settings.weight * penalty(W, settings.kind, settings.scale)


def feature_penalty(maps: Float[Array, "N H W C"], settings: Penalty) -> Float[Array, ""]:
    """Computes ABD-Net's penalty on feature maps, mean over the images, times its weight."""
    return settings.features * feature_spectral_difference(maps.astype(jnp.float32))
