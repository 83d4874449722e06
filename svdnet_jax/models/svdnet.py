"""The network of the paper: backbone, pooling, Eigenlayer, dropout, classifier.

The variables of the module are plain nested dicts; their paths are the ones that `Phase.freeze` speaks of:
``backbone/...``, ``eigenlayer/kernel`` and ``classifier/{kernel,bias}``.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from svdnet_jax.config.schema import Model
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.caffenet import CaffeNet
from svdnet_jax.models.osnet import osnet_x0_5, osnet_x0_25, osnet_x0_75, osnet_x1_0
from svdnet_jax.models.resnet import MiniResNet, resnet18, resnet34, resnet50, resnet50_ibn_a, resnet101


def _common(config: Model) -> dict[str, Any]:
    """Returns what every backbone is made with."""
    return {"frozen_statistics": config.batch_norm == "frozen", "dtype": jnp.dtype(config.dtype)}


def _plain(make: Callable[..., nn.Module], config: Model) -> nn.Module:
    if config.last_stride != 2:
        raise ConfigError(f"`model.last_stride` {config.last_stride}: only a ResNet has this choice")
    if config.remat:
        raise ConfigError(f"`model.remat`: {config.backbone} is too small to gain by it; leave it out")
    return make(**_common(config))


def _resnet(make: Callable[..., nn.Module], config: Model) -> nn.Module:
    chosen = {"layout": config.layout, "last_stride": config.last_stride, "remat": config.remat}
    return make(**_common(config), **chosen)


Backbones = Mapping[str, Callable[[Model], Any]]
"""From a name to what makes the backbone of the settings: a module that maps normalised images (N, H, W, 3) to a
feature map (N, h, w, C), called with ``train``, and has ``channels`` (C)."""

BACKBONES: Backbones = MappingProxyType(
    {
        "mini": partial(_plain, MiniResNet),
        "resnet18": partial(_resnet, resnet18),
        "resnet34": partial(_resnet, resnet34),
        "resnet50": partial(_resnet, resnet50),
        "resnet101": partial(_resnet, resnet101),
        "resnet50_ibn_a": partial(_resnet, resnet50_ibn_a),
        "osnet_x1_0": partial(_plain, osnet_x1_0),
        "osnet_x0_75": partial(_plain, osnet_x0_75),
        "osnet_x0_5": partial(_plain, osnet_x0_5),
        "osnet_x0_25": partial(_plain, osnet_x0_25),
        "caffenet": partial(_plain, CaffeNet),
    }
)
"""Backbones by name: those that `model.backbone` takes. One of your own is handed to `SVDNet`, for a training loop of
your own or for `svdnet_jax.runs.train(config, model=...)`, or to `create_model` under a name beside these."""


class Outputs(NamedTuple):
    """What the network computes for N images."""

    features: Float[Array, "N C"]
    """The last feature map, averaged over its pixels."""
    pooled: Float[Array, "N C"]
    """Input of the Eigenlayer, h: the features, through the neck if there is one."""
    embedding: Float[Array, "N D"]
    """Output of the Eigenlayer: f = h @ W. The pooled feature itself where there is no Eigenlayer."""
    logits: Float[Array, "N K"]
    """Scores of the training identities."""


class SVDNet(nn.Module):
    """Normalisation, backbone, global average pooling, neck, Eigenlayer, dropout and classifier.

    The Eigenlayer has no bias and no nonlinearity, so that replacing its W by U S leaves all distances between
    embeddings as they were (paper, section 3.1; initial values from the authors' release). What is subtracted from
    pixels and divides them is a collection of variables, ``pixels``: it travels with the weights it belongs to.
    """

    backbone: nn.Module
    """Any module that maps normalized images (N, H, W, 3) to a feature map (N, h, w, C) or features (N, C), called as
    ``backbone(images, train=...)``. For `jax.pmap` it hands a field ``axis_name`` to each BatchNorm."""
    embedding_dim: int
    """Outputs of the Eigenlayer; 0 leaves it out."""
    num_classes: int
    """Training identities, K."""
    dropout: float = 0.5
    """Share of the Eigenlayer's outputs that a training step leaves out."""
    neck: bool = False
    """Whether a BatchNorm stands between pooled feature and Eigenlayer (BNNeck, Luo et al. 2019)."""
    frozen_statistics: bool = False
    """Whether the neck uses its stored statistics in training too; a backbone is told by itself."""
    eigenlayer_std: float = 0.01
    """Standard deviation of the Eigenlayer's initial weight."""
    classifier_bias: bool = True
    """Whether the classifier has one."""
    axis_name: str | None = None
    """Mapped axis over which the neck's statistics are taken."""

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 3"], *, train: bool) -> Outputs:
        """Maps RGB in [0, 255] to `Outputs`; dropout and batch statistics only if training.

        Raises:
            ValueError: The images have other channels than three, or another size than the mean image.
        """
        mean = self.variable("pixels", "mean", jnp.zeros, (1, 1, 3)).value
        std = self.variable("pixels", "std", jnp.ones, (1, 1, 3)).value
        if x.ndim != 4 or x.shape[3] != 3 or mean.shape not in ((1, 1, 3), x.shape[1:]):
            size = "height, width" if mean.size == 3 else f"{mean.shape[0]}, {mean.shape[1]}"
            raise ValueError(
                f"expected images (N, {size}, 3), of the size of the mean image if there is one; found {x.shape}"
            )
        x = (x - mean[None]) / std[None]
        _check_backbone(self.backbone)
        maps = _as_maps(self.backbone(x, train=train), x.shape[0])
        # For a penalty on it; nothing is kept where nobody asks for the collection.
        self.sow("intermediates", "maps", maps)
        features = jnp.mean(maps, axis=(1, 2))
        pooled = features
        if self.neck:
            resting = self.frozen_statistics or not train
            norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5, use_bias=False, axis_name=self.axis_name)
            pooled = norm(resting, name="neck")(features)
        # Full precision on every device: with TF32 or bfloat16 products US would not keep the distances that W gives.
        exact = partial(nn.Dense, precision=jax.lax.Precision.HIGHEST, use_bias=False)
        initial = nn.initializers.normal
        embedding = pooled
        if self.embedding_dim:
            embedding = exact(self.embedding_dim, kernel_init=initial(self.eigenlayer_std), name="eigenlayer")(pooled)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        classifier = partial(nn.Dense, self.num_classes, kernel_init=initial(0.01), name="classifier")
        return Outputs(features, pooled, embedding, classifier(use_bias=self.classifier_bias)(dropped))


def _check_backbone(backbone: nn.Module) -> None:
    """Refuses a module that cannot be called as a backbone.

    Raises:
        ValueError: Its call takes no ``train``.
    """
    parameters = inspect.signature(type(backbone).__call__).parameters.values()
    if not any(p.name == "train" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        raise ValueError(
            f"{type(backbone).__name__}.__call__ takes no argument train; a backbone is called as "
            "backbone(images, train=...): add it, and use it for BatchNorm and dropout"
        )


def _as_maps(output: Float[Array, "..."], n: Any) -> Float[Array, "N h w C"]:
    """Returns what a backbone gives as a feature map; features alone are a map of one pixel.

    Args:
        output: Of the backbone.
        n: Images; no number but a symbol in a program for any number of them (`svdnet_jax.export`).

    Raises:
        ValueError: It is neither.
    """
    if output.ndim == 2 and output.shape[0] == n:
        return output[:, None, None, :]
    if output.ndim != 4 or output.shape[0] != n:
        raise ValueError(
            f"the backbone returned the shape {output.shape} for {n} images; expected a feature map (N, h, w, C), "
            "channels last, or features (N, C)"
        )
    return output


def create_backbone(name: str, **settings: Any) -> nn.Module:
    """Returns a backbone by name, for an `SVDNet` of your own.

    Args:
        name: One of `BACKBONES`: mini, resnet18, resnet34, resnet50, resnet101, resnet50_ibn_a, osnet_x1_0,
            osnet_x0_75, osnet_x0_5, osnet_x0_25 or caffenet.
        settings: Those of `svdnet_jax.config.schema.Model` that are about the backbone, such as ``last_stride=1``.

    Raises:
        ConfigError: No such backbone, or a setting that it does not have.

    Examples:
        >>> create_backbone("resnet50", last_stride=1).channels
        2048
    """
    if name not in BACKBONES:
        raise ConfigError(f"no backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name](Model(backbone=name, **settings))


def create_model(config: Model, num_classes: int, backbones: Backbones = BACKBONES) -> SVDNet:
    """Returns the network for a number of training identities.

    Args:
        config: Its settings.
        num_classes: Training identities (K).
        backbones: Where the name of the backbone is looked up; more than `BACKBONES` in a training loop of your own.

    Raises:
        ConfigError: No such backbone, or an Eigenlayer wider than its input.
    """
    if config.backbone not in backbones:
        raise ConfigError(f"`model.backbone` {config.backbone}: unknown; choose one of {', '.join(backbones)}")
    backbone = backbones[config.backbone](config)
    if config.embedding_dim > backbone.channels:
        raise ConfigError(
            f"`model.embedding_dim` {config.embedding_dim}: more outputs than the {backbone.channels} channels of "
            f"backbone {config.backbone!r}; W would have rank {backbone.channels} at most. Choose at most that"
        )
    return SVDNet(
        backbone=backbone,
        embedding_dim=config.embedding_dim,
        num_classes=num_classes,
        dropout=config.dropout,
        neck=config.neck == "batchnorm",
        frozen_statistics=config.batch_norm == "frozen",
        eigenlayer_std=config.eigenlayer_std,
        classifier_bias=config.classifier_bias,
    )


def with_sync_batch_norm(model: SVDNet, axis: str) -> SVDNet:
    """Returns the network for a step that each device takes by itself: statistics of a batch are over a mapped axis.

    Args:
        model: The network; its backbone has a field ``axis_name`` and hands it to every BatchNorm. One that does not is
            refused by `svdnet_jax.training.step.train_step`.
        axis: Name of the axis.
    """
    backbone = model.backbone
    return model.clone(
        axis_name=axis, backbone=backbone.clone(axis_name=axis) if hasattr(backbone, "axis_name") else backbone
    )


def parameter_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of a parameter tree by path, such as ``backbone/stem/kernel``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
