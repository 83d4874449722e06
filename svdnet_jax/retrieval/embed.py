"""Runs a network over many images, a fixed number at a time."""

from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, PyTree, UInt8


def apply_in_batches(
    infer: Callable[[Any], PyTree[jax.Array]],
    images: UInt8[np.ndarray, "N H W 3"] | Float32[np.ndarray, "N H W 3"],
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> PyTree[np.ndarray]:
    """Returns what ``infer`` makes of all images, gathered in host memory.

    The last batch is filled up with zeros and cut again, so one program serves any number of images.

    Args:
        infer: From images to arrays of one row an image.
        images: Decoded images; as numbers, where they have the network's size already.
        batch_size: Images at a time (B).
        advance: Told how many images more are on their way.

    Returns:
        The tree that ``infer`` gives, with N rows in each array.
    """
    waiting: deque[PyTree[jax.Array]] = deque()
    parts = []
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        missing = batch_size - len(chunk)
        filled = np.concatenate([chunk, np.zeros((missing, *chunk.shape[1:]), chunk.dtype)]) if missing else chunk
        waiting.append(infer(filled))
        # Fetched two chunks late: the device works while the host slices, and holds three chunks at most.
        if len(waiting) > 2:
            parts.append(jax.device_get(waiting.popleft()))
        advance(len(chunk))
    parts += jax.device_get(list(waiting))
    return jax.tree.map(lambda *rows: np.concatenate(rows)[: len(images)], *parts)
