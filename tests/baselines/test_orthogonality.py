"""Penalties of orthogonality: their zeros, their values by slow definitions, their gradients by finite differences."""

from typing import get_args

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from svdnet_jax.baselines import orthogonality
from svdnet_jax.baselines.orthogonality import (
    double_soft_orthogonality,
    feature_spectral_difference,
    mutual_coherence,
    penalty,
    rescale,
    soft_orthogonality,
    spectral_difference,
    srip,
)
from svdnet_jax.eigenlayer import correlation

pytestmark = pytest.mark.unoptimized

KINDS = get_args(orthogonality.Penalty)
SCALES = get_args(orthogonality.Scale)
# A sum of a few dozen float32 products that should be 0 or 1.
ROUNDING = 2e-6
CONVERGED = 3000
# Compiled, since JAX compiles a loop outside of jit anew at every call.
compiled = jax.jit(penalty, static_argnames=("kind", "scale", "iterations"))


@st.composite
def matrices(draw):
    """Correlated W (C, D) of few shapes, since each is compiled anew."""
    C, D = draw(st.sampled_from([(12, 5), (6, 6), (4, 7)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    common = draw(st.floats(0, 2)) * rng.normal(size=(C, 1))
    return jnp.asarray((rng.normal(size=(C, D)) + common) * draw(st.floats(0.01, 2)), jnp.float32)


def orthonormal(seed, C=12, D=5):
    return jnp.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(C, D)))[0], jnp.float32)


def exact(W, kind):
    """Each penalty as its paper writes it, with all eigenvalues."""
    W = np.asarray(W, np.float64)
    inner, outer = W.T @ W - np.eye(W.shape[1]), W @ W.T - np.eye(W.shape[0])
    eigenvalues = np.linalg.eigvalsh(W.T @ W)
    return {
        "soft": np.linalg.norm(inner) ** 2,
        "double-soft": np.linalg.norm(inner) ** 2 + np.linalg.norm(outer) ** 2,
        "coherence": max(abs(entry) for row in inner for entry in row),
        "srip": np.abs(np.linalg.eigvalsh(inner)).max(),
        "spectral-difference": eigenvalues[-1] - eigenvalues[0],
    }[kind]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_on_orthonormal_columns(kind, scale):
    for seed in range(5):
        W = orthonormal(seed)
        # WWᵀ has rank 5 of 12, so the second part of double soft counts 7 missing dimensions.
        expected = 7 if kind == "double-soft" else 0
        assert float(compiled(W, kind, scale)) == pytest.approx(expected, abs=ROUNDING)
    square = orthonormal(0, 6, 6)
    assert float(compiled(square, kind, scale)) == pytest.approx(0, abs=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
def test_scales_say_which_lengths_count(kind):
    W = orthonormal(1, 6, 6)
    short, uneven = W * 0.03, W * jnp.array([[0.02, 0.05, 1.0, 2.0, 0.3, 0.7]])
    if kind != "spectral-difference":
        assert float(compiled(short, kind, "none")) > 0.5
    assert float(compiled(short, kind, "common")) == pytest.approx(0, abs=ROUNDING)
    assert float(compiled(uneven, kind, "common")) > 0.1
    assert float(compiled(uneven, kind, "columns")) == pytest.approx(0, abs=ROUNDING)


@given(matrices(), st.sampled_from(KINDS), st.floats(0.01, 100), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_what_a_scale_takes_out_does_not_matter(W, kind, factor, seed):
    factors = jnp.asarray(np.random.default_rng(seed).uniform(0.1, 10, (1, W.shape[1])), jnp.float32)
    common, columns = compiled(W, kind, "common"), compiled(W, kind, "columns")
    # Values are sums of squares of entries up to D; few steps of power iteration magnify nothing.
    close = {"rtol": 1e-4, "atol": 1e-4}
    chex.assert_trees_all_close(compiled(W * jnp.float32(factor), kind, "common"), common, **close)
    chex.assert_trees_all_close(compiled(W * factors, kind, "columns"), columns, **close)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_the_papers_definitions(kind, scale):
    rng = np.random.default_rng(7)
    with jax.enable_x64(True):
        for C, D in [(9, 4), (3, 6)]:
            W = jnp.asarray(rng.normal(size=(C, D)))
            value = float(compiled(W, kind, scale, iterations=CONVERGED))
            assert value == pytest.approx(exact(rescale(W, scale), kind), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind, scale):
    rng = np.random.default_rng(11)
    with jax.enable_x64(True):
        W = jnp.asarray(rng.normal(size=(7, 4)))
        gradient = jax.jit(jax.grad(lambda W: penalty(W, kind, scale, iterations=CONVERGED)))(W)
        for _ in range(4):
            direction, step = jnp.asarray(rng.normal(size=W.shape)), 1e-5
            # Of the slow definitions, so that the derivative is checked against the mathematics and not against itself.
            ahead, behind = (exact(rescale(W + sign * step * direction, scale), kind) for sign in (1, -1))
            assert float(jnp.sum(gradient * direction)) == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


@given(matrices(), st.sampled_from(["srip", "spectral-difference"]), st.sampled_from([1, 20]))
@settings(deadline=None, max_examples=60)
def test_power_iteration_approaches_eigenvalues_from_below(W, kind, iterations):
    value, bound = float(compiled(W, kind, iterations=iterations)), exact(W, kind)
    largest = exact(W, "srip") + 1
    assert -1e-5 * largest <= value <= bound + 1e-5 * largest


@pytest.mark.parametrize("kind", ["srip", "spectral-difference"])
def test_the_default_number_of_steps_is_near(kind):
    """On random matrices, whose eigenvalues crowd, as near as ITERATIONS promises."""
    for seed in range(10):
        W = jnp.asarray(np.random.default_rng(seed).normal(size=(64, 32)) / 8, jnp.float32)
        assert float(compiled(W, kind)) > 0.85 * exact(W, kind)


def test_double_soft_has_twice_the_gradient_of_soft():
    W = jax.random.normal(jax.random.key(0), (8, 5))
    twice = jax.grad(double_soft_orthogonality)(W)
    chex.assert_trees_all_close(twice, 2 * jax.grad(soft_orthogonality)(W), rtol=1e-6)


def test_penalties_by_hand():
    W = jnp.array([[1.0, 1.0], [0.0, -1.0], [0.0, 0.0]])  # WᵀW - I is ((0, 1), (1, 1)).
    golden = (1 + 5**0.5) / 2
    assert float(soft_orthogonality(W)) == 3
    assert float(double_soft_orthogonality(W)) == 7
    assert float(mutual_coherence(W)) == 1
    assert float(srip(W)) == pytest.approx(golden, rel=1e-6)
    assert float(spectral_difference(W)) == pytest.approx(5**0.5, rel=1e-6)


def test_srip_of_eigenvalues_of_opposite_sign():
    """Two unit columns at an angle: WᵀW - I has the eigenvalues cos and -cos, between which no step decides."""
    for cosine in (0.9, -0.9):
        W = jnp.array([[1.0, cosine], [0.0, (1 - cosine**2) ** 0.5]])
        for iterations in (1, 2, 5):
            assert float(srip(W, iterations)) == pytest.approx(0.9, rel=1e-5)


def test_no_eigenvector_is_missed():
    """Those of WᵀW are (1, 1) and (1, -1), in either order: a start of equal entries would see one of them only."""
    for cosine in (0.9, -0.9):
        W = jnp.array([[1.0, cosine], [0.0, (1 - cosine**2) ** 0.5]])
        assert float(spectral_difference(W)) == pytest.approx(1.8, rel=1e-5)


def test_equal_eigenvalues_have_no_difference():
    """WᵀW = c I: the shifted matrix is zero, and no vector can be made from it."""
    assert float(spectral_difference(2 * jnp.eye(6, 4))) == 0
    assert float(spectral_difference(jnp.zeros((6, 4)))) == 0


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_at_the_corners(kind, scale):
    gradient = jax.jit(jax.grad(lambda W: penalty(W, kind, scale)))
    chex.assert_trees_all_close(gradient(jnp.eye(6, 4)), jnp.zeros((6, 4)), atol=1e-6)
    for corner in (jnp.zeros((6, 4)), jnp.ones((6, 4)), jnp.eye(6, 4).at[0, 0].set(0)):
        assert bool(jnp.isfinite(gradient(corner)).all())


@pytest.mark.parametrize("kind", KINDS)
def test_descending_a_penalty_decorrelates(kind):
    rng = np.random.default_rng(3)
    W = jnp.asarray(rng.normal(size=(16, 6)) + rng.normal(size=(16, 1)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda W: penalty(W, kind, "columns")))
    before = float(correlation(W))
    for _ in range(300):
        step = gradient(W)
        W = W - jnp.float32(0.05) * step / jnp.maximum(jnp.linalg.norm(step), 0.1)
    assert float(correlation(W)) > before + 0.2


def test_vectors_of_power_iteration_are_constants_to_the_derivative():
    """Then the gradient is 2 W (v vᵀ - u uᵀ), of rank two; through the steps it would be of full rank."""
    W = jax.random.normal(jax.random.key(0), (7, 5))
    values = jnp.linalg.svd(jax.grad(lambda W: spectral_difference(W, 2))(W), compute_uv=False)
    assert float(values[2]) < 1e-5 * float(values[0])


def test_penalties_are_functions_of_their_arguments():
    W = jax.random.normal(jax.random.key(0), (7, 5))
    for kind in KINDS:
        assert float(penalty(W, kind)) == float(penalty(W, kind))
        chex.assert_trees_all_close(jax.jit(lambda W, kind=kind: penalty(W, kind))(W), penalty(W, kind), rtol=1e-5)


def test_features_are_penalised_by_channel_and_image():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        features = jnp.asarray(rng.normal(size=(3, 4, 2, 5)))
        differences = []
        for image in np.asarray(features):
            F = image.transpose(2, 0, 1).reshape(5, 8)  # ABD-Net's layout: one channel a row.
            eigenvalues = np.linalg.eigvalsh(F @ F.T)
            differences.append(eigenvalues[-1] - eigenvalues[0])
        both = jax.jit(jax.value_and_grad(feature_spectral_difference), static_argnums=1)
        value, gradient = both(features, CONVERGED)
        assert float(value) == pytest.approx(np.mean(differences), rel=1e-9)
        direction, step = jnp.asarray(rng.normal(size=features.shape)), 1e-6
        ahead, behind = (feature_spectral_difference(features + sign * step * direction, CONVERGED) for sign in (1, -1))
        assert float(jnp.sum(gradient * direction)) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


def test_orthogonal_channels_of_one_length_cost_nothing():
    features = jnp.stack([orthonormal(seed, 8, 5).reshape(4, 2, 5) * 3 for seed in range(2)])
    assert float(feature_spectral_difference(features)) == pytest.approx(0, abs=9 * ROUNDING)


def test_more_channels_than_pixels_leave_the_largest_eigenvalue():
    features = jax.random.normal(jax.random.key(0), (1, 2, 2, 40))
    largest = float(jnp.linalg.norm(features.reshape(4, 40), 2)) ** 2
    assert float(feature_spectral_difference(features, 200)) == pytest.approx(largest, rel=1e-4)


@pytest.mark.usefixtures("as_user")
def test_what_is_no_penalty_is_refused():
    W = jnp.eye(3)
    with pytest.raises(ValueError, match="'hard'; choose one of soft, double-soft, coherence, srip, spectral-diff"):
        penalty(W, "hard")
    with pytest.raises(ValueError, match="'rows'; choose one of none, common, columns"):
        penalty(W, "soft", "rows")
    with pytest.raises(ValueError, match="at least 1; found 0"):
        srip(W, 0)
    for function in (soft_orthogonality, mutual_coherence, srip, spectral_difference):
        with pytest.raises(ValueError, match="float matrix"):
            function(jnp.ones(3))
