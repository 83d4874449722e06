"""Published ImageNet weights in our names and layouts: Keras and Caffe, and what `torch_names` shares. No files.

Our networks have no bias in a convolution and one epsilon in every BatchNorm; what others have besides is folded into
the statistics, which leaves the network's output as it was: ``mean - bias`` and ``var + epsilon - EPSILON``. They
take RGB; where the weights expect BGR, the first convolution's input channels are turned round.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from svdnet_jax.errors import WeightsError

Arrays = dict[str, np.ndarray]

EPSILON = 1e-5
"""Of every BatchNorm of ours."""
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""255 x (0.485, 0.456, 0.406) and 255 x (0.229, 0.224, 0.225), as in torchvision."""
# keras_applications/imagenet_utils.py, mode "caffe", there in the order BGR; no division.
CAFFE_MEAN, CAFFE_STD = (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)
# Keras' default in resnet50.py, and what resnet_common.py sets. The published ResNet-50 has the same numbers for both;
# they are Caffe's, trained with 1e-5.
OLD_KERAS_EPSILON, NEW_KERAS_EPSILON = 1e-3, 1.001e-5

KERAS_LEAVES = MappingProxyType({"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"})
# Blocks of each stage, and whether they are bottlenecks (He et al. 2016, table 1).
NETWORKS = MappingProxyType(
    {
        (2, 2, 2, 2, False): "ResNet-18",
        (3, 4, 6, 3, False): "ResNet-34",
        (3, 4, 6, 3, True): "ResNet-50",
        (3, 4, 23, 3, True): "ResNet-101",
        (3, 8, 36, 3, True): "ResNet-152",
    }
)


class Pretrained(NamedTuple):
    """Weights of a backbone in our names, and how its input is normalised."""

    params: dict[str, np.ndarray]
    """Parameters by path within the backbone, such as ``stem/kernel``."""
    batch_stats: dict[str, np.ndarray]
    """Statistics of BatchNorm by path, such as ``bn_stem/mean``."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 255] ..."""
    std: tuple[float, float, float]
    """... and then divided by."""
    head: dict[str, np.ndarray] | None
    """The layers behind the feature, left out on purpose: ImageNet's classifier ``kernel`` (C, 1000) and ``bias``."""
    source: str
    """What it was, for the log: name of the file and a short hash of the arrays."""
    layouts: tuple[str, ...] = ()
    """Layouts of `ResNet` in which the weights mean something, best first; empty: there is only one."""
    eigenlayer: dict[str, np.ndarray] | None = None
    """Of a run, where they are to go along: Eigenlayer and neck by path in the variables, such as
    ``params/eigenlayer/kernel``."""
    note: str = ""
    """What was taken off the names and left out of the file, for the user; empty: nothing."""


def from_keras(arrays: Mapping[str, np.ndarray], epsilons: Mapping[str, float]) -> Pretrained:
    """Converts ResNet-50, 101 or 152 of Keras applications, in either generation of names.

    Args:
        arrays: Weights by layer and name, such as ``res2a_branch2a/kernel`` or ``conv2_block1_1_conv/kernel``.
        epsilons: Of BatchNorm layers by name; layers without one have the default of their generation.

    Raises:
        WeightsError: Weights of no layer of these networks, or a bias that fits no BatchNorm.
    """
    leaves: Arrays = {}
    head: Arrays = {}
    eps: dict[str, float] = {}
    unknown: list[str] = []
    for name, array in arrays.items():
        layer, _, weight = name.rpartition("/")
        module = _module(layer)
        if re.fullmatch(r"fc\d+|predictions|probs", layer) and weight in ("kernel", "bias"):
            head[weight] = array
        elif module is not None and weight in (KERAS_LEAVES if is_norm(module) else ("kernel", "bias")):
            leaves[f"{module}/{KERAS_LEAVES.get(weight, weight)}"] = array
            default = NEW_KERAS_EPSILON if layer.endswith("_bn") else OLD_KERAS_EPSILON
            eps[module] = epsilons.get(layer, default)
        else:
            unknown.append(name)
    if any("preact" in name or name.startswith("post_bn") for name in unknown):
        raise WeightsError(
            "is a ResNet V2 (BatchNorm before the convolutions), another network than ours; "
            "take ResNet50 or ResNet101 of Keras applications, not ResNet50V2"
        )
    refuse_unknown(unknown, "a Keras ResNet-50, 101 or 152")
    return finish(leaves, eps, head, CAFFE_MEAN, CAFFE_STD, ("caffe", "keras"), bgr="stem/kernel")


def from_caffe(layers: Mapping[str, Sequence[np.ndarray]]) -> Pretrained:
    """Converts the paper's base models: He et al.'s ResNets and bvlc_reference_caffenet.

    Args:
        layers: The blobs of each layer that has any, by name: convolutions (O, I, H, W), BatchNorm with mean, var and
            the factor that divides both, Scale with gamma and beta, inner products (outputs, inputs).

    Raises:
        WeightsError: Layers of another network.
    """
    if "fc6" in layers:
        return _from_caffenet(layers)
    leaves: Arrays = {}
    head: Arrays = {}
    unknown: list[str] = []
    for name, blobs in layers.items():
        module = _module(re.sub("^scale", "bn", name))
        if re.fullmatch(r"fc\d+", name) and len(blobs) == 2:
            head = {"kernel": blobs[0].reshape(blobs[0].shape[-2:]).T, "bias": blobs[1].ravel()}
        elif module is None or len(blobs) not in {"bn": (3,), "sc": (2,)}.get(name[:2], (1, 2)):
            unknown.append(name)
        elif name.startswith("bn"):
            # Caffe keeps running sums; a factor of zero means that there are none yet (batch_norm_layer.cpp).
            factor = np.float32(1) / blobs[2].item() if blobs[2].item() else np.float32(0)
            leaves |= {f"{module}/mean": blobs[0].ravel() * factor, f"{module}/var": blobs[1].ravel() * factor}
        elif name.startswith("scale"):
            leaves |= {f"{module}/scale": blobs[0].ravel(), f"{module}/bias": blobs[1].ravel()}
        else:
            leaves[f"{module}/kernel"] = hwio(name, blobs[0])
            leaves |= {f"{module}/bias": blob.ravel() for blob in blobs[1:]}
    refuse_unknown(unknown, "a Caffe ResNet or CaffeNet")
    return finish(leaves, {}, head, CAFFE_MEAN, CAFFE_STD, ("caffe", "keras"), bgr="stem/kernel")


def _from_caffenet(layers: Mapping[str, Sequence[np.ndarray]]) -> Pretrained:
    leaves: Arrays = {}
    head: Arrays = {}
    unknown: list[str] = []
    for name, blobs in layers.items():
        if name not in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8") or len(blobs) != 2:
            unknown.append(name)
            continue
        kernel, bias = blobs[0], blobs[1].ravel()
        kernel = hwio(name, kernel) if name.startswith("conv") else kernel.reshape(kernel.shape[-2:])
        if name == "fc6":
            if kernel.shape[1] != 256 * 6 * 6:
                raise WeightsError(f"fc6 has {kernel.shape[1]} inputs; CaffeNet's has 9216 (256 x 6 x 6)")
            # Caffe flattens a feature map as channel, row, column; we as row, column, channel.
            kernel = kernel.reshape(-1, 256, 6, 6).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
        where = head if name in ("fc7", "fc8") else leaves
        where |= {f"{name}/kernel": kernel.T if name.startswith("fc") else kernel, f"{name}/bias": bias}
    refuse_unknown(unknown, "CaffeNet")
    # The means of imagenet_mean.binaryproto's channels, rounded as in Caffe's own examples.
    return finish(leaves, {}, head, (123.0, 117.0, 104.0), CAFFE_STD, (), bgr="conv1/kernel")


def describe(paths: Iterable[str]) -> str:
    """Returns the network that has such parameters, for messages: ``a ResNet-50``."""
    paths = set(paths)
    if "fc6/kernel" in paths:
        return "a CaffeNet"
    if "stage1_block1/gate/fc1/kernel" in paths:
        return "an OSNet"
    blocks = {match[1] for path in paths if (match := re.match(r"(stage\d+_block\d+)/", path))}
    counts = tuple(sum(block.startswith(f"stage{stage}_") for block in blocks) for stage in (1, 2, 3, 4))
    bottleneck = "stage1_block1/conv3/kernel" in paths
    if not blocks:
        return "no ResNet, OSNet or CaffeNet"
    kind = "bottleneck" if bottleneck else "basic"
    ibn = "-IBN-a" if "stage1_block1/in1/scale" in paths else ""
    return f"a {NETWORKS.get((*counts, bottleneck), f'ResNet of {counts} {kind} blocks')}{ibn}"


def _module(layer: str) -> str | None:
    """Returns our module for a layer in the names of Caffe or Keras."""
    stem = {"conv1": "stem", "bn_conv1": "bn_stem", "conv1_conv": "stem", "conv1_bn": "bn_stem"}
    if layer in stem:
        return stem[layer]
    if old := re.fullmatch(r"(res|bn)([2-5])(?:([a-z])|b(\d+))_branch(1|2[abc])", layer):
        kind, stage, letter, number, branch = old.groups()
        # a b c d ..., or in the deeper networks a b1 b2 b3 ...
        block = int(number) + 1 if number else ord(letter) - ord("a") + 1
        return block_module(kind == "bn", int(stage), block, ("1", "2a", "2b", "2c").index(branch))
    if new := re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", layer):
        stage, number, branch, kind = new.groups()
        return block_module(kind == "bn", int(stage), int(number), int(branch))
    return None


def block_module(norm: bool, stage: int, block: int, part: int) -> str:
    """Returns our module in a block; stages count from 2 and part 0 is the shortcut, as in Keras and Caffe."""
    name = (f"bn{part}" if norm else f"conv{part}") if part else ("bn_shortcut" if norm else "shortcut")
    return f"stage{stage - 1}_block{block}/{name}"


def is_norm(module: str) -> bool:
    """Returns whether a module of ours is a BatchNorm, or the InstanceNorm beside one."""
    return module.rpartition("/")[2].startswith(("bn", "in"))


def hwio(name: str, kernel: np.ndarray) -> np.ndarray:
    """Returns a convolution's kernel (O, I, H, W) in our order of axes."""
    if kernel.ndim != 4:
        raise WeightsError(f"{name} has shape {kernel.shape}; a convolution has four dimensions")
    return kernel.transpose(2, 3, 1, 0)


def refuse_unknown(unknown: Sequence[str], network: str) -> None:
    """Refuses weights that have no place.

    Raises:
        WeightsError: There are any; names some.
    """
    if unknown:
        raise WeightsError(f"holds {len(unknown)} weights that {network} does not have: {some(unknown)}")


def check_numbers(name: str, array: np.ndarray) -> None:
    """Refuses what are no weights.

    Raises:
        WeightsError: Integers, or NaN and infinity.
    """
    # NumPy by itself does not know that bfloat16 is one.
    if not jax.dtypes.issubdtype(array.dtype, np.floating):
        raise WeightsError(f"{name} must hold floating-point numbers; found {array.dtype}, as in quantised weights")
    if not np.isfinite(array).all():
        raise WeightsError(f"{name} must hold finite numbers; found NaN or infinity")


def some(names: Iterable[str], most: int = 4) -> str:
    """Returns the first names of many."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def finish(
    leaves: Mapping[str, np.ndarray],
    epsilons: Mapping[str, float],
    head: dict[str, np.ndarray],
    rgb_mean: tuple[float, float, float],
    rgb_std: tuple[float, float, float],
    layouts: tuple[str, ...],
    bgr: str | None,
) -> Pretrained:
    """Checks numbers, folds biases and epsilons, turns BGR into RGB, sorts by collection.

    Args:
        leaves: Weights by our paths.
        epsilons: Of BatchNorm modules by our path, where it is not `EPSILON`.
        head: What lies behind the feature.
        rgb_mean: Subtracted from RGB in [0, 255].
        rgb_std: And then divided by.
        layouts: Of `Pretrained`.
        bgr: Path of a kernel that expects BGR.

    Raises:
        WeightsError: Numbers that are no weights, or a bias that fits no BatchNorm.
    """
    for name, array in {**leaves, **head}.items():
        check_numbers(name, array)
    folded = {path: array.astype(np.float64) for path, array in leaves.items()}
    for path in leaves:
        module, _, leaf = path.rpartition("/")
        mean = re.sub(r"conv(\d)$|(stem|shortcut)$", lambda m: f"bn{m[1]}" if m[1] else f"bn_{m[2]}", module) + "/mean"
        if leaf == "bias" and not is_norm(module) and mean in leaves:
            if leaves[path].shape != leaves[mean].shape:
                raise WeightsError(f"{path} has shape {leaves[path].shape}, unlike the statistics of its BatchNorm")
            folded[mean] -= folded.pop(path)
        elif leaf == "var":
            folded[path] += epsilons.get(module, EPSILON) - EPSILON
    if bgr is not None and bgr in folded:
        folded[bgr] = folded[bgr][..., ::-1, :] if folded[bgr].ndim == 4 else folded[bgr]
    arrays = {path: np.ascontiguousarray(array, np.float32) for path, array in sorted(folded.items())}
    stats = {path: array for path, array in arrays.items() if path.endswith(("/mean", "/var"))}
    params = {path: array for path, array in arrays.items() if path not in stats}
    head = {name: np.ascontiguousarray(array, np.float32) for name, array in sorted(head.items())}
    return Pretrained(params, stats, rgb_mean, rgb_std, head or None, source="", layouts=layouts)
