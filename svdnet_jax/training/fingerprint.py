"""The fingerprint of a network at rest: only features of one network can be compared with each other.

It is of the network, not of the run: the same weights in a run folder, in an exported file or in memory have the same
one. (`svdnet_jax.data.types.fingerprint` is that of a data set.)
"""

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.models.svdnet import parameter_paths

UNUSED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"embedding": ("params/classifier/",), "pooled": ("params/classifier/", "params/eigenlayer/")}
)
"""Embeddings by name, and the weights that each does not depend on."""


def model_fingerprint(variables: Mapping[str, PyTree[Any]], kind: str, config: Config) -> str:
    """Returns the first 16 hex digits of a SHA-256, and the embedding: ``3f2a09c1d4e5b677-pooled``.

    It is taken over every number that the embedding depends on (path, type, shape and bytes of each array, in the
    order of paths), and over what the arrays do not tell: the size of the input and the backbone's graph.

    Args:
        variables: What the network is applied with: ``params``, ``batch_stats`` and ``pixels``.
        kind: The embedding, one of `UNUSED`.
        config: Of the run, or of the preset for weights as they are.
    """
    model = config.model
    digest = hashlib.sha256(f"{input_size(config.data)} {model.backbone} {model.layout} {model.last_stride}\n".encode())
    for path, leaf in sorted(parameter_paths(variables).items()):
        if not path.startswith(UNUSED[kind]):
            array = np.asarray(jax.device_get(leaf))
            digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return f"{digest.hexdigest()[:16]}-{kind}"


def fingerprints(
    variables: Mapping[str, PyTree[Any]], config: Config, kinds: Iterable[str] = tuple(UNUSED)
) -> dict[str, str]:
    """Returns the `model_fingerprint` of several embeddings, by name; a tenth of a second each for a ResNet-50."""
    return {kind: model_fingerprint(variables, kind, config) for kind in kinds}
