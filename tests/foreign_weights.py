"""Residual networks with few channels, under our names and under those that others publish weights in.

Written from the publishers' code, not from `svdnet_jax.models.pretrained.convert`, which it tests.
"""

import functools
import json

import h5py
import numpy as np
import safetensors.numpy

from svdnet_jax.models.pretrained.caffemodel import net_parameter

SIZES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
EPSILON = 1e-5  # of every BatchNorm of ours


def layers(network):
    """Each convolution's stage (0 is the stem), block, part (0 is the shortcut), kernel size, inputs and outputs."""
    basic = network in ("resnet18", "resnet34")
    yield 0, 1, 1, 7, 3, 4
    inputs = 4
    for stage, blocks in enumerate(SIZES[network], start=1):
        width = 4 * 2 ** (stage - 1)
        outputs = width if basic else 4 * width
        for block in range(1, blocks + 1):
            if inputs != outputs:
                yield stage, block, 0, 1, inputs, outputs
            widths = (inputs, width, outputs) if basic else (inputs, width, width, outputs)
            for part, size in enumerate((3, 3) if basic else (1, 3, 1), start=1):
                yield stage, block, part, size, widths[part - 1], widths[part]
            inputs = outputs


def our_names(stage, block, part):
    if stage == 0:
        return "stem", "bn_stem"
    place = f"stage{stage}_block{block}"
    return (f"{place}/conv{part}", f"{place}/bn{part}") if part else (f"{place}/shortcut", f"{place}/bn_shortcut")


def truth(network, seed=0):
    """Random variables under our names: params, batch_stats and the classifier."""
    rng = np.random.default_rng(seed)
    params, stats = {}, {}
    for stage, block, part, size, inputs, outputs in layers(network):
        conv, bn = our_names(stage, block, part)
        params[f"{conv}/kernel"] = rng.normal(size=(size, size, inputs, outputs))
        params[f"{bn}/scale"], params[f"{bn}/bias"], stats[f"{bn}/mean"] = rng.normal(size=(3, outputs))
        stats[f"{bn}/var"] = rng.uniform(0.5, 2, outputs)
    head = {"kernel": rng.normal(size=(outputs, 10)), "bias": rng.normal(size=10)}
    return tuple({name: array.astype(np.float32) for name, array in part.items()} for part in (params, stats, head))


def biases(params, seed=1):
    """A bias for each convolution, which our networks do not have."""
    rng = np.random.default_rng(seed)
    return {
        name.removesuffix("/kernel"): rng.normal(size=array.shape[-1]).astype(np.float32)
        for name, array in params.items()
        if name.endswith("/kernel")
    }


def torch_state(network):
    """torchvision's state dict (resnet.py)."""
    params, stats, head = truth(network)
    state = {"fc.weight": head["kernel"].T, "fc.bias": head["bias"]}
    for stage, block, part, *_ in layers(network):
        conv, bn = our_names(stage, block, part)
        place = f"layer{stage}.{block - 1}." if stage else ""
        there = (f"{place}conv{part}", f"{place}bn{part}") if part else (f"{place}downsample.0", f"{place}downsample.1")
        state[f"{there[0]}.weight"] = params[f"{conv}/kernel"].transpose(3, 2, 0, 1)
        state[f"{there[1]}.weight"], state[f"{there[1]}.bias"] = params[f"{bn}/scale"], params[f"{bn}/bias"]
        state[f"{there[1]}.running_mean"] = stats[f"{bn}/mean"]
        state[f"{there[1]}.running_var"] = stats[f"{bn}/var"]
        state[f"{there[1]}.num_batches_tracked"] = np.array(7)
    return {name: np.ascontiguousarray(array) for name, array in state.items()}


def caffe_names(stage, block, part, many):
    """Of He et al.'s prototxt files and Keras' first ResNet-50; many: a, b1, b2, ... instead of a, b, c, ..."""
    if stage == 0:
        return "conv1", "bn_conv1", "scale_conv1"
    letter = ("a" if block == 1 else f"b{block - 1}") if many else "abcdef"[block - 1]
    branch = f"{stage + 1}{letter}_branch{('1', '2a', '2b', '2c')[part]}"
    return f"res{branch}", f"bn{branch}", f"scale{branch}"


def keras_names(stage, block, part, generation):
    if generation == "old":
        return caffe_names(stage, block, part, many=False)[:2]
    if stage == 0:
        return "conv1_conv", "conv1_bn"
    return tuple(f"conv{stage + 1}_block{block}_{part}_{kind}" for kind in ("conv", "bn"))


def keras_layers(network, generation, epsilon):
    """Keras' layers, each with its weights: BGR, biased convolutions and another epsilon, the same function."""
    params, stats, head = truth(network)
    bias = biases(params)
    found = {"input_1": {}}
    for where in layers(network):
        conv, bn = our_names(*where[:3])
        there = keras_names(*where[:3], generation)
        kernel = params[f"{conv}/kernel"]
        found[there[0]] = {"kernel": kernel[:, :, ::-1] if where[0] == 0 else kernel, "bias": bias[conv]}
        found[there[1]] = {
            "gamma": params[f"{bn}/scale"],
            "beta": params[f"{bn}/bias"],
            "moving_mean": stats[f"{bn}/mean"] + bias[conv],
            "moving_variance": stats[f"{bn}/var"] + np.float32(EPSILON - epsilon),
        }
    found["fc1000" if generation == "old" else "predictions"] = head
    return found


@functools.cache
def keras(generation="old", epsilon=1e-3):
    return keras_layers("resnet50", generation, epsilon)


def keras_topology(found, epsilon):
    """The part of a Keras model's description that says what BatchNorm adds to the variance."""
    normal = [name for name in found if "bn" in name]
    described = [{"class_name": "BatchNormalization", "config": {"name": name, "epsilon": epsilon}} for name in normal]
    convolution = {"class_name": "Conv2D", "config": {"name": "conv1", "epsilon": 3}}
    return {"class_name": "Model", "config": {"name": "resnet50", "layers": [convolution, *described]}}


def write_tfjs(folder, found, topology, shard=9999):
    folder.mkdir(exist_ok=True)
    named = [(f"{layer}/{name}", array) for layer, weights in found.items() for name, array in weights.items()]
    data = b"".join(np.ascontiguousarray(array, "<f4").tobytes() for _, array in named)
    shards = {f"group1-shard{at}.bin": data[at : at + shard] for at in range(0, len(data), shard)}
    for name, part in shards.items():
        (folder / name).write_bytes(part)
    weights = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in named]
    manifest = [{"paths": list(shards), "weights": weights}]
    model = {"format": "layers-model", "modelTopology": {"model_config": topology}, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


def write_h5(path, found, topology=None, group=None, text=bytes, split=False, name="{layer}/{weight}:0", nested=None):
    """A file of Keras 2 or, with another form of names, of Keras 1 or 3; topology given: of a whole model."""
    encode = (lambda word: word.encode()) if text is bytes else str
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        if topology is not None:
            file.attrs["model_config"] = encode(json.dumps(topology))
            file.create_group("optimizer_weights").create_dataset("momentum", data=np.zeros(3, np.float32))

        def write(place, attribute, words):
            half = len(words) // 2 if split else len(words)
            parts = {f"{attribute}0": words[:half], f"{attribute}1": words[half:]} if split else {attribute: words}
            for key, part in parts.items():
                # Fixed-length bytes as Keras 2 writes them, or str.
                place.attrs[key] = np.array(part, "S") if text is bytes else np.array(part, h5py.string_dtype())

        layers = {nested: found} if nested else {layer: {layer: weights} for layer, weights in found.items()}
        write(root, "layer_names", list(layers))
        for outer, inner in layers.items():
            place, names = root.create_group(outer), []
            for layer, weights in inner.items():
                for weight, array in weights.items():
                    names.append(name.format(layer=layer, weight=weight))
                    place.create_dataset(names[-1], data=array)
            write(place, "weight_names", names)
    return path


def write_safetensors(path, state, metadata=None):
    safetensors.numpy.save_file(state, path, metadata)
    return path


def tensors(state):
    """For tests marked `torch`, which alone may import it."""
    import torch

    return {name: torch.from_numpy(array.copy()) for name, array in state.items()}


def write_caffemodel(path, layers, old=False, double=False):
    net = net_parameter()
    (net.layers if old else net.layer).add(name="data")
    for name, blobs in layers.items() if isinstance(layers, dict) else layers:
        layer = (net.layers if old else net.layer).add(name=name)
        for array in blobs:
            blob = layer.blobs.add()
            (blob.double_data if double else blob.data).extend(array.ravel().tolist())
            if old:
                blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
            else:
                blob.shape.dim.extend(array.shape)
    path.write_bytes(net.SerializeToString())
    return path


def caffenet(rng):
    sizes = {"conv1": (4, 3, 2, 2), "fc6": (5, 9216), "fc7": (6, 5)}
    return {
        name: [rng.normal(size=size).astype(np.float32), rng.normal(size=size[0]).astype(np.float32)]
        for name, size in sizes.items()
    }
