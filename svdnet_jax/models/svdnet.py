"""The network of the paper: backbone, pooling, Eigenlayer, dropout, classifier.

The variables of the module are plain nested dicts; their paths are the ones that `Phase.freeze` speaks of:
``backbone/...``, ``eigenlayer/kernel`` and ``classifier/{kernel,bias}``.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.config import ConfigError, Model
from svdnet_jax.models.resnet import MiniResNet

BACKBONES: Mapping[str, Callable[..., Any]] = MappingProxyType({"mini": MiniResNet})
"""Backbones by name; each is called with ``frozen_statistics`` and has ``channels``. Add yours to a copy."""


class Outputs(NamedTuple):
    """What the network computes for N images."""

    pooled: Float[Array, "N C"]
    """Input of the Eigenlayer: h."""
    embedding: Float[Array, "N D"]
    """Output of the Eigenlayer: f = h @ W."""
    logits: Float[Array, "N K"]
    """Scores of the training identities."""


class SVDNet(nn.Module):
    """Backbone, global average pooling, Eigenlayer, dropout and classifier.

    The Eigenlayer has no bias and no nonlinearity, so that replacing its W by U S leaves all distances between
    embeddings as they were (paper, section 3.1; initial values from the authors' release).
    """

    backbone: nn.Module
    dim: int
    classes: int
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Outputs:
        """Maps normalised images to `Outputs`; dropout and batch statistics only if training."""
        pooled = jnp.mean(self.backbone(x, train=train), axis=(1, 2))
        dense = partial(nn.Dense, kernel_init=nn.initializers.normal(0.01))
        # Full precision on every device: with TF32 or bfloat16 products US would not keep the distances that W gives.
        exact = partial(dense, use_bias=False, precision=jax.lax.Precision.HIGHEST)
        embedding = exact(self.dim, name="eigenlayer")(pooled)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        logits = dense(self.classes, name="classifier")(dropped)
        return Outputs(pooled, embedding, logits)


def build(config: Model, classes: int, backbones: Mapping[str, Callable[..., Any]] = BACKBONES) -> SVDNet:
    """The network for a number of training identities.

    Args:
        config: Its settings.
        classes: Training identities (K).
        backbones: Where the name of the backbone is looked up.

    Raises:
        ConfigError: No such backbone, or an Eigenlayer wider than its input.
    """
    if config.backbone not in backbones:
        raise ConfigError(f"--model.backbone {config.backbone}: unknown; choose one of {', '.join(backbones)}")
    backbone = backbones[config.backbone](frozen_statistics=config.batch_norm == "frozen")
    if config.dim > backbone.channels:
        raise ConfigError(
            f"--model.dim {config.dim}: more outputs than the {backbone.channels} channels of backbone "
            f"{config.backbone!r}; W would have rank {backbone.channels} at most. Choose at most that"
        )
    return SVDNet(backbone=backbone, dim=config.dim, classes=classes, dropout=config.dropout)


def parameter_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a parameter tree by path, such as ``backbone/stem/kernel``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
