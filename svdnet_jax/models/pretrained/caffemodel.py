"""Caffe's ``.caffemodel``: the blobs of every layer, decoded by protobuf from the few fields of caffe.proto needed.

Numbers and types of the fields are those of BVLC/caffe, ``src/caffe/proto/caffe.proto``.
"""

import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from svdnet_jax.errors import WeightsError
from svdnet_jax.models.pretrained.readers import package, parsing

FIELDS = MappingProxyType(
    {
        "BlobShape": [("dim", 1, "int64", True)],
        "BlobProto": [
            ("num", 1, "int32", False),
            ("channels", 2, "int32", False),
            ("height", 3, "int32", False),
            ("width", 4, "int32", False),
            ("data", 5, "float", True),
            ("shape", 7, "BlobShape", False),
            ("double_data", 8, "double", True),
        ],
        "V1LayerParameter": [("name", 4, "string", False), ("blobs", 6, "BlobProto", True)],
        "LayerParameter": [("name", 1, "string", False), ("blobs", 7, "BlobProto", True)],
        "NetParameter": [("layers", 2, "V1LayerParameter", True), ("layer", 100, "LayerParameter", True)],
    }
)
"""Name, number, type and whether repeated, by message."""


def read_caffemodel(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads the blobs of each layer that has any, by the layer's name.

    Raises:
        WeightsError: Damaged, or the package protobuf is not installed.
    """
    net = net_parameter()
    with parsing(path):
        net.ParseFromString(path.read_bytes())
        layers: dict[str, list[np.ndarray]] = {}
        for layer in (*net.layers, *net.layer):
            if layer.name in layers and layer.blobs:
                raise WeightsError(f"holds two layers {layer.name}")
            if layer.blobs:
                layers[layer.name] = [_array(blob, layer.name) for blob in layer.blobs]
        if not layers:
            raise WeightsError("holds no layer with weights")
        return layers


def net_parameter() -> Any:
    """Returns an empty message of caffe.proto's NetParameter with the fields above."""
    pool = package("google.protobuf.descriptor_pool", "protobuf").DescriptorPool()
    factory = package("google.protobuf.message_factory", "protobuf")
    descriptors = package("google.protobuf.descriptor_pb2", "protobuf")
    file = descriptors.FileDescriptorProto(name="caffe.proto", package="caffe")
    for message, fields in FIELDS.items():
        description = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = description.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in FIELDS:
                field.type, field.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
                # Without effect on what can be read: a parser takes packed and unpacked numbers.
                field.options.packed = repeated
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))()


def _array(blob: Any, layer: str) -> np.ndarray:
    """Returns a blob in its shape: N, C, H, W in older files, any number of dimensions in newer ones."""
    data = np.asarray(blob.data or blob.double_data, np.float32)
    old = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else old
    if math.prod(shape) != data.size:
        raise WeightsError(f"layer {layer} has {data.size} numbers for the shape {shape}")
    return data.reshape(shape)
