"""Checks of `train_step` at trace time: inputs that would silently train something else.

All of it is told from types and shapes, so that it costs nothing in a compiled step. What only values tell, such as a
label beyond the last class, shows as a loss that is NaN.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def check_images(images: Array | np.ndarray) -> None:
    """Refuses images that are no RGB bytes (N, H, W, 3).

    Raises:
        ValueError: Says how to make such images of them.
    """
    shape, dtype = np.shape(images), np.dtype(getattr(images, "dtype", type(images)))
    if len(shape) != 4 or shape[3] != 3:
        hint = ""
        if len(shape) == 4 and shape[1] == 3:
            hint = ". These have their channels first: give images.transpose(0, 2, 3, 1)"
        elif len(shape) == 4 and shape[3] == 1:
            hint = ". Grey ones are to be repeated: np.repeat(images, 3, axis=3)"
        raise ValueError(f"expected images (N, height, width, 3), found the shape {shape}{hint}")
    if dtype != np.uint8:
        raise ValueError(
            f"expected images as uint8, RGB in 0 .. 255; found {dtype.name}. Images in [0, 1] are to be multiplied by "
            "255 and rounded first: np.round(255 * images).astype(np.uint8). The network subtracts its own mean"
        )


def check_labels(labels: Array | np.ndarray, images: Array | np.ndarray) -> None:
    """Refuses labels that are no whole numbers, one an image.

    Raises:
        ValueError: Says what was found.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"expected labels as whole numbers 0 .. K-1, one for each of {images.shape[0]} images; found "
            f"{labels.dtype} of shape {labels.shape}"
        )


def check_grad_accum(size: int, parts: int, together: int) -> None:
    """Refuses a batch that cannot be divided into parts of whole identities.

    Raises:
        ValueError: Says what its size must be a multiple of.
    """
    unit = parts * together if parts > 1 else 1
    if size % unit:
        raise ValueError(
            f"a batch of {size} images cannot go through the network in {parts} parts of {together} images of an "
            f"identity; its size on each device must be a multiple of {unit}"
        )


def check_loss(loss: Array) -> None:
    """Refuses a loss that is no scalar of a float type.

    Raises:
        ValueError: Says what was found.
    """
    if np.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise ValueError(
            f"loss_fn returned {jnp.result_type(loss)} of shape {np.shape(loss)}; expected one float: take the mean "
            "over the images"
        )


def require_sync_batch_norm(axis: str | None) -> AbstractContextManager[Any]:
    """Refuses, within it, a BatchNorm that takes statistics of one device's images alone.

    Raises:
        ValueError: When such a BatchNorm is called; names it and says what to do.
    """
    if axis is None:
        return nullcontext()

    def look(call: Callable[..., Any], args: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            resting = options.get("use_running_average", layer.use_running_average)
            if not resting and layer.axis_name != axis:
                raise ValueError(
                    f"BatchNorm {'/'.join(layer.path)} takes the statistics of one device's images, where the step is "
                    f"mapped over {axis!r}: its axis_name is {layer.axis_name!r}. Give the backbone a field axis_name, "
                    "hand it to each BatchNorm, and the network through "
                    "svdnet_jax.models.svdnet.with_sync_batch_norm; or train without an axis, by jit over a mesh "
                    "(`parallel` auto)"
                )
        return call(*args, **options)

    return nn.intercept_methods(look)
