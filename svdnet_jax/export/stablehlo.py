"""Networks as StableHLO, in the files of `jax.export`: one program for CPU, CUDA and TPU, read back by JAX alone."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from svdnet_jax.data.batches import resize
from svdnet_jax.export.network import Network
from svdnet_jax.models.conv_norm import convolve_on_any_platform

PLATFORMS = ("cpu", "cuda", "tpu")
PACKAGES = ("flatbuffers",)
"""Packages beside JAX that writing and reading such a file needs."""


def to_stablehlo(network: Network) -> bytes:
    """Returns a network as a file: uint8 images (N, h, w, 3) of any number and size to features (N, D).

    The function in it is named by the network's fingerprint, ``svdnet_jax_`` first, which `is_stablehlo` looks for.
    """
    network = network.with_backbone(convolve=convolve_on_any_platform)

    def embed(images: UInt8[Array, "N h w 3"]) -> Float[Array, "N D"]:
        return network.embed(resize(images, network.size))

    embed.__name__ = f"svdnet_jax_{network.fingerprint.replace('-', '_')}"
    shape = (*jax.export.symbolic_shape("batch, height, width"), 3)
    made = jax.export.export(jax.jit(embed), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.uint8))
    return bytes(made.serialize())


def load_stablehlo(path: Path) -> Callable[[UInt8[np.ndarray, "N h w 3"]], Float[Array, "N D"]]:
    """Reads a file of `to_stablehlo` back; the program is compiled for each shape when it is first called."""
    return jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)


def is_stablehlo(path: Path) -> bool:
    """Recognizes a file of `to_stablehlo`."""
    with path.open("rb") as file:
        head = file.read(4096)
        return b"StableHLO_v" in head and b"svdnet_jax_" in head + file.read()
