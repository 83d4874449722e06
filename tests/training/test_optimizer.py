"""Who is trained, who is not, and that Caffe's form of momentum is what comes out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svdnet_jax.config.schema import Optimizer, Phase
from svdnet_jax.errors import ConfigError
from svdnet_jax.training.optimizer import FROZEN, Group, make_optimizer, weight_groups, with_learning_rate

PARAMS = {
    "backbone": {"bn": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}, "conv": {"kernel": jnp.ones((2, 2))}},
    "eigenlayer": {"kernel": jnp.ones((3, 2)) / 2},
    "classifier": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}
GRADIENTS = jax.tree.map(lambda x: x * 0 + jnp.float32(0.1), PARAMS)


def optimizer_of(settings, params=PARAMS, **phase):
    return make_optimizer(params, settings=settings, **phase)


def test_groups_tell_who_is_trained_how():
    phase = Phase(
        steps=1,
        freeze=("eigenlayer/*", "*/bn/scale"),
        multipliers=(("classifier/bias", 2.0), ("classifier/*", 0.5)),
    )
    groups = weight_groups(PARAMS, phase, Optimizer(weight_decay=0.1, no_decay=("*/bias",)))
    assert groups == {
        "backbone": {"bn": {"scale": FROZEN, "bias": Group(1.0, 0.0)}, "conv": {"kernel": Group(1.0, 0.1)}},
        "eigenlayer": {"kernel": FROZEN},
        "classifier": {"kernel": Group(0.5, 0.1), "bias": Group(2.0, 0.0)},
    }


@pytest.mark.parametrize(("freeze", "message"), [(("eigen",), "matches no weight"), (("*",), "no weight to train")])
def test_patterns_that_cannot_be_meant_are_refused(freeze, message):
    with pytest.raises(ConfigError, match=message):
        weight_groups(PARAMS, Phase(steps=1, freeze=freeze), Optimizer())


def test_a_multiplier_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="'fc9/\\*' matches no weight"):
        weight_groups(PARAMS, Phase(steps=1, multipliers=(("fc9/*", 2.0),)), Optimizer())


@pytest.fixture
def lenient():
    """optax's Adam raises a float to an integer power, which JAX's strict mode refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_frozen_weights_stay_with_momentum_and_decay(method):
    optimizer = optimizer_of(Optimizer(method=method, weight_decay=0.1), freeze=("eigenlayer/*", "*/bn/*"))
    params, state = PARAMS, with_learning_rate(optimizer.init(PARAMS), 0.1)
    for _ in range(5):
        updates, state = optimizer.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal(params["eigenlayer"], PARAMS["eigenlayer"])
    chex.assert_trees_all_equal(params["backbone"]["bn"], PARAMS["backbone"]["bn"])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params["classifier"], PARAMS["classifier"])
    assert min(jax.tree.leaves(moved)) > 0.01


def caffe_sgd(weight, gradients, rates, momentum, decay):
    """Caffe's solver, written out: v = momentum v + rate (gradient + decay w); w = w - v."""
    velocity = 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + rate * (gradient + decay * weight)
        weight = weight - velocity
    return weight


@pytest.mark.parametrize(("leaf", "decay", "factor"), [("kernel", 0.01, 1.0), ("bias", 0.0, 1.0), ("bias", 0.0, 2.0)])
def test_steps_equal_caffes_solver_also_across_a_drop_of_the_rate(leaf, decay, factor):
    settings = Optimizer(momentum=0.9, weight_decay=0.01)
    params = {"layer": {leaf: jnp.array([2.0])}}
    optimizer = optimizer_of(settings, params, lr_multipliers=((f"layer/{leaf}", factor),))
    state = optimizer.init(params)
    gradients, rates = [0.3, -0.1, 0.2, 0.5], [0.1, 0.1, 0.01, 0.01]
    for gradient, rate in zip(gradients, rates, strict=True):
        state = with_learning_rate(state, rate)
        updates, state = optimizer.update({"layer": {leaf: jnp.array([gradient])}}, state, params)
        params = optax.apply_updates(params, updates)
    expected = caffe_sgd(2.0, gradients, [factor * rate for rate in rates], 0.9, decay)
    # Four steps of float32 arithmetic on numbers near one.
    np.testing.assert_allclose(params["layer"][leaf], expected, rtol=1e-6)


@pytest.mark.usefixtures("lenient")
def test_steps_equal_adam_with_decay_in_the_gradient():
    settings = Optimizer(method="adam", weight_decay=0.01, no_decay=())
    params = {"layer": {"bias": jnp.array([2.0])}}
    optimizer = optimizer_of(settings, params)
    state = with_learning_rate(optimizer.init(params), 0.1)
    weight, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate([0.3, -0.1, 0.2], start=1):
        updates, state = optimizer.update({"layer": {"bias": jnp.array([gradient])}}, state, params)
        params = optax.apply_updates(params, updates)
        g = gradient + 0.01 * weight
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        weight -= 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    # 1 - 0.999 is known to 5e-5 in float32, and the root halves that.
    np.testing.assert_allclose(params["layer"]["bias"], weight, rtol=1e-5)


def test_the_learning_rate_is_data():
    optimizer = optimizer_of(Optimizer())

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(gradients, state, params):
        return optimizer.update(gradients, state, params)

    state = optimizer.init(PARAMS)
    for rate in (0.1, 0.01, 0.001):
        _, state = update(GRADIENTS, with_learning_rate(state, rate), PARAMS)
