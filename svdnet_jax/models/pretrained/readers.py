"""Reads arrays out of published weight files, by the names that they have there; `convert` beside it knows those.

Files may come from strangers: nothing here unpickles but PyTorch's own restricted reader (``weights_only``), and a
damaged file is a `WeightsError`. Packages that read only weights are imported when they are needed.
"""

import contextlib
import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from svdnet_jax.errors import WeightsError

EIGHT_BITS = "holds floating-point numbers of eight bits, too few to start from; take weights in float32 or bfloat16"

AVERAGED = ("teacher", "ema", "model_ema", "ema_model", "state_dict_ema", "mean_teacher")
"""Words for the network whose weights are averages over training, which is the one that is evaluated."""
STATE_DICTS = ("state_dict", "model", "student", *AVERAGED)
"""Where a checkpoint of PyTorch keeps weights, beside the optimizer and its like."""


@contextlib.contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Turns whatever a parser throws at a damaged file into a `WeightsError`."""
    try:
        yield
    except WeightsError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{error.filename} is missing; it belongs to {path.name}") from error
    # A parser that meets arbitrary bytes may raise anything.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise WeightsError(
            f"{path.name} is damaged, incomplete or not what its name says; fetch it again "
            f"({type(error).__name__}: {reason})"
        ) from error


def package(name: str, install: str) -> Any:
    """Imports a package that not every installation has.

    Args:
        name: Of the module.
        install: What pip installs for it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WeightsError(f"needs {name}, which cannot be imported: pip install {install}") from error


def read_tfjs(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Reads weights by layer and name, and the epsilons of BatchNorm layers, of a tfjs layers model.

    Raises:
        WeightsError: Quantised, incomplete or damaged.
    """
    with parsing(path):
        model = json.loads(path.read_text("utf-8"))
        if model.get("format") == "graph-model":
            raise WeightsError("is a tfjs graph model, in which layers are merged; convert it as a layers model")
        arrays: dict[str, np.ndarray] = {}
        for group in model["weightsManifest"]:
            data = b"".join(_shard(path, str(shard)).read_bytes() for shard in group["paths"])
            at = 0
            for entry in group["weights"]:
                if entry["dtype"] != "float32" or "quantization" in entry:
                    raise WeightsError(f"{entry['name']} is {entry['dtype']} or quantised; convert without quantising")
                count = math.prod(entry["shape"])
                if at + 4 * count > len(data):
                    raise WeightsError(f"its shards end in the middle of {entry['name']}: one is cut short")
                _add(arrays, entry["name"], np.frombuffer(data, "<f4", count, at).reshape(entry["shape"]))
                at += 4 * count
            if at != len(data):
                raise WeightsError(f"its shards hold {len(data)} bytes, the list of weights {at}")
        return arrays, dict(_epsilons(model.get("modelTopology")))


def _shard(model: Path, name: str) -> Path:
    """Returns the file of a shard, which lies in the folder of the model: a stranger's file names no others.

    Raises:
        WeightsError: It lies elsewhere, or is no plain file.
    """
    folder, shard = model.parent.resolve(), (model.parent / name).resolve()
    if not shard.is_relative_to(folder):
        raise WeightsError(f"names the shard {name!r}, outside of its folder; put all shards beside {model.name}")
    if shard.exists() and not shard.is_file():
        raise WeightsError(f"names the shard {name!r}, which is no plain file; put the right one beside {model.name}")
    return shard


def read_h5(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Reads the same of Keras' HDF5 files, of a whole model or of its weights only."""
    h5py = package("h5py", "h5py")
    with parsing(path), h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        layers = _names(root, "layer_names")
        if not layers:
            raise WeightsError("lists no layers: not in Keras' older HDF5 format; save_weights('NAME.h5') writes that")
        arrays: dict[str, np.ndarray] = {}
        for layer in layers:
            for name in _names(root[layer], "weight_names"):
                if (link := _link_elsewhere(h5py, root[layer], name)) is not None:
                    raise WeightsError(f"{name} is a link to {link}, another file; save the weights into one file")
                array = np.asarray(root[layer][name])
                _add(arrays, name if "/" in name else f"{layer}/{name}", array)
        config = _text(file.attrs.get("model_config", "null"))
        return arrays, dict(_epsilons(json.loads(config)))


def _link_elsewhere(h5py: Any, group: Any, name: str) -> str | None:
    """Returns what file a path in a group leads to by an external link or external storage; None if it stays here."""
    for part in name.strip("/").split("/"):
        link = group.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return str(link.filename)
        group = group[part]
    if getattr(group, "external", None):
        return str(group.external[0][0])
    return str(group.virtual_sources()[0].file_name) if getattr(group, "is_virtual", False) else None


def _names(group: Any, attribute: str) -> list[str]:
    """Returns a list of names, which Keras splits into ``attribute0``, ``attribute1``, ... where it is long."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    return [_text(name) for part in parts for name in group.attrs[part]]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _add(arrays: dict[str, np.ndarray], name: str, array: np.ndarray) -> None:
    """Files a Keras weight by the layer's name and Keras' present word for it.

    Names come as ``conv1/kernel:0``, within another model ``resnet50/conv1/kernel:0``, in Keras 1
    ``conv1/conv1_W:0``; there the variance was called running_std.
    """
    *_, layer, weight = name.removesuffix(":0").split("/")
    weight = re.sub(r"_\d+$", "", weight.removeprefix(f"{layer}_"))
    old = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
    key = f"{layer}/{old.get(weight, weight)}"
    if key in arrays:
        raise WeightsError(f"holds {key} twice")
    arrays[key] = array


def _epsilons(node: Any) -> Iterator[tuple[str, float]]:
    """Returns the name and epsilon of every BatchNorm in a Keras model's description."""
    if isinstance(node, Mapping):
        config = node.get("config")
        if "BatchNorm" in str(node.get("class_name")) and isinstance(config, Mapping) and "epsilon" in config:
            yield str(config["name"]), float(config["epsilon"])
        node = list(node.values())
    for item in node if isinstance(node, list) else []:
        yield from _epsilons(item)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict in PyTorch's file format, alone or in a checkpoint.

    Of a checkpoint with several, such as a student's and its teacher's, all names have that of their dict in front.

    Raises:
        WeightsError: Damaged, not a state dict, or what is no plain tensor.
    """
    torch = package("torch", "'svdnet-jax[torch]'")
    with parsing(path), _without_programs(torch, path):
        loaded = torch.load(path, map_location="cpu", weights_only=True)

    def is_state_dict(value: Any) -> bool:
        return isinstance(value, Mapping) and all(isinstance(item, torch.Tensor) for item in value.values())

    if isinstance(loaded, Mapping):
        held = {key: loaded[key] for key in STATE_DICTS if is_state_dict(loaded.get(key)) and loaded[key]}
        if len(held) > 1:
            loaded = {f"{key}.{name}": value for key, part in held.items() for name, value in part.items()}
        elif held:
            (loaded,) = held.values()
    if not is_state_dict(loaded):
        raise WeightsError("holds no state dict (tensors by name); save model.state_dict()")
    return {str(name): _numpy(str(name), value.detach()) for name, value in loaded.items()}


def _numpy(name: str, tensor: Any) -> np.ndarray:
    """Converts a tensor to NumPy; floating-point ones, which NumPy need not know (bfloat16), to float32."""
    if tensor.is_quantized or str(tensor.layout) != "torch.strided" or tensor.is_meta:
        raise WeightsError(f"{name} is quantised, sparse or without numbers; save the weights as plain tensors")
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        raise WeightsError(f"{name} {EIGHT_BITS}")
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()


@contextlib.contextmanager
def _without_programs(torch: Any, path: Path) -> Iterator[None]:
    """Says what PyTorch's restricted reader met that is no weight; lets it take NumPy's numbers, which run nothing."""
    numbers = [np.dtype, *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}]
    # NumPy 1 and 2 call it by different names.
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    trusted = (
        f"In an environment where you trust its source, save the weights alone: model = torch.load({path.name!r}, "
    )
    try:
        with torch.serialization.safe_globals([*numbers, *names]):
            yield
    except Exception as error:
        said = str(error)
        if program := re.search(r"GLOBAL ([\w.]+)", said):
            raise WeightsError(
                f"holds a pickled Python object ({program[1]}), which is not loaded, as that can run any program. "
                f"{trusted}weights_only=False); torch.save(model.state_dict(), 'clean.pth'), or where that is a dict "
                "torch.save(model['state_dict'], 'clean.pth')"
            ) from error
        if "TorchScript" in said:
            raise WeightsError(
                "is a TorchScript archive, a program with weights, which is not loaded. In an environment where you "
                f"trust its source: torch.save(torch.jit.load({path.name!r}).state_dict(), 'clean.pth')"
            ) from error
        if "legacy .tar" in said:
            raise WeightsError(
                "is in PyTorch's oldest format (.tar), which cannot be read without running what is in it. "
                f"{trusted}weights_only=False); torch.save(model, 'clean.pth')"
            ) from error
        # Its own words are on how to run what is in the file.
        if "weights_only" in said:
            detail = said.rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
            raise ValueError(detail[:100]) from error
        raise


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a ``.safetensors`` file."""
    safetensors = package("safetensors", "safetensors")
    with parsing(path), safetensors.safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        for name in names:
            if (kind := file.get_slice(name).get_dtype()).startswith("F8"):
                raise WeightsError(f"{name} {EIGHT_BITS} ({kind})")
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
