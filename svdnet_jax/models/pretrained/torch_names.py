"""Networks of PyTorch in our names and layouts: torchvision's and timm's ResNets. Arrays only, no files."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from svdnet_jax.models.pretrained.convert import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Arrays,
    Pretrained,
    block_module,
    finish,
    hwio,
    is_norm,
    refuse_unknown,
)

LEAVES = MappingProxyType({"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"})
"""Our names of a BatchNorm's arrays, by PyTorch's."""


def from_torch(
    arrays: Mapping[str, np.ndarray],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    layouts: tuple[str, ...] = ("torchvision",),
) -> Pretrained:
    """Converts a ResNet in torchvision's names, which timm shares: ``layer1.0.conv1.weight`` (O, I, H, W).

    Args:
        arrays: The state dict.
        mean: What the network wants subtracted from RGB in [0, 255].
        std: And then divided by.
        layouts: Graphs of ResNets in which it may have been trained.

    Raises:
        WeightsError: Names that a plain ResNet does not have.
    """
    leaves: Arrays = {}
    head: Arrays = {}
    unknown: list[str] = []
    for name, array in arrays.items():
        layer, _, weight = name.rpartition(".")
        module = _resnet_module(layer)
        if layer == "fc" and weight in ("weight", "bias"):
            head["kernel" if weight == "weight" else "bias"] = array.T
        elif module is not None and is_norm(module) and weight in LEAVES:
            leaves[f"{module}/{LEAVES[weight]}"] = array
        elif module is not None and not is_norm(module) and weight == "weight":
            leaves[f"{module}/kernel"] = hwio(name, array)
        elif module is None or not is_norm(module) or weight != "num_batches_tracked":
            unknown.append(name)
    refuse_unknown(unknown, "a plain torchvision or timm ResNet (no -D, SE, ResNeXt or V2 variant)")
    return finish(leaves, {}, head, mean, std, layouts, bgr=None)


def _resnet_module(layer: str) -> str | None:
    """Returns our module for a layer in torchvision's names."""
    if layer in ("conv1", "bn1"):
        return "stem" if layer == "conv1" else "bn_stem"
    if match := re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))", layer):
        stage, block, kind, part, shortcut = match.groups()
        return block_module(kind == "bn" or shortcut == "1", int(stage) + 1, int(block) + 1, int(part or 0))
    return None
