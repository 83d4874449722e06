"""Makes the network of the settings and its first state: weights, mean and std of pixels."""

from typing import Any

import jax
import numpy as np

from svdnet_jax.config.schema import Config, Model, input_size
from svdnet_jax.data.batches import mean_image
from svdnet_jax.data.types import Split, labels
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.pretrained.convert import IMAGENET_MEAN, IMAGENET_STD
from svdnet_jax.models.pretrained.load import Pretrained, above_backbone, check_fit, with_pretrained
from svdnet_jax.models.svdnet import SVDNet, create_model, parameter_paths
from svdnet_jax.training.state import TrainState, init_state


def initial_state(
    config: Config, train: Split, weights: Pretrained | None, model: SVDNet | None = None
) -> tuple[SVDNet, TrainState]:
    """Makes the network for a training set and its state before the first step.

    Args:
        config: Settings of the run.
        train: Its identities are the classes; its pixels give the mean image if one is wanted.
        weights: Of the backbone; random where not given.
        model: A network of your own; else it is made from the settings.

    Raises:
        ConfigError: Settings that cannot work, weights of another network, or a network for other identities.
    """
    size = input_size(config.data)
    identities = labels(train.pids)[1]
    model = model or create_model(config.model, identities)
    if model.num_classes != identities:
        raise ConfigError(
            f"model has {model.num_classes} classes; expected {identities}, one for each training identity"
        )
    mean, std = pixel_statistics(config.model, weights)
    if config.model.mean_image:
        mean = np.asarray(mean_image(train.images, size))
    state = init_state(model, size, config.seed, mean, std)
    return model, with_weights(state, weights) if weights else state


def pixel_statistics(model: Model, weights: Pretrained | None) -> tuple[Any, Any]:
    """Returns the mean and std for RGB in [0, 255]: as set, as the weights want, or ImageNet's."""
    mean = model.mean or (weights.mean if weights else IMAGENET_MEAN)
    return mean, model.std or (weights.std if weights else IMAGENET_STD)


def with_weights(state: TrainState, weights: Pretrained) -> TrainState:
    """Returns the same state with another backbone.

    Raises:
        ConfigError: The weights are of another network; says which leaves.
    """
    variables = with_pretrained({"params": state.params, "batch_stats": state.batch_stats}, weights)
    return state.replace(params=variables["params"], batch_stats=variables["batch_stats"])


def initial_shapes(config: Config) -> dict[str, Any]:
    """Returns the shapes of a new network's params and batch_stats; nothing is computed.

    Raises:
        ConfigError: Settings that cannot work.
    """
    state = jax.eval_shape(
        lambda: init_state(create_model(config.model, num_classes=2), input_size(config.data), config.seed)
    )
    return {"params": state.params, "batch_stats": state.batch_stats}


def check_start(config: Config, weights: Pretrained | None) -> None:
    """Refuses before any work what training could not start from.

    Raises:
        ConfigError: Weights of another network, or stored statistics wanted where there are none.
    """
    shapes = initial_shapes(config)
    if weights:
        check_fit(shapes, weights)
        if weights.layouts and config.model.layout not in weights.layouts:
            raise ConfigError(
                f"`model.layout` {config.model.layout}: {weights.source} was trained in another graph; "
                f"give `model.layout` {' or '.join(weights.layouts)}"
            )
    elif config.model.batch_norm == "frozen" and shapes["batch_stats"]:
        raise ConfigError(
            "`model.batch_norm` frozen: a network with random weights has no statistics to freeze; "
            "give `model.weights`, or choose batch"
        )


def as_pretrained(
    state: TrainState, source: str, layouts: tuple[str, ...], *, keep_eigenlayer: bool = False
) -> Pretrained:
    """Returns the backbone of a trained state, for another run to start from; of a mean image, the mean colour.

    Args:
        state: What was trained.
        source: What it is, for the log.
        layouts: Graphs in which its weights mean something.
        keep_eigenlayer: Take Eigenlayer and neck along.
    """

    def backbone(tree: Any) -> dict[str, np.ndarray]:
        return {path: np.asarray(leaf) for path, leaf in parameter_paths(tree.get("backbone", {})).items()}

    red, green, blue = np.asarray(state.pixels["mean"]).mean(axis=(0, 1)).tolist()
    std = np.asarray(state.pixels["std"]).ravel().tolist()
    above = above_backbone(state.variables) if keep_eigenlayer else {}
    return Pretrained(
        params=backbone(state.params),
        batch_stats=backbone(state.batch_stats),
        mean=(red, green, blue),
        std=(std[0], std[1], std[2]),
        head=None,
        source=source,
        layouts=layouts,
        eigenlayer={path: np.asarray(leaf) for path, leaf in above.items()} or None,
    )
