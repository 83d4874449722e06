"""Losses against loops over images, and their gradients against finite differences."""

import math

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from jax.test_util import check_grads

from svdnet_jax.training.losses import batch_hard_triplet, softmax

pytestmark = pytest.mark.unoptimized

MARGINS = [None, 0.3]
# Compiled, and of one shape wherever it does not matter, as compiling is what these tests spend their time on.
triplet = jax.jit(batch_hard_triplet, static_argnums=2)
with_gradient = jax.jit(jax.value_and_grad(batch_hard_triplet), static_argnums=2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_softmax_by_hand(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)).astype(np.float32) * 3, rng.integers(0, 5, 6).astype(np.int32)
    total = 0.0
    for row, label in zip(logits.astype(float), labels, strict=True):
        for k in range(5):
            target = smoothing / 5 + (1 - smoothing if k == label else 0)
            total -= target * (row[k] - math.log(sum(math.exp(value) for value in row)))
    # Sums of some numbers up to ten in float32.
    assert float(softmax(jnp.asarray(logits), jnp.asarray(labels), smoothing)) == pytest.approx(total / 6, rel=1e-6)


def test_without_smoothing_it_is_the_plain_cross_entropy_and_stands_large_logits():
    logits, labels = jnp.array([[1e4, 0.0, -1e4], [0.0, 1.0, 2.0]]), jnp.array([1, 2], jnp.int32)
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    assert float(softmax(logits, labels, 0.0)) == pytest.approx(float(plain), rel=1e-6)


def slow_triplet(features, labels, margin):
    """Equation 5 of Hermans et al., image by image."""
    losses = []
    for a in range(len(labels)):
        near = [math.dist(features[a], features[i]) for i in range(len(labels)) if labels[i] == labels[a] and i != a]
        far = [math.dist(features[a], features[i]) for i in range(len(labels)) if labels[i] != labels[a]]
        if near and far:
            x = max(near) - min(far)
            losses.append(math.log1p(math.exp(x)) if margin is None else max(0.0, margin + x))
    return sum(losses) / len(losses) if losses else 0.0


@given(st.lists(st.integers(0, 3), min_size=8, max_size=8), st.sampled_from(MARGINS), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_triplet_equals_the_loop(labels, margin, seed):
    features = np.random.default_rng(seed).normal(size=(8, 5)).astype(np.float32)
    features[1] = features[0]  # Two images with one feature.
    loss = triplet(features, np.array(labels, np.int32), margin)
    chex.assert_shape(loss, ())
    # Distances near three, to a few roundings of float32; their differences are small where losses cancel.
    assert float(loss) == pytest.approx(slow_triplet(features.astype(float), labels, margin), rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("margin", MARGINS)
def test_gradients_of_the_triplet_loss_are_finite_differences(margin):
    labels = jnp.array([0, 0, 0, 1, 1, 2, 2, 3], jnp.int32)
    with jax.enable_x64(True):
        features = jax.random.normal(jax.random.key(0), (8, 5), jnp.float64)
        assert float(triplet(features, labels, margin)) > 0
        # float64 with steps of 1e-5 (the default): errors of 1e-10 each from rounding and from curvature.
        check_grads(lambda x: triplet(x, labels, margin), (features,), 1, modes=["rev"], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("margin", MARGINS)
def test_equal_features_give_no_nan(margin):
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3], np.int32)
    some = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    some[[1, 4]] = some[[0, 2]]  # Two of one identity, and two of different ones.
    for features in (np.ones((8, 5), np.float32), some):
        loss, gradient = with_gradient(features, labels, margin)
        assert float(loss) == pytest.approx(slow_triplet(features.astype(float), labels, margin), rel=1e-5)
        assert np.isfinite(gradient).all()


def test_all_in_one_point_costs_log_two_or_the_margin():
    features, labels = np.ones((8, 5), np.float32), np.arange(8, dtype=np.int32) % 4
    assert float(triplet(features, labels, None)) == pytest.approx(math.log(2))
    assert float(triplet(features, labels, 0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("labels", [range(8), [5] * 8], ids=["nobody twice", "one person"])
def test_batches_without_triplets_cost_nothing(labels, margin):
    features = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    loss, gradient = with_gradient(features, np.array(labels, np.int32), margin)
    assert float(loss) == 0.0
    assert not np.asarray(gradient).any()


def test_images_without_a_positive_are_negatives_and_no_anchors():
    # Anchors 0 and 1: farthest positive 1 and 1 away, nearest negative 3 and 2.
    loss = triplet(np.array([[0.0], [1.0], [3.0]], np.float32), np.array([0, 0, 1], np.int32), 1.5)
    assert float(loss) == pytest.approx((0.0 + 0.5) / 2)


def test_the_hardest_are_found_far_from_the_origin():
    """Features near each other and far away, as after a ReLU; the plain rule for distances loses all digits there."""
    rng = np.random.default_rng(0)
    # Multiples of 2^-10 near 64 are exact in float32.
    features = 64 + rng.integers(-10, 11, (16, 64)) / 1024
    labels = np.arange(16) % 4
    loss = triplet(features.astype(np.float32), labels.astype(np.int32), 0.05)
    assert float(loss) == pytest.approx(slow_triplet(features, labels, 0.05), rel=1e-5)


@given(st.sampled_from(MARGINS), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_order_of_the_batch_does_not_matter(margin, seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(8, 5)).astype(np.float32), rng.integers(0, 4, 8).astype(np.int32)
    order = rng.permutation(8)
    once, again = triplet(features, labels, margin), triplet(features[order], labels[order], margin)
    assert float(once) == pytest.approx(float(again), rel=1e-5, abs=2e-6)


def test_compiled_and_not_are_the_same():
    features = jax.random.normal(jax.random.key(1), (8, 5))
    labels = jnp.array([0, 0, 1, 1, 2, 2, 3, 3], jnp.int32)
    plain = batch_hard_triplet(features, labels, 0.3)
    # The compiler may add in another order.
    chex.assert_trees_all_close(triplet(features, labels, 0.3), plain, rtol=1e-6)
