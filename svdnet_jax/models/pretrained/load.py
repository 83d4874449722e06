"""Loads pretrained weights from a file into a network: all arrays, or an error that lists those that do not fit."""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from svdnet_jax.errors import WeightsError
from svdnet_jax.models.pretrained.caffemodel import read_caffemodel
from svdnet_jax.models.pretrained.convert import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_numbers,
    describe,
    from_caffe,
    from_keras,
    some,
)
from svdnet_jax.models.pretrained.convert import Pretrained as Pretrained
from svdnet_jax.models.pretrained.readers import package, parsing, read_h5, read_safetensors, read_tfjs, read_torch
from svdnet_jax.models.pretrained.state_dict import find_backbone
from svdnet_jax.models.pretrained.torch_names import from_torch

COLLECTIONS = ("params", "batch_stats", "head")
PLAIN = re.compile(r"(resnet(18|34|50|101|152)(_ibn_a)?|osnet_x(1_0|0_75|0_5|0_25))(\..+)?")
"""timm's names of networks that we have, perhaps with a tag of who trained it: ``resnet50.tv_in1k``."""


def load_pretrained(spec: str) -> Pretrained:
    """Reads weights that others, or `write_pretrained`, published.

    Keras applications (``.h5``, or tfjs' ``model.json`` with its shards beside it), torchvision, timm and toolkits for
    re-identification (``.safetensors``, ``.pth``, ``.pth.tar-60``, ``.pt``, ``.ckpt``), Caffe (``.caffemodel``) and our
    own ``.safetensors``.

    Args:
        spec: Path of the file, or ``hf:owner/name`` or ``hf:owner/name:file`` for one on the Hugging Face hub, which
            is downloaded unless it is in the hub's cache (default file: model.safetensors).

    Raises:
        WeightsError: No such file, of no known kind, damaged, of another network, or a package is not installed.
    """
    try:
        path = _download(spec) if spec.startswith("hf:") else Path(spec).expanduser()
        weights = _read(path)
        if not all(map(math.isfinite, (*weights.mean, *weights.std))) or min(weights.std) <= 0:
            raise WeightsError(f"says that its input is normalised by mean {weights.mean} and std {weights.std}")
    except WeightsError as error:
        raise WeightsError(f"`model.weights` {spec}: {error}") from error
    name = spec if spec.startswith("hf:") else path.name
    return weights._replace(source=f"{name} {_fingerprint(weights)}")


def write_pretrained(path: Path, weights: Pretrained) -> None:
    """Writes weights as one ``.safetensors`` file that needs neither PyTorch nor h5py to be read again.

    Raises:
        WeightsError: The file's name does not end in ``.safetensors``, or the package safetensors is not installed.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: the file is to be named .safetensors")
    facts = {"mean": weights.mean, "std": weights.std, "layouts": weights.layouts}
    arrays = {f"{kind}/{name}": array for kind in COLLECTIONS for name, array in (getattr(weights, kind) or {}).items()}
    metadata = {key: json.dumps(value) for key, value in facts.items()}
    package("safetensors.numpy", "safetensors").save_file(arrays, path, metadata)


def with_pretrained(variables: Mapping[str, Any], weights: Pretrained) -> dict[str, Any]:
    """Returns the variables of an `SVDNet` with its backbone's replaced; each array keeps its type and devices.

    Args:
        variables: Collections ``params`` and, if the backbone has any, ``batch_stats``, each with ``backbone``.
        weights: What `load_pretrained` returned; its head is not used. Eigenlayer and neck are replaced too if it has
            them.

    Raises:
        WeightsError: The weights are not those of this network; all that differs is listed.
    """
    check_fit(variables, weights)
    changed = dict(variables)
    for kind in ("params", "batch_stats"):
        old = flatten_dict(variables.get(kind, {}).get("backbone", {}), sep="/")
        new = {path: _like(leaf, getattr(weights, kind)[path]) for path, leaf in old.items()}
        if new:
            changed[kind] = {**variables[kind], "backbone": unflatten_dict(new, sep="/")}
    old = flatten_dict(changed, sep="/")
    moved = {path: _like(old[path], array) for path, array in (weights.eigenlayer or {}).items()}
    return unflatten_dict({**old, **moved}, sep="/") if moved else changed


def check_fit(variables: Mapping[str, Any], weights: Pretrained) -> None:
    """Refuses weights of another backbone, or of another Eigenlayer or neck where they are to go along.

    Args:
        variables: As for `with_pretrained`, or their shapes.
        weights: What `load_pretrained` returned.

    Raises:
        WeightsError: Lists what is missing, left over, and of another shape.
    """
    old: dict[tuple[str, str], tuple[int, ...]] = {}
    new: dict[tuple[str, str], tuple[int, ...]] = {}
    for kind in ("params", "batch_stats"):
        tree = variables.get(kind, {}).get("backbone", {})
        old |= {(kind, path): leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
        new |= {(kind, path): leaf.shape for path, leaf in getattr(weights, kind).items()}
    problems = {
        "missing in the file": [path for _, path in old.keys() - new.keys()],
        "left over": [path for _, path in new.keys() - old.keys()],
        "of another shape": [
            f"{key[1]} {new[key]} for {old[key]}" for key in old.keys() & new.keys() if old[key] != new[key]
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(paths)} {what} ({some(paths)})" for what, paths in problems.items() if paths)
        here, there = describe(path for _, path in old), describe(weights.params)
        raise WeightsError(
            f"`model.weights` {weights.source}: holds {there} and does not fit `model.backbone`, {here}: {listed}. "
            "Choose the backbone, or for CaffeNet the size of the images, that the file was made for"
        )
    if weights.eigenlayer is None:
        return
    wanted = {path: leaf.shape for path, leaf in above_backbone(variables).items()}
    found = {path: array.shape for path, array in weights.eigenlayer.items()}
    if wanted != found:
        raise WeightsError(
            f"`model.keep_eigenlayer`: {weights.source}: {_above_words(found)}, here {_above_words(wanted)}; leave it "
            "out, or give the run's `model.embedding_dim` and `model.neck`"
        )


def above_backbone(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of Eigenlayer and neck by path, such as ``params/eigenlayer/kernel``."""
    leaves = flatten_dict({kind: variables.get(kind, {}) for kind in ("params", "batch_stats")}, sep="/")
    return {path: leaf for path, leaf in leaves.items() if path.split("/")[1] in ("eigenlayer", "neck")}


def _above_words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Returns what Eigenlayer and neck there are, for messages."""
    kernel = shapes.get("params/eigenlayer/kernel")
    size = f"an Eigenlayer {kernel}" if kernel else "no Eigenlayer"
    return f"{size} and {'a' if 'params/neck/scale' in shapes else 'no'} neck"


def _like(old: jax.Array, new: np.ndarray) -> jax.Array:
    """Returns the new numbers in the old array's type and place; one that JAX may still move stays so."""
    return jax.device_put(new.astype(old.dtype), old.sharding if old.committed else None)


def _fingerprint(weights: Pretrained) -> str:
    """Returns eight digits that differ where any number, shape or name differs."""
    digest = hashlib.blake2b(digest_size=4)
    for kind in COLLECTIONS:
        for name, array in sorted((getattr(weights, kind) or {}).items()):
            digest.update(f"{kind}/{name}{array.shape}".encode())
            digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _read(path: Path) -> Pretrained:
    """Chooses the reader by the name of the file."""
    if path.is_dir():
        raise WeightsError("is a folder; give the file in it, such as model.json or model.safetensors")
    if not path.exists():
        raise WeightsError("no such file")
    # torchreid names its files model.pth.tar-60, after the epoch.
    match PurePosixPath(re.sub(r"\.pth\.tar(-\d+)?$", ".pth", path.name.lower())).suffix:
        case ".json":
            return from_keras(*read_tfjs(path))
        case ".h5" | ".hdf5":
            return from_keras(*read_h5(path))
        case ".pth" | ".pt" | ".bin" | ".ckpt":
            return _from_state_dict(read_torch(path), path)
        case ".caffemodel":
            return from_caffe(read_caffemodel(path))
        case ".safetensors":
            arrays, metadata = read_safetensors(path)
            if any(name.startswith("params/") for name in arrays):
                with parsing(path):
                    return _ours(arrays, metadata)
            return _from_state_dict(arrays, path)
    raise WeightsError(
        f"{path.suffix or 'a name without an ending'} is no kind of file that can be read: "
        "known are .safetensors, .pth, .pth.tar, .pt, .ckpt, .h5, .caffemodel and tfjs' model.json"
    )


def _from_state_dict(arrays: Mapping[str, np.ndarray], path: Path) -> Pretrained:
    """Returns the backbone in a state dict of PyTorch."""
    backbone, published = find_backbone(arrays), _normalization(path)
    mean, std = backbone.pixels or published
    return from_torch(backbone.arrays, mean, std, backbone.layouts)._replace(note=backbone.note)


def _ours(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Pretrained:
    """Returns what `write_pretrained` wrote."""
    parts: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in COLLECTIONS}
    for name, array in arrays.items():
        kind, _, rest = name.partition("/")
        if kind not in parts:
            raise WeightsError(f"holds {name}, which is in none of {', '.join(COLLECTIONS)}")
        check_numbers(name, array)
        parts[kind][rest] = array
    if not {"mean", "std", "layouts"} <= metadata.keys():
        raise WeightsError("does not say how its input is normalised (metadata mean, std, layouts); convert it again")
    r, g, b = json.loads(metadata["mean"])
    x, y, z = json.loads(metadata["std"])
    layouts = tuple(json.loads(metadata["layouts"]))
    head = parts["head"] or None
    return Pretrained(parts["params"], parts["batch_stats"], (r, g, b), (x, y, z), head, source="", layouts=layouts)


def _normalization(path: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns the mean and standard deviation of RGB in [0, 255], from timm's config.json, else ImageNet's.

    It knows the network too, which weights need not tell: anti-aliased ones have the names and shapes of plain ones.
    """
    config = path.with_name("config.json")
    with parsing(config):
        content = json.loads(config.read_text("utf-8")) if config.exists() else {}
        network = content.get("architecture", "resnet50")
        if not PLAIN.fullmatch(network):
            raise WeightsError(
                f"is a {network}, as config.json beside it says, whose graph is none of ours; take weights of a plain "
                "resnet18, 34, 50, 101 or 152, such as hf:timm/resnet50.tv_in1k"
            )
        facts = content.get("pretrained_cfg", {})
        if "mean" not in facts or "std" not in facts:
            return IMAGENET_MEAN, IMAGENET_STD
        (r, g, b), (x, y, z) = facts["mean"], facts["std"]
        return (255.0 * r, 255.0 * g, 255.0 * b), (255.0 * x, 255.0 * y, 255.0 * z)


def _download(spec: str) -> Path:
    """Downloads the file of a repository of the Hugging Face hub, and its config.json if any, to the hub's cache."""
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?::([\w./-]+))?", spec)
    if match is None:
        raise WeightsError("is not of the form hf:owner/name or hf:owner/name:file")
    repository, name = match[1], match[2] or "model.safetensors"
    hub, errors = (package(name, "'svdnet-jax[hub]'") for name in ("huggingface_hub", "huggingface_hub.errors"))
    try:
        with contextlib.suppress(errors.RemoteEntryNotFoundError):
            hub.hf_hub_download(repository, str(PurePosixPath(name).with_name("config.json")))
        return Path(hub.hf_hub_download(repository, name))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"cannot be had from the Hugging Face hub or its cache here: {reason}") from error
