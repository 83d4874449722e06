"""Factorizations of degenerate matrices, what happens where LAPACK is wrong, and numbers at the ends of their type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax import linalg
from svdnet_jax.baselines.orthogonality import penalty, spectral_difference
from svdnet_jax.baselines.truncated_svd import rank_for_energy, truncate, truncation_error
from svdnet_jax.eigenlayer import correlation, decorrelate, gram, match_columns, spectrum, unit_columns

DTYPES = ("bfloat16", "float16", "float32", "float64")
SHAPES = ((3, 1), (8, 8), (24, 12), (64, 5))


def degenerate(name, C, D):
    """A matrix of rank D or less, entries of about one, in float64."""
    rng = np.random.default_rng(0)
    column, noise = rng.normal(size=(C, 1)), rng.normal(size=(C, D))
    one = np.zeros((C, D))
    one[C // 2, D // 2] = -1.0
    return {
        "ones": np.ones((C, D)),
        "zeros": np.zeros((C, D)),
        "rank 1": column * rng.normal(size=(1, D)),
        "equal columns": np.repeat(column, D, axis=1),
        "two kinds of columns": noise[:, np.arange(D) % 2 * (D > 1)],
        "one entry": one,
        "zero columns": noise * (np.arange(D) % 3 == 0),
        "identity": np.eye(C, D),
        "steep": noise * 10.0 ** -np.arange(D),
    }[name]


NAMES = ("ones", "zeros", "rank 1", "equal columns", "two kinds of columns", "one entry", "zero columns", "identity")
NAMES = (*NAMES, "steep")


def wide(W):
    return np.asarray(W).astype(np.float64)


def check_us(W):
    """The laws of W = U S, in units of the largest entry of W Wᵀ and of the rounding of W's type."""
    new = decorrelate(W)
    assert new.dtype == W.dtype
    assert new.shape == W.shape
    A, B = linalg.scaled(wide(W))[0], wide(new)
    B = np.ldexp(B, -linalg.scaled(wide(W))[1])
    # Each entry is rounded once to its type; a product sums up D or C of them.
    rounding = 4 * float(jnp.finfo(W.dtype).eps) * max(W.shape)
    assert np.isfinite(B).all()
    largest = np.abs(A @ A.T).max()
    np.testing.assert_allclose(B @ B.T, A @ A.T, rtol=0, atol=rounding * largest)
    off = B.T @ B - np.diag(np.sum(B**2, axis=0))
    np.testing.assert_allclose(off, np.zeros_like(off), rtol=0, atol=rounding * largest)
    found = float(correlation(new))
    assert np.isnan(found) if not A.any() else found > 1 - W.shape[1] * rounding
    values = np.linalg.svd(A, compute_uv=False)
    found = np.ldexp(wide(spectrum(W)), -linalg.scaled(wide(W))[1])
    np.testing.assert_allclose(found, values, rtol=0, atol=rounding * max(values[0], 1e-300))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_matrices_are_decorrelated(name, dtype):
    for C, D in SHAPES:
        check_us(jnp.asarray(degenerate(name, C, D), dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [("float16", (-9, 9)), ("bfloat16", (-100, 100)), ("float32", (-100, -110, 100, 123)), ("float64", (-900, 1000))],
)
@pytest.mark.parametrize("name", ["ones", "rank 1", "steep", "two kinds of columns"])
def test_scale_does_not_matter(name, dtype, exponents):
    """A power of two is exact, so whatever is scale-free has the very same bits."""
    W = degenerate(name, 24, 12)
    # Without entries that the smallest scale would take below the type's normal numbers.
    W = jnp.asarray(np.where(np.abs(W) < 0.1, 0, W), dtype)
    for exponent in exponents:
        scaled = jnp.asarray(np.ldexp(wide(W), exponent), dtype)
        check_us(scaled)
        assert float(correlation(scaled)) == float(correlation(W))
        np.testing.assert_array_equal(wide(unit_columns(scaled)), wide(unit_columns(W)))
        for found, expected in zip(match_columns(W, scaled), match_columns(W, W), strict=True):
            np.testing.assert_array_equal(found, expected)


@given(
    st.sampled_from([(24, 12), (9, 9), (16, 2)]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 12),
    st.integers(-30, 30),
    st.sampled_from(["bfloat16", "float32"]),
)
@settings(deadline=None, max_examples=40)
def test_the_laws_hold_at_every_rank_and_scale(shape, seed, rank, exponent, dtype):
    C, D = shape
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(C, rank)) @ rng.normal(size=(rank, D)) * 10.0**exponent
    check_us(jnp.asarray(W, dtype))


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 1e3), ("bfloat16", 1e30), ("float32", 1e30)])
def test_correlation_is_that_of_float64(dtype, factor):
    rng = np.random.default_rng(0)
    W = jnp.asarray((rng.normal(size=(64, 512)) + rng.normal(size=(64, 1))) * factor, dtype)
    G = wide(W).T @ wide(W)
    found = correlation(W)
    assert found.dtype == jnp.float32
    # Sums of 64 and of 512 x 512 terms in float32.
    assert float(found) == pytest.approx(np.trace(G) / np.abs(G).sum(), rel=1e-5)
    assert float(jax.jit(correlation)(W)) == pytest.approx(float(found), rel=1e-6)


def test_the_gram_matrix_has_the_range_of_float32():
    W = jnp.full((4, 2), 1000.0, jnp.float16)
    np.testing.assert_array_equal(gram(W), np.full((2, 2), 4e6, np.float32))


def test_powers_of_two_are_exact_at_both_ends():
    info = np.finfo(np.float32)
    x = np.array([info.tiny, 3.3e-20, 0.75, 1.0, 1.5, 6e19, info.max], np.float32)
    scale = np.asarray(linalg.power_of_two(jnp.asarray(x)))
    np.testing.assert_array_equal(np.frexp(scale)[0], np.full(len(x), 0.5))
    assert ((x * scale >= 1) & (x * scale < 4)).all()
    np.testing.assert_array_equal(linalg.power_of_two(jnp.array([0.0, jnp.inf, jnp.nan])) > 0, [True] * 3)


def test_what_a_type_cannot_hold_is_refused():
    W = jnp.full((256, 64), 60000.0, jnp.float16)
    assert float(spectrum(W)[0]) == pytest.approx(60000 * 128)  # in float32
    for refused in (decorrelate, lambda W: truncate(W, 2)):
        with pytest.raises(ValueError, match="too large for float16; divide W"):
            refused(W)
    with pytest.raises(ValueError, match="too large for float32"):
        spectrum(jnp.full((256, 64), 3e38))


def test_inside_jit_the_reason_is_said():
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(spectrum)(jnp.ones((4, 2)))


@pytest.mark.parametrize("kind", ["srip", "spectral-difference"])
def test_power_iteration_has_no_scale(kind):
    """Of very small matrices too, whose images' squares are below float32."""
    W = jax.random.normal(jax.random.key(0), (12, 6))
    scaled = penalty(W * 2.0**-54, kind)
    assert float(scaled) == (1.0 if kind == "srip" else float(spectral_difference(W)) * 2.0**-108)
    for scale in ("common", "columns"):
        assert float(penalty(W * 2.0**70, kind, scale)) == float(penalty(W, kind, scale))


def test_truncation_has_no_scale():
    values = np.array([3.0, 2.0, 1.0])
    for exponent in (-900, 900):
        scaled = np.ldexp(values, exponent)
        assert truncation_error(scaled, 1) == tuple(np.ldexp(truncation_error(values, 1), exponent))
        assert [rank_for_energy(scaled, share) for share in (0.5, 0.9, 1.0)] == [1, 2, 3]


@pytest.mark.parametrize("value", [0.52, 0.8, 0.96, 1.0])
@pytest.mark.parametrize("method", ["us", "qd"])
def test_a_collapsed_layer_is_decorrelated_whatever_lapack_says(method, value):
    """Of some of these the SVD and QR behind jnp.linalg are NaN with two BLAS threads (jax-ml/jax#22809)."""
    shape = 256, 64
    new = decorrelate(jnp.full(shape, value), method)
    lengths = jnp.linalg.norm(new, axis=0)
    assert float(correlation(new)) == pytest.approx(1)
    assert float(lengths[0]) == pytest.approx(value * (shape[0] if method == "qd" else shape[0] * shape[1]) ** 0.5)
    assert float(lengths[1:].max()) < 1e-9


def svd(A):
    return np.linalg.svd(A, full_matrices=False)


MATRIX = degenerate("equal columns", 16, 4) + np.eye(16, 4)
U, S, Vt = svd(MATRIX)
Q, R = np.linalg.qr(MATRIX)
w, V = np.linalg.eigh(MATRIX.T @ MATRIX)
ROUTINES = {
    "svd": ((jnp.linalg, "svd"), (np.linalg, "svd"), (scipy.linalg, "svd")),
    "qr": ((jnp.linalg, "qr"), (np.linalg, "qr"), (scipy.linalg, "qr")),
    "eigh": ((np.linalg, "eigh"), (scipy.linalg, "eigh")),
}
CALLED = {"svd": linalg.thin_svd, "qr": linalg.thin_qr, "eigh": linalg.symmetric_eigen}
RIGHT = {"svd": (U, S, Vt), "qr": (Q, R), "eigh": (w, V)}
# What LAPACK left of ones (256, 64); the wrong order; right products of wrong factors; factors of another matrix.
WRONG = {
    "svd": ((U * np.nan, S, Vt), (U[:, ::-1], S[::-1], Vt[::-1]), (U * S, np.ones_like(S), Vt), svd(MATRIX + 1e-9)),
    "qr": ((Q, R * np.nan), (Q @ R, np.eye(4)), (Q @ U[:4, :4], U[:4, :4].T @ R), np.linalg.qr(MATRIX + 1e-9)),
    "eigh": ((w, V * np.nan), (w[::-1], V[:, ::-1]), (w / 4, V * 2), (w + 1e-9, V)),
}


@pytest.mark.parametrize("what", RIGHT)
@pytest.mark.parametrize("kind", range(4))
def test_wrong_factors_are_not_taken(what, kind, monkeypatch):
    W = MATRIX.T @ MATRIX if what == "eigh" else MATRIX
    scale = 2.0 ** -linalg.scaled(W)[1]
    factor = {"svd": (1, scale, 1), "qr": (1, scale), "eigh": (scale, 1)}[what]
    wrong = tuple(a * b for a, b in zip(WRONG[what][kind], factor, strict=True))
    asked = []

    def broken(name):
        return lambda A, **options: asked.append(name) or wrong

    for number, (module, name) in enumerate(ROUTINES[what]):
        # The last one that is left is right.
        for found, expected in zip(CALLED[what](W), RIGHT[what], strict=True):
            np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-13)
        assert asked == [*range(number)]
        asked.clear()
        monkeypatch.setattr(module, name, broken(number))
    with pytest.raises(np.linalg.LinAlgError, match="no LAPACK here gives a right .* 4"):
        CALLED[what](W)


def test_a_routine_that_does_not_converge_is_passed_over(monkeypatch):
    def never(A, **options):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", never)
    np.testing.assert_allclose(linalg.symmetric_eigen(np.diag([2.0, 1.0]))[0], [1, 2])


@pytest.mark.parametrize("factor", [1e-39, 1e-44])
def test_numbers_below_the_normal_ones_are_decorrelated(factor):
    """On the host, as XLA takes them for zero."""
    W = jnp.asarray(np.full((8, 2), factor, np.float32))
    new = wide(decorrelate(W))
    assert np.linalg.norm(new[:, 0]) == pytest.approx(4 * wide(W)[0, 0], rel=0.2)
    assert float(spectrum(W)[0]) == pytest.approx(4 * wide(W)[0, 0], rel=0.05)
