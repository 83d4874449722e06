"""Who is trained, who is not, and that Caffe's form of momentum is what comes out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from svdnet_jax.config import ConfigError, Optimizer
from svdnet_jax.training.optimizer import sgd, weight_labels, with_learning_rate

PARAMS = {
    "backbone": {"bn": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}, "conv": {"kernel": jnp.ones((2, 2))}},
    "eigenlayer": {"kernel": jnp.ones((3, 2)) / 2},
    "classifier": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
}
GRADIENTS = jax.tree.map(lambda x: x * 0 + jnp.float32(0.1), PARAMS)


def test_labels_tell_weights_biases_and_frozen_apart():
    labels = weight_labels(PARAMS, ("eigenlayer/*", "*/bn/scale"))
    assert labels == {
        "backbone": {"bn": {"scale": "frozen", "bias": "bias"}, "conv": {"kernel": "weight"}},
        "eigenlayer": {"kernel": "frozen"},
        "classifier": {"kernel": "weight", "bias": "bias"},
    }


@pytest.mark.parametrize(("freeze", "message"), [(("eigen",), "matches no weight"), (("*",), "no weight to train")])
def test_patterns_that_cannot_be_meant_are_refused(freeze, message):
    with pytest.raises(ConfigError, match=message):
        weight_labels(PARAMS, freeze)


def test_frozen_weights_stay_with_momentum_and_decay():
    optimizer = sgd(weight_labels(PARAMS, ("eigenlayer/*", "*/bn/*")), Optimizer(weight_decay=0.1))
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


@pytest.mark.parametrize(("leaf", "decay"), [("kernel", 0.01), ("bias", 0.0)])
def test_steps_equal_caffes_solver_also_across_a_drop_of_the_rate(leaf, decay):
    settings = Optimizer(momentum=0.9, weight_decay=0.01)
    params = {"layer": {leaf: jnp.array([2.0])}}
    optimizer = sgd(weight_labels(params, ()), settings)
    state = optimizer.init(params)
    gradients, rates = [0.3, -0.1, 0.2, 0.5], [0.1, 0.1, 0.01, 0.01]
    for gradient, rate in zip(gradients, rates, strict=True):
        state = with_learning_rate(state, rate)
        updates, state = optimizer.update({"layer": {leaf: jnp.array([gradient])}}, state, params)
        params = optax.apply_updates(params, updates)
    # Four steps of float32 arithmetic on numbers near one.
    np.testing.assert_allclose(params["layer"][leaf], caffe_sgd(2.0, gradients, rates, 0.9, decay), rtol=1e-6)


def test_the_learning_rate_is_data():
    optimizer = sgd(weight_labels(PARAMS, ()), Optimizer())

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(gradients, state, params):
        return optimizer.update(gradients, state, params)

    state = optimizer.init(PARAMS)
    for rate in (0.1, 0.01, 0.001):
        _, state = update(GRADIENTS, with_learning_rate(state, rate), PARAMS)
