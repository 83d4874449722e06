"""Networks of PyTorch in our names and layouts: torchvision's ResNets, IBN-a, torchreid's OSNets. No files."""

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

Triple = tuple[float, float, float]

LEAVES = MappingProxyType({"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"})
"""Our names of a BatchNorm's arrays, by PyTorch's."""


def from_torch(
    arrays: Mapping[str, np.ndarray],
    mean: Triple = IMAGENET_MEAN,
    std: Triple = IMAGENET_STD,
    layouts: tuple[str, ...] = ("torchvision",),
) -> Pretrained:
    """Converts a ResNet in torchvision's names, which timm shares, or an OSNet in torchreid's.

    Args:
        arrays: The state dict: ``layer1.0.conv1.weight`` (O, I, H, W), or ``conv2.0.conv1.conv.weight``.
        mean: What the network wants subtracted from RGB in [0, 255].
        std: And then divided by.
        layouts: Graphs of ResNets in which it may have been trained.

    Raises:
        WeightsError: Names that neither has.
    """
    if "conv1.conv.weight" in arrays:
        return _from_osnet(arrays, mean, std)
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
    refuse_unknown(unknown, "a plain torchvision or timm ResNet (no -D, SE, ResNeXt, V2 or IBN-b variant)")
    return finish(leaves, {}, head, mean, std, layouts, bgr=None)


def _from_osnet(arrays: Mapping[str, np.ndarray], mean: Triple, std: Triple) -> Pretrained:
    leaves: Arrays = {}
    unknown: list[str] = []
    for name, array in arrays.items():
        layer, _, weight = name.rpartition(".")
        module = _osnet_module(layer)
        if module is not None and is_norm(module) and weight in LEAVES:
            leaves[f"{module}/{LEAVES[weight]}"] = array
        elif module is not None and "/gate/" in module and weight == "bias":
            leaves[f"{module}/bias"] = array
        elif module is not None and "/gate/" in module and weight == "weight":
            # A 1x1 convolution of one pixel is a layer of a dense network.
            leaves[f"{module}/kernel"] = hwio(name, array).reshape(-1, len(array))
        elif module is not None and not is_norm(module) and weight == "weight":
            leaves[f"{module}/kernel"] = hwio(name, array)
        elif module is None or not is_norm(module) or weight != "num_batches_tracked":
            unknown.append(name)
    refuse_unknown(unknown, "an OSNet of torchreid (without IBN and not AIN)")
    return finish(leaves, {}, {}, mean, std, (), bgr=None)


def _osnet_module(layer: str) -> str | None:
    """Returns our module for a layer in torchreid's names; its conv2 to conv4 are stages, and conv5 ends the last."""
    bn = "bn_" if layer.endswith(".bn") else ""
    if layer in ("conv1.conv", "conv1.bn", "conv5.conv", "conv5.bn"):
        return bn + ("stem" if layer[4] == "1" else "stage3_end")
    if match := re.fullmatch(r"conv([23])\.2\.0\.(?:conv|bn)", layer):
        return f"{bn}stage{int(match[1]) - 1}_end"
    if not (match := re.fullmatch(r"conv([234])\.([01])\.(.+)", layer)):
        return None
    block, rest = f"stage{int(match[1]) - 1}_block{int(match[2]) + 1}", match[3]
    if part := re.fullmatch(r"(?:conv([13])|downsample)\.(?:conv|bn)", rest):
        return f"{block}/{bn.rstrip('_') or 'conv'}{part[1]}" if part[1] else f"{block}/{bn}shortcut"
    if part := re.fullmatch(r"gate\.(fc[12])", rest):
        return f"{block}/gate/{part[1]}"
    # The first stream has one light convolution, which has no number.
    if part := re.fullmatch(r"conv2(?:a|([b-d])\.([0-3]))\.(conv1|conv2|bn)", rest):
        stream = f"stream{'abcd'.index(part[1] or 'a') + 1}_{int(part[2] or 0) + 1}"
        return f"{block}/{stream}/{ {'conv1': 'pointwise', 'conv2': 'depthwise', 'bn': 'bn'}[part[3]] }"
    return None


def _resnet_module(layer: str) -> str | None:
    """Returns our module for a layer in torchvision's names, and in XingangPan's of IBN-a's halves."""
    # The first convolution's channels have InstanceNorm, the others BatchNorm.
    if match := re.fullmatch(r"layer([1-4])\.(\d+)\.bn1\.(IN|BN)", layer):
        stage, block, kind = match.groups()
        return f"stage{stage}_block{int(block) + 1}/{'in1' if kind == 'IN' else 'bn1'}"
    if layer in ("conv1", "bn1"):
        return "stem" if layer == "conv1" else "bn_stem"
    if match := re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))", layer):
        stage, block, kind, part, shortcut = match.groups()
        return block_module(kind == "bn" or shortcut == "1", int(stage) + 1, int(block) + 1, int(part or 0))
    return None
