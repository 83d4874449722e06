"""The optimizer of a phase: descent on the trainable weights, nothing on the frozen ones.

Two traps are avoided by `optax.partition`: `optax.masked` alone lets raw gradients through to the frozen weights,
and zeroing gradients alone lets weight decay and old momentum move them.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from svdnet_jax.config.schema import Optimizer, Phase
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import parameter_paths


class Group(NamedTuple):
    """How a group of weights is trained."""

    rate: float
    """Factor of the learning rate; 0 for frozen weights."""
    decay: float
    """Weight decay."""

    def __str__(self) -> str:
        """Returns the label of its weights."""
        return f"rate x{self.rate:g}, decay {self.decay:g}" if self.rate else "frozen"


FROZEN = Group(0.0, 0.0)
SGD = Optimizer()
"""The settings' own."""


def weight_groups(params: Mapping[str, Any], phase: Phase, settings: Optimizer) -> PyTree[Group]:
    """Returns a tree like ``params`` that says of each leaf how it is trained in a phase.

    Args:
        params: Parameters, or their shapes.
        phase: Its patterns are shell patterns over paths, such as ``eigenlayer/*``; ``*`` crosses slashes.
        settings: Weight decay, and what is spared it.

    Raises:
        ConfigError: A pattern of the phase that no path matches, or nothing left to train.
    """
    paths = parameter_paths(params)
    for pattern in (*phase.freeze, *(pattern for pattern, _ in phase.multipliers)):
        if not _matches(pattern, paths):
            known = ", ".join(sorted({f"{path.rsplit('/', 1)[0]}/*" for path in paths}))
            raise ConfigError(f"pattern {pattern!r} matches no weight; there are {known}")

    def group(path: str) -> Group:
        if any(fnmatchcase(path, pattern) for pattern in phase.freeze):
            return FROZEN
        rates = [factor for pattern, factor in phase.multipliers if fnmatchcase(path, pattern)]
        spared = any(fnmatchcase(path, pattern) for pattern in settings.no_decay)
        return Group(rates[0] if rates else 1.0, 0.0 if spared else settings.weight_decay)

    groups = [group(path) for path in paths]
    if set(groups) == {FROZEN}:
        raise ConfigError(f"freeze patterns {', '.join(phase.freeze)} leave no weight to train")
    return jax.tree.unflatten(jax.tree.structure(params), groups)


def make_optimizer(
    params: Mapping[str, Any],
    *,
    freeze: Sequence[str] = (),
    lr_multipliers: Sequence[tuple[str, float]] = (),
    settings: Optimizer = SGD,
) -> optax.GradientTransformation:
    """Returns SGD or Adam for the weights of a phase, the learning rate held as data in the optimizer's state.

    SGD is Caffe's: the rate multiplies the gradient before it enters the momentum, so after a drop of the rate the
    velocity fades instead of shrinking at once. Decay is added to the gradient in both.

    A new state has no learning rate, and an update refuses it: `begin_phase` sets the first one, and
    `with_learning_rate` another.

    Args:
        params: Parameters of the network, or their shapes.
        freeze: Shell patterns over paths of weights that do not move, such as ``eigenlayer/*``; ``*`` crosses slashes.
        lr_multipliers: Patterns and factors of the learning rate; the first that matches counts.
        settings: Momentum, weight decay, and what is spared it.

    Raises:
        ConfigError: A pattern that no path matches, or nothing left to train.

    Examples:
        >>> params = {"eigenlayer": {"kernel": jnp.ones(2)}, "classifier": {"kernel": jnp.ones(2)}}
        >>> restrained = make_optimizer(params, freeze=("eigenlayer/*",))
        >>> opt_state = with_learning_rate(restrained.init(params), 0.1)
        >>> updates, _ = restrained.update(params, opt_state, params)
        >>> print(updates["eigenlayer"]["kernel"], updates["classifier"]["kernel"] < 0)
        [0. 0.] [ True  True]
    """
    phase = Phase(steps=1, freeze=tuple(freeze), multipliers=tuple(lr_multipliers))
    groups = weight_groups(params, phase, settings)
    leaves = jax.tree.leaves(groups, is_leaf=_is_group)
    labels = jax.tree.map(str, groups, is_leaf=_is_group)

    def train(group: Group, learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        if group == FROZEN:
            return optax.set_to_zero()
        descend = optax.scale_by_learning_rate(learning_rate * group.rate)
        decay = optax.add_decayed_weights(group.decay)
        if settings.method == "adam":
            return optax.chain(decay, optax.scale_by_adam(), descend)
        return optax.chain(decay, descend, optax.trace(settings.momentum))

    def by_group(learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        return optax.partition({str(group): train(group, learning_rate) for group in set(leaves)}, labels)

    # An array, as a Python number would be of a weak type and the first step compiled twice.
    injected = optax.inject_hyperparams(by_group)(learning_rate=np.zeros((), np.float32))

    def init(params: PyTree[Array]) -> Any:
        return _with_rate(injected.init(params), None)

    def update(gradients: PyTree[Array], opt_state: Any, params: PyTree[Array] | None = None) -> Any:
        if opt_state.hyperparams["learning_rate"] is None:
            raise ValueError(
                "the optimizer has no learning rate yet. Start the phase with svdnet_jax.training.begin_phase(state, "
                "optimizer, learning_rate=0.1), or set one with with_learning_rate(opt_state, 0.1)"
            )
        return injected.update(gradients, opt_state, params)

    return optax.GradientTransformation(init, update)


def with_learning_rate(opt_state: Any, learning_rate: Float[Array, ""] | float) -> Any:
    """Returns the optimizer's state with another learning rate; no program is compiled anew for it.

    Args:
        opt_state: State of an optimizer of `make_optimizer`.
        learning_rate: Per step, before the multipliers.
    """
    return _with_rate(opt_state, jnp.asarray(learning_rate, jnp.float32))


def check_begun(opt_state: Any, optimizer: optax.GradientTransformation, params: PyTree[Array]) -> None:
    """Refuses an optimizer's state that is not of this optimizer and these weights. Looks at shapes only.

    Raises:
        ValueError: Says what to do.
    """
    expected = jax.eval_shape(optimizer.init, params)
    if hasattr(opt_state, "hyperparams") and hasattr(expected, "hyperparams"):
        opt_state, expected = _with_rate(opt_state, None), _with_rate(expected, None)
    actual, wanted = (
        ([np.shape(leaf) for leaf in leaves], tree) for leaves, tree in map(jax.tree.flatten, (opt_state, expected))
    )
    if actual != wanted:
        raise ValueError(
            "state.opt_state is not a state of this optimizer and these weights"
            + (": the phase was not begun" if not jax.tree.leaves(opt_state) else ": it is of another phase or network")
            + ". Start each phase with svdnet_jax.training.begin_phase(state, optimizer, learning_rate)"
        )


def _with_rate(opt_state: Any, learning_rate: Float[Array, ""] | None) -> Any:
    return opt_state._replace(hyperparams={**opt_state.hyperparams, "learning_rate": learning_rate})


def _matches(pattern: str, paths: Sequence[str] | Mapping[str, Any]) -> bool:
    return any(fnmatchcase(path, pattern) for path in paths)


def _is_group(tree: Any) -> bool:
    return isinstance(tree, Group)
