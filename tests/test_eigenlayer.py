"""The laws of the method, on random matrices and against slow references."""

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from svdnet_jax import eigenlayer
from svdnet_jax.eigenlayer import correlation, decorrelate, gram, match_columns, rotate, spectrum

pytestmark = pytest.mark.unoptimized

METHODS = ("us", "u", "uvt", "qd")
# U S is computed in float64 and rounded once to float32: 6e-8 of the largest entry of each product, times the few
# dozen terms of a sum. Distances are compared relative to the largest, since small ones are differences of large.
TOLERANCE = 2e-6


@st.composite
def matrices(draw):
    """Correlated W (C, D), columns of very different length; few shapes, since each is compiled anew."""
    C, D = draw(st.sampled_from([(24, 12), (9, 9), (16, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    common = draw(st.floats(0, 3)) * rng.normal(size=(C, 1))
    scale = np.exp(rng.normal(size=(1, D)))
    return jnp.asarray((rng.normal(size=(C, D)) + common) * scale * 0.01, jnp.float32)


def distances(H, W):
    f = np.asarray(H, np.float64) @ np.asarray(W, np.float64)
    return np.linalg.norm(f[:, None] - f[None], axis=-1)


def relative_change(W, other):
    H = np.random.default_rng(1).normal(size=(10, W.shape[0]))
    before = distances(H, W)
    return np.abs(distances(H, other) - before).max() / before.max()


@given(matrices(), st.booleans())
@settings(deadline=None, max_examples=25)
def test_us_keeps_every_distance(W, match):
    assert relative_change(W, decorrelate(W, "us", match=match)) < TOLERANCE


@given(matrices(), st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_a_rotation_keeps_every_distance_and_is_drawn_by_its_seed(W, match, seed):
    new, R = rotate(W, "rotation", match=match, seed=seed)
    assert relative_change(W, new) < TOLERANCE
    np.testing.assert_allclose(R.T @ R, np.eye(W.shape[1]), atol=1e-12)
    np.testing.assert_array_equal(new, decorrelate(W, "rotation", match=match, seed=seed))
    other = decorrelate(W, "rotation", match=match, seed=(seed, 1))
    assert float(jnp.abs(other - new).max()) > 1e-6 * float(jnp.abs(W).max())


def test_a_rotation_leaves_correlated_columns_correlated():
    common = jax.random.normal(jax.random.key(1), (64, 1)) * 5
    W = jax.random.normal(jax.random.key(0), (64, 32)) + common
    assert float(correlation(W)) < 0.05
    assert float(correlation(decorrelate(W, "rotation"))) < 0.1


def test_random_rotations_have_no_preferred_sign():
    """QR alone gives R a positive diagonal, and Q's first column a sign that LAPACK chooses."""
    corners = [eigenlayer.random_rotation(3, seed)[0, 0] for seed in range(200)]
    assert abs(np.mean(np.sign(corners))) < 0.25  # 3.5 standard deviations of 200 fair coins


@given(matrices(), st.sampled_from(["u", "uvt", "qd"]))
@settings(deadline=None, max_examples=30)
def test_the_alternatives_do_not_keep_distances(W, method):
    """Not even up to a common factor: they change as W Wᵀ does."""
    new = decorrelate(W, method)
    new = new * (jnp.linalg.norm(W) / jnp.linalg.norm(new))
    gap = float(jnp.linalg.norm(W @ W.T - new @ new.T) / jnp.linalg.norm(W @ W.T))
    assume(gap > 0.01)  # Else W nearly was the new matrix, as two columns that were orthogonal are for QD.
    # Of 7 000 random matrices none had a ratio below 0.17.
    assert relative_change(W, new) > 0.05 * gap


@given(matrices())
@settings(deadline=None, max_examples=25)
def test_us_keeps_w_wt_and_spectrum(W):
    new = decorrelate(W, "us", match=True)
    scale = float(jnp.abs(W @ W.T).max())
    chex.assert_trees_all_close(new @ new.T, W @ W.T, atol=TOLERANCE * scale, rtol=0)
    chex.assert_trees_all_close(spectrum(new), spectrum(W), atol=1e-5 * float(spectrum(W)[0]), rtol=0)


@given(matrices(), st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_rotation_leads_from_w_to_us(W, match):
    new, R = rotate(W, match=match)
    np.testing.assert_array_equal(new, decorrelate(W, "us", match=match))
    np.testing.assert_allclose(R.T @ R, np.eye(W.shape[1]), atol=1e-12)
    largest = float(jnp.abs(W).max())
    np.testing.assert_allclose(np.asarray(W, np.float64) @ R, new, rtol=0, atol=TOLERANCE * largest)


@given(matrices(), st.sampled_from(METHODS), st.booleans())
@settings(deadline=None, max_examples=60)
def test_every_method_decorrelates(W, method, match):
    new = decorrelate(W, method, match=match)
    chex.assert_shape(new, W.shape)
    assert new.dtype == W.dtype
    # Each of the D (D - 1) products that should be zero carries one rounding of float32.
    assert float(correlation(new)) > 1 - 1e-5


@given(matrices())
@settings(deadline=None, max_examples=25)
def test_correlation_lies_between_one_over_d_and_one(W):
    D = W.shape[1]
    assert 1 / D - 1e-6 <= float(correlation(W)) <= 1 + 1e-6


def test_correlation_at_its_ends():
    column = jnp.arange(1.0, 6.0)[:, None]
    assert float(correlation(jnp.tile(column, (1, 4)))) == pytest.approx(1 / 4)
    assert float(correlation(jnp.eye(6, 3) * 7.0)) == 1.0


def test_correlation_by_hand():
    W = jnp.array([[1.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    chex.assert_trees_all_equal(gram(W), jnp.array([[1.0, 1.0], [1.0, 2.0]]))
    assert float(correlation(W)) == pytest.approx(3 / 5)


@given(matrices(), st.floats(0.1, 10), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_correlation_ignores_scale_order_and_sign(W, factor, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(W.shape[1])
    sign = jnp.asarray(rng.choice([-1.0, 1.0], W.shape[1]), jnp.float32)
    changed = W[:, order] * sign[None, :] * jnp.float32(factor)
    chex.assert_trees_all_close(correlation(changed), correlation(W), rtol=1e-5)


def slow_matching(old, new):
    """The authors' loop, word for word: each old column takes the closest new column that is still free."""
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    free, order, signs = list(range(new.shape[1])), [], []
    for i in range(old.shape[1]):
        cosines = [old[:, i] @ new[:, j] / np.linalg.norm(old[:, i]) / np.linalg.norm(new[:, j]) for j in free]
        best = int(np.argmax(np.abs(cosines)))
        order.append(free.pop(best))
        signs.append(-1.0 if cosines[best] < 0 else 1.0)
    return order, signs


@given(matrices())
@settings(deadline=None, max_examples=25)
def test_matching_equals_the_slow_loop(W):
    new = decorrelate(W, "us")
    order, sign = match_columns(W, new)
    slow_order, slow_sign = slow_matching(W, new)
    assert order.tolist() == slow_order
    assert sign.tolist() == slow_sign


@given(matrices())
@settings(deadline=None, max_examples=25)
def test_matching_is_a_permutation_with_signs(W):
    order, sign = match_columns(W, decorrelate(W, "us"))
    assert sorted(order.tolist()) == list(range(W.shape[1]))
    assert set(sign.tolist()) <= {-1.0, 1.0}


def test_matching_gives_back_a_shuffled_matrix():
    W = jax.random.normal(jax.random.key(0), (16, 8))
    order = jax.random.permutation(jax.random.key(1), 8)
    sign = jnp.array([1.0, -1.0] * 4)
    shuffled = W[:, order] * sign[None, :]
    back, signs = match_columns(W, shuffled)
    chex.assert_trees_all_equal(shuffled[:, back] * signs[None, :], W)


def test_matched_us_points_along_the_old_columns():
    W = jax.random.normal(jax.random.key(0), (32, 16)) * 0.1 + jnp.eye(32, 16)
    new = decorrelate(W, "us", match=True)
    assert float(jnp.min(jnp.sum(W * new, axis=0))) > 0


def test_none_is_the_matrix_itself():
    W = jax.random.normal(jax.random.key(0), (6, 4))
    chex.assert_trees_all_equal(decorrelate(W, "none", match=True), W)


def test_us_against_numpy():
    W = jax.random.normal(jax.random.key(3), (20, 9))
    U, S, _ = np.linalg.svd(np.asarray(W, np.float64), full_matrices=False)
    new = np.asarray(decorrelate(W, "us"), np.float64)
    # Signs of singular vectors are free.
    np.testing.assert_allclose(np.abs(new), np.abs(U * S), atol=1e-6)


def test_rank_deficient_matrices_keep_distances():
    W = jax.random.normal(jax.random.key(0), (16, 3)) @ jax.random.normal(jax.random.key(1), (3, 8))
    new = decorrelate(W, "us", match=True)
    assert bool(jnp.isfinite(new).all())
    assert relative_change(W, new) < TOLERANCE


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (jnp.ones(3), "float matrix"),
        (jnp.ones((2, 2, 2), jnp.int32), "float matrix"),
        (jnp.ones((4, 2), jnp.int32), "float matrix"),
        (jnp.array([[1.0, jnp.nan], [0.0, jnp.inf], [0.0, 0.0]]), "2 NaN or Inf among its 6"),
        (jnp.ones((3, 5)), "rank is at most 3, so 2 of 5"),
    ],
)
def test_matrices_that_cannot_be_decorrelated_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        decorrelate(bad)


@pytest.mark.usefixtures("as_user")
def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'svd'; choose one of us, u, uvt, qd, rotation, none"):
        decorrelate(jnp.eye(2), "svd")


def test_large_matrices_compile_matching_once():
    eigenlayer._greedy.clear_cache()
    W = jax.random.normal(jax.random.key(0), (40, 20))
    for _ in range(3):
        decorrelate(W, "us", match=True)
    assert eigenlayer._greedy._cache_size() == 1
