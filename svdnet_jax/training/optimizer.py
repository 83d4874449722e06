"""The optimiser of a phase: stochastic gradient descent on the trainable weights, nothing on the frozen ones.

Two traps are avoided by `optax.partition`: `optax.masked` alone lets raw gradients through to the frozen weights,
and zeroing gradients alone lets weight decay and old momentum move them.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from svdnet_jax.config import ConfigError, Optimizer
from svdnet_jax.models.svdnet import parameter_paths


def weight_labels(params: Mapping[str, Any], freeze: tuple[str, ...]) -> PyTree[str]:
    """A tree like ``params`` that says of each leaf: ``frozen``, ``bias`` (no weight decay) or ``weight``.

    Args:
        params: Parameters, or their shapes.
        freeze: Shell patterns over paths, such as ``eigenlayer/*``; ``*`` crosses slashes.

    Raises:
        ConfigError: A pattern that no path matches, or nothing left to train.
    """
    paths = parameter_paths(params)
    for pattern in freeze:
        if not any(fnmatchcase(path, pattern) for path in paths):
            known = ", ".join(sorted({f"{path.rsplit('/', 1)[0]}/*" for path in paths}))
            raise ConfigError(f"freeze pattern {pattern!r} matches no weight; there are {known}")

    def label(path: str) -> str:
        if any(fnmatchcase(path, pattern) for pattern in freeze):
            return "frozen"
        return "bias" if path.endswith("/bias") else "weight"

    found = [label(path) for path in paths]
    if set(found) == {"frozen"}:
        raise ConfigError(f"freeze patterns {', '.join(freeze)} leave no weight to train")
    return jax.tree.unflatten(jax.tree.structure(params), found)


def sgd(labels: PyTree[str], settings: Optimizer) -> optax.GradientTransformation:
    """Momentum SGD with weight decay, the learning rate held as data in the optimiser's state.

    The rate multiplies the gradient before it enters the momentum, as in Caffe: after a drop of the rate the
    velocity fades instead of shrinking at once. Decay is added to the gradient, and spares biases.
    """

    def descent(learning_rate: Float[Array, ""], decay: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(decay),
            optax.scale_by_learning_rate(learning_rate),
            optax.trace(settings.momentum),
        )

    def by_label(learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        transforms = {
            "weight": descent(learning_rate, settings.weight_decay),
            "bias": descent(learning_rate, 0.0),
            "frozen": optax.set_to_zero(),
        }
        return optax.partition(transforms, labels)

    return optax.inject_hyperparams(by_label)(learning_rate=0.0)


def with_learning_rate(opt_state: Any, learning_rate: float) -> Any:
    """The optimiser's state with another learning rate; no program is compiled anew for it."""
    old = opt_state.hyperparams["learning_rate"]
    rate = jax.device_put(jnp.asarray(learning_rate, old.dtype), old.sharding)
    return opt_state._replace(hyperparams={**opt_state.hyperparams, "learning_rate": rate})
