"""Resizes one image on the host, with the interpolation of the compiled network.

Images of one size reach the network as they are and are resized by `svdnet_jax.data.batches.resize`. Others come
here, one at a time and without compiling a program for each size. Both compute the same linear interpolation (with
antialiasing) in float32, so they agree to rounding, about 1e-6 of a value. Each image is resized by itself: what else
is in its folder does not matter.
"""

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.sparse import csr_array


def resize_image(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> Float32[np.ndarray, "H W 3"]:
    """Returns the image in height and width ``size``, in [0, 255] and not rounded."""
    (h, w, _), (height, width) = image.shape, size
    x = image.astype(np.float32)
    if h != height:
        x = (_weights(h, height) @ x.reshape(h, -1)).reshape(height, w, 3)
    if w != width:
        columns = x.transpose(1, 0, 2).reshape(w, -1)
        x = (_weights(w, width) @ columns).reshape(width, height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(x)


def resize_to_bytes(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the same rounded to whole numbers, as it is kept on disk."""
    return np.rint(resize_image(image, size)).astype(np.uint8)


def _weights(old: int, new: int) -> csr_array:
    """Returns the matrix (new, old) of linear interpolation; a triangle as wide as the step where it shrinks.

    Source: `jax.image.resize` with method "linear" and antialias, whose weights these are.
    """
    step = old / new
    reach = max(step, 1.0)
    centers = (np.arange(new) + 0.5) * step - 0.5
    first = np.floor(centers - reach).astype(np.int64)
    places = first[:, None] + np.arange(int(2 * reach) + 3)
    weights = np.maximum(0.0, 1.0 - np.abs(centers[:, None] - places) / reach)
    weights *= (places >= 0) & (places < old)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(new), places.shape[1])
    inside = weights.ravel() > 0
    entries = weights.ravel()[inside].astype(np.float32), (rows[inside], places.ravel()[inside])
    return csr_array(entries, shape=(new, old))
