"""What benchmarks.training measures: one kind of phase, size and type at a time, and its floating-point operations.

Imports neither JAX nor PyTorch, so that each contender's process holds its own framework only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Case:
    """A training step, in words that every contender understands."""

    kind: str
    """Of phase: base, restraint or relaxation."""
    height: int
    width: int
    dtype: str
    """What the backbone computes in, float32 or bfloat16."""
    batch: int
    platform: str
    """What it runs on, as JAX calls it: cpu, gpu or tpu."""
    freeze: tuple[str, ...]
    """Weights held fixed: shell patterns over paths, as in the preset."""
    doubled: tuple[str, ...]
    """Weights with twice the learning rate."""
    no_decay: tuple[str, ...]
    """Weights without decay."""
    momentum: float
    decay: float
    dim: int
    """Outputs of the Eigenlayer."""
    dropout: float
    flip: bool = True
    images: int = 512
    """In the store, of the size that the network sees: none is resized."""
    classes: int = 751
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """In the stages of the ResNet; these are ResNet-50's."""
    rate: float = 1e-5
    """Learning rate: small, so that random images and labels do no harm however long it is measured."""


STD = 64.0
"""Divides pixels after the mean image."""
LAST_SCALE = 0.2
"""Of the last BatchNorm of each block: neither zero as in a new network, which computing units like better than other
numbers, nor one, with which numbers grow from block to block as long as nothing normalises them."""


def is_frozen(case: Case, path: str) -> bool:
    """Whether a weight, such as ``backbone/stem/kernel``, is held fixed in this kind of phase."""
    return any(fnmatchcase(path, pattern) for pattern in case.freeze)


def random_images(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (N, H, W, 3) and class numbers (N,), the same in every process."""
    random = np.random.default_rng(0)
    images = random.integers(256, size=(case.images, case.height, case.width, 3), dtype=np.uint8)
    return images, random.permutation(case.images) % case.classes


class Layer(NamedTuple):
    """A convolution or matrix product, and the BatchNorm after it."""

    path: str
    norm: str | None
    flops: float
    """Forward, for one image; a multiplication and an addition are two."""
    enters: bool = False
    """It stands at the start of a block."""
    aside: bool = False
    """It is the shortcut, from the start of the block to its end."""


def step_flops(case: Case) -> float:
    """Floating-point operations of the convolutions and matrix products that a training step cannot do without.

    Each has its product forward, one for the gradient of its weights if they are trained, and one for the gradient of
    its input if anything before it is trained.
    """
    total, before, at_entry = 0.0, False, False
    for layer in _layers(case):
        at_entry = before if layer.enters else at_entry
        source = at_entry if layer.aside else before
        trained = not is_frozen(case, f"{layer.path}/kernel")
        total += layer.flops * (1 + trained + source)
        norm = layer.norm and not all(is_frozen(case, f"{layer.norm}/{name}") for name in ("scale", "bias"))
        before = bool(before or trained or norm)
    return case.batch * total


def _layers(case: Case) -> Iterator[Layer]:
    """Of the network in the authors' layout, in the order of the computation."""
    height, width = (case.height + 1) // 2, (case.width + 1) // 2
    yield Layer("backbone/stem", "backbone/bn_stem", 2 * 49 * 3 * 64 * height * width)
    # Caffe's pooling: windows of 3, two apart, the last of which may hang over.
    height, width = (-(-(side - 3) // 2) + 1 for side in (height, width))
    inputs = 64
    for stage, size in enumerate(case.blocks, start=1):
        outputs = 128 * 2**stage
        for block in range(1, size + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            height, width = (-(-side // stride) for side in (height, width))
            path, pixels, middle = f"backbone/stage{stage}_block{block}", height * width, outputs // 4
            yield Layer(f"{path}/conv1", f"{path}/bn1", 2 * inputs * middle * pixels, enters=True)
            yield Layer(f"{path}/conv2", f"{path}/bn2", 2 * 9 * middle**2 * pixels)
            yield Layer(f"{path}/conv3", f"{path}/bn3", 2 * middle * outputs * pixels)
            if block == 1:
                yield Layer(f"{path}/shortcut", f"{path}/bn_shortcut", 2 * inputs * outputs * pixels, aside=True)
            inputs = outputs
    yield Layer("eigenlayer", None, 2 * inputs * case.dim)
    yield Layer("classifier", None, 2 * case.dim * case.classes)
