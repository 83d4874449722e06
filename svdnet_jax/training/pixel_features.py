"""The network at rest, before it averages over pixels: features of each pixel whose mean is the embedding."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PyTree, UInt8

from svdnet_jax.data.batches import resize
from svdnet_jax.models.svdnet import SVDNet

PixelFn = Callable[[PyTree[Array], UInt8[np.ndarray, "N h w 3"] | Float32[np.ndarray, "N h w 3"]], Mapping[str, Any]]
"""From variables and RGB in [0, 255] to pixel features (N, h, w, C or D) by embedding, ``embedding`` and ``pooled``."""


def make_pixel_fn(model: SVDNet, size: tuple[int, int]) -> PixelFn:
    """Returns the jitted network up to its last feature map, with neck and Eigenlayer applied to each pixel.

    Both are affine, so the mean over pixels is the embedding; `svdnet_jax.retrieval.pixel_parts` says what follows.
    A backbone that gives features without a place has one pixel.

    Args:
        model: The network.
        size: Height and width that it sees.
    """

    def look(variables: Any, images: Array) -> dict[str, Float[Array, "N h w D"]]:
        _, kept = model.apply(variables, resize(images, size), train=False, mutable=["intermediates"])
        pooled = kept["intermediates"]["maps"][0]
        if model.neck:
            neck = nn.BatchNorm(use_running_average=True, epsilon=1e-5, use_bias=False)
            stored = {"params": variables["params"]["neck"], "batch_stats": variables["batch_stats"]["neck"]}
            pooled = neck.apply(stored, pooled)
        embedding = pooled
        if model.embedding_dim:
            W = variables["params"]["eigenlayer"]["kernel"]
            embedding = jnp.einsum("nhwc,cd->nhwd", pooled, W, precision=jax.lax.Precision.HIGHEST)
        return {"embedding": embedding, "pooled": pooled}

    return jax.jit(look)
