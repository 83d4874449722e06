"""Networks as ONNX, by jax2onnx: for ONNX Runtime and others, without JAX.

jax2onnx turns Flax's layers into ONNX's, so that a convolution is a Conv and not what `convolve` makes of it here. Two
things are ours. It cannot resize a symbolic number of images, so a Resize is put before the network it converts. And
the shapes that it notes between the layers are of another order of axes than the layers; ONNX Runtime warns of each,
so they are taken out, and it infers them itself.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from svdnet_jax._version import __version__
from svdnet_jax.errors import MachineError
from svdnet_jax.export.network import Network
from svdnet_jax.models.layers import padded_max_pool
from svdnet_jax.safe_writing import is_bytes

PACKAGES = ("jax2onnx", "onnx", "onnxruntime")
"""Packages that writing and checking such a file needs."""
PRODUCER = "svdnet_jax"
OPSET = 18
"""The first that resizes with antialiasing."""

is_onnx = is_bytes(b"\x12\x0a" + PRODUCER.encode())
"""Recognizes a file of `to_onnx`: field 2 of a model, ``producer_name``, of 10 bytes."""


def to_onnx(network: Network) -> bytes:
    """Returns a network as a file: uint8 ``images`` (N, h, w, 3) of any number and size to features (N, D) in float32.

    It computes in float32, also where the backbone is in bfloat16, which ONNX Runtime has few layers for on a CPU. Its
    metadata say the fingerprint (``model``), which is what a file of embeddings keeps.

    Raises:
        MachineError: The jax2onnx that is installed cannot convert it.
    """
    from onnx import ModelProto, checker, helper

    network = network.with_backbone(dtype=jnp.float32, remat=False, pool=padded_max_pool)
    model: ModelProto = _convert(network)
    del model.graph.value_info[:]
    _resize_first(model, network.size)
    model.producer_name, model.producer_version = PRODUCER, __version__
    height, width = network.size
    helper.set_model_props(model, {"model": network.fingerprint, "size": f"{height} x {width}"})
    checker.check_model(model)
    return model.SerializeToString()


def _convert(network: Network) -> Any:
    """Returns the ONNX model of what `Network.embed` computes, its input called ``pixels``."""
    pixels = jax.ShapeDtypeStruct(("batch", *network.size, 3), jnp.float32)
    names: Any = {"input_names": ["pixels"], "output_names": [network.kind], "model_name": "svdnet"}
    try:
        with _quiet():
            import jax2onnx

            return jax2onnx.to_onnx(network.embed, [pixels], opset=OPSET, **names)
    except Exception as error:  # of any kind: it follows all that Flax and JAX compute
        reason = str(error).strip().partition("\n")[0]
        raise MachineError(
            f"jax2onnx cannot convert this network ({type(error).__name__}: {reason}); write a .stablehlo file, or "
            "try another version of jax2onnx"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what jax2onnx says: version 0.13.0 prints each Conv and logs which layers of others it lacks."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _resize_first(model: Any, size: tuple[int, int]) -> None:
    """Puts before the network what makes its pixels: bytes of any size as numbers, resized as `resize` does.

    Without ``exclude_outside`` a pixel beyond the border counts as the one at the border, here it does not count.
    """
    from onnx import TensorProto, helper

    graph, old = model.graph, model.graph.input[0].name
    nodes = [
        helper.make_node("Cast", ["images"], ["images_as_numbers"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["images_as_numbers", "", "", "network_size"],
            [old],
            mode="linear",
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
            axes=[1, 2],
        ),
    ]
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    graph.initializer.append(helper.make_tensor("network_size", TensorProto.INT64, [2], size))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3]))


def load_onnx(path: Path) -> Callable[[UInt8[np.ndarray, "N h w 3"]], Float32[np.ndarray, "N D"]]:
    """Reads a file of `to_onnx` into ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def runtime() -> str:
    """Names what `load_onnx` reads with."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__} on cpu"
