"""The best approximation of lower rank, against its bound, and what it costs."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from svdnet_jax.baselines.truncated_svd import (
    Cost,
    break_even_rank,
    cost,
    rank_for_energy,
    truncate,
    truncation_error,
)
from svdnet_jax.eigenlayer import decorrelate, factorize

# Both factors are rounded to float32 once; relative to the norm of W.
ROUNDING = 1e-6


@st.composite
def matrices(draw):
    """Correlated W (C, D) with singular values over some orders of magnitude."""
    C, D = draw(st.sampled_from([(12, 7), (6, 6), (5, 9)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return jnp.asarray(
        (rng.normal(size=(C, D)) + 2 * rng.normal(size=(C, 1))) * np.exp(rng.normal(size=D)), jnp.float32
    )


def product(factors):
    return np.asarray(factors.A, np.float64) @ np.asarray(factors.B, np.float64)


@given(matrices(), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_the_error_is_the_bound_of_eckart_and_young(W, k):
    wide = np.asarray(W, np.float64)
    values = np.linalg.svd(wide, compute_uv=False)
    error = wide - product(truncate(W, k))
    tolerance = ROUNDING * np.linalg.norm(wide)
    bounds = np.sqrt((values[k:] ** 2).sum()), [*values, 0][k]
    for value, found, bound in zip(
        truncation_error(values, k), (np.linalg.norm(error), np.linalg.norm(error, 2)), bounds, strict=True
    ):
        assert value == pytest.approx(bound, rel=1e-12)
        assert found == pytest.approx(bound, abs=tolerance)


@given(matrices(), st.integers(1, 5), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_no_other_matrix_of_that_rank_is_nearer(W, k, seed):
    """Random subspaces, and the best one turned a little."""
    rng = np.random.default_rng(seed)
    wide = np.asarray(W, np.float64)
    factors = truncate(W, k)
    best = np.linalg.norm(wide - product(factors))
    turned = np.asarray(factors.B, np.float64) + 0.1 * rng.normal(size=factors.B.shape)
    for rows in (rng.normal(size=factors.B.shape), turned):
        Q = np.linalg.qr(rows.T)[0]
        assert np.linalg.norm(wide - wide @ Q @ Q.T) >= best - ROUNDING * np.linalg.norm(wide)


@given(matrices(), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_factors_are_as_described(W, k):
    factors = truncate(W, k)
    assert factors.A.shape == (W.shape[0], k)
    assert factors.B.shape == (k, W.shape[1])
    assert factors.A.dtype == factors.B.dtype == W.dtype
    A, B = (np.asarray(factor, np.float64) for factor in factors)
    np.testing.assert_allclose(B @ B.T, np.eye(k), atol=1e-6)
    values = np.linalg.svd(np.asarray(W, np.float64), compute_uv=False)
    np.testing.assert_allclose(A.T @ A, np.diag(values[:k] ** 2), atol=1e-6 * values[0] ** 2)


@given(matrices(), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_retrieval_can_leave_the_second_factor_away(W, k):
    H = np.random.default_rng(0).normal(size=(8, W.shape[0]))
    factors = truncate(W, k)

    def distances(f):
        return np.linalg.norm(f[:, None] - f[None], axis=-1)

    whole = distances(H @ product(factors))
    np.testing.assert_allclose(distances(H @ np.asarray(factors.A, np.float64)), whole, atol=1e-6 * whole.max())


def test_full_rank_is_the_matrix_and_its_us():
    W = jax.random.normal(jax.random.key(0), (9, 5))
    factors = truncate(W, 5)
    np.testing.assert_allclose(product(factors), W, atol=1e-6)
    np.testing.assert_array_equal(factors.A, decorrelate(W, "us"))
    assert truncation_error(factorize(W)[1], 5) == (0.0, 0.0)


def test_factorize_gives_back_the_matrix_in_float64():
    W = jax.random.normal(jax.random.key(0), (4, 6))
    U, S, Vt = factorize(W)
    assert U.dtype == S.dtype == Vt.dtype == np.float64
    np.testing.assert_allclose(U * S @ Vt, np.asarray(W, np.float64), atol=1e-14)
    assert (np.diff(S) <= 0).all()


@given(matrices(), st.floats(0.01, 1))
@settings(deadline=None, max_examples=60)
def test_rank_for_energy_is_the_smallest_that_will_do(W, share):
    values = factorize(W)[1]
    kept = [float((values[:k] ** 2).sum() / (values**2).sum()) for k in range(len(values) + 1)]
    k = rank_for_energy(values, share)
    assert kept[k] >= share - 1e-12
    assert kept[k - 1] < share + 1e-12


def test_rank_for_energy_by_hand():
    values = np.array([3.0, 2.0, 1.0, 0.0])  # energies 9, 4, 1 of 14
    assert [rank_for_energy(values, share) for share in (0.1, 9 / 14, 0.65, 0.95, 1.0)] == [1, 1, 2, 3, 3]


def test_costs_by_hand():
    assert cost(2048, 1024) == Cost(2_097_152, 2_097_152)
    assert cost(2048, 1024, 100) == Cost(307_200, 307_200)
    assert break_even_rank(2048, 1024) == 682
    factors = truncate(jnp.ones((6, 4)), 2)
    assert cost(6, 4, 2).parameters == factors.A.size + factors.B.size


@given(st.integers(1, 60), st.integers(1, 60))
def test_break_even_is_the_last_rank_that_saves(C, D):
    k = break_even_rank(C, D)
    assert k == 0 or cost(C, D, k).parameters < cost(C, D).parameters
    assert k == min(C, D) or cost(C, D, k + 1).parameters >= cost(C, D).parameters


@pytest.mark.usefixtures("as_user")
def test_what_cannot_be_truncated_is_refused():
    with pytest.raises(ValueError, match="float matrix"):
        truncate(jnp.ones(3), 1)
    with pytest.raises(ValueError, match="1 NaN or Inf"):
        truncate(jnp.eye(3).at[0, 0].set(jnp.nan), 1)
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"1 to 2, the smaller side of W; found {k}"):
            truncate(jnp.ones((2, 5)), k)
        with pytest.raises(ValueError, match="1 to 2"):
            cost(2, 5, k)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            rank_for_energy(np.ones(3), share)
    with pytest.raises(ValueError, match="no energy"):
        rank_for_energy(np.zeros(3), 0.5)
