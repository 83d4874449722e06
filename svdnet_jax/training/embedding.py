"""The network at rest: no dropout, no augmentation, stored statistics."""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, PyTree, UInt8

from svdnet_jax.data.batches import resize
from svdnet_jax.distributed.mesh import MeshContext
from svdnet_jax.models.svdnet import Outputs, SVDNet
from svdnet_jax.retrieval.embed import apply_in_batches as apply_in_batches
from svdnet_jax.training.checks import check_images
from svdnet_jax.training.state import TrainState

EvalFn = Callable[[PyTree[Array], UInt8[Array | np.ndarray, "N h w 3"]], Outputs]


def make_eval_fn(model: SVDNet, size: tuple[int, int], devices: MeshContext | None = None) -> EvalFn:
    """Returns the jitted network without dropout and augmentation, from variables and bytes to `Outputs`.

    It raises a ValueError where images are no bytes (N, h, w, 3).

    Args:
        model: The network.
        size: Height and width that it sees.
        devices: Share the images, a multiple of their number, among themselves, and each has all outputs. Not given:
            wherever the variables are.
    """

    def infer(variables: PyTree[Array], images: UInt8[Array, "N h w 3"]) -> Outputs:
        check_images(images)
        return cast(Outputs, model.apply(variables, resize(images, size), train=False))

    if devices is None:
        return jax.jit(infer)
    shared = jax.jit(infer, out_shardings=devices.replicated)
    return lambda variables, images: shared(variables, devices.rows(np.asarray(images)))


def make_eval_fn_resized(model: SVDNet) -> Callable[[PyTree[Array], Float[Array | np.ndarray, "N H W 3"]], Outputs]:
    """Returns the same for images that were brought to the network's size before: pixels in [0, 255], not rounded."""
    return jax.jit(lambda variables, pixels: cast(Outputs, model.apply(variables, pixels, train=False)))


def embed(
    model: SVDNet,
    state: TrainState,
    images: UInt8[np.ndarray, "N h w 3"],
    input_size: tuple[int, int],
    *,
    name: Literal["embedding", "pooled"] = "embedding",
    batch_size: int = 256,
) -> Float32[np.ndarray, "N D"]:
    """Returns the embeddings of images.

    Args:
        model: The network.
        state: Its weights.
        images: RGB bytes of any one size.
        input_size: Height and width that the network sees.
        name: ``embedding``, the output of the Eigenlayer, or ``pooled``, its input.
        batch_size: Images at a time.

    Raises:
        ValueError: Images are no bytes (N, h, w, 3), there are none, or there is no such embedding.
    """
    if name not in ("embedding", "pooled"):
        raise ValueError(f"name is {name!r}; expected 'embedding' or 'pooled'")
    check_images(images)
    if not len(images) or batch_size < 1:
        raise ValueError(f"expected one image or more and batch_size 1 or more, found {len(images)} and {batch_size}")
    apply = partial(_outputs, state.variables, model=model, size=input_size)
    return np.asarray(getattr(apply_in_batches(apply, images, min(batch_size, len(images))), name))


@partial(jax.jit, static_argnames=("model", "size"))
def _outputs(
    variables: PyTree[Array], images: UInt8[Array, "N h w 3"], *, model: SVDNet, size: tuple[int, int]
) -> Outputs:
    return cast(Outputs, model.apply(variables, resize(images, size), train=False))
