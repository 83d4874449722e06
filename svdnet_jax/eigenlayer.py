"""The method: what SVDNet does to the weight matrix of the Eigenlayer.

Pure functions over a matrix W of shape (C, D): C inputs, D outputs, one projection direction a column, so
that an embedding is ``h @ W``. They know nothing of networks, files or settings. Source: Sun, Zheng, Deng
and Wang, "SVDNet for Pedestrian Retrieval", ICCV 2017, sections 3.2 to 3.4, and, for the matching of
columns, the authors' Matlab release.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from svdnet_jax.linalg import at_least_float32, power_of_two, rounded, thin_qr, thin_svd
from svdnet_jax.methods import Method

Seed = int | tuple[int, ...]
"""Seed of a random rotation; several numbers are a run's seed and a round."""


def gram(W: Float[Array, "C D"]) -> Float[Array, "D D"]:
    """Computes the inner products of all pairs of columns, G = WᵀW (equation 5 of the paper).

    In float32 at least. Products outside of that type's range are infinite or zero; `correlation` scales before.

    Args:
        W: The matrix, a projection direction a column.

    Raises:
        ValueError: W is no float matrix.
    """
    check_matrix(W)
    W = at_least_float32(W)
    # Full precision on every device: TF32 would blur the entries that S(W) counts as zero.
    return jnp.matmul(W.T, W, precision=jax.lax.Precision.HIGHEST)


def correlation(W: Float[Array, "C D"]) -> Float[Array, ""]:
    """Computes S(W), the diagonal of the Gram matrix over the sum of all its magnitudes (equation 6).

    Between 1/D (all columns parallel and of one length) and 1 (columns orthogonal). Unchanged by a common
    factor, of whatever size, and by order and sign of the columns. In float32 at least. NaN if all of W is zero
    or an entry NaN or infinite. XLA on a CPU takes entries below the smallest normal number (1e-38) for zero.

    Args:
        W: The matrix, a projection direction a column.

    Raises:
        ValueError: W is no float matrix.

    Examples:
        >>> print(correlation(jnp.eye(4)), correlation(jnp.ones((4, 4))))
        1.0 0.25
    """
    check_matrix(W)
    W = at_least_float32(W)
    # Exact, and S(W) does not see it; without, squares would leave the range of the type long before W does.
    G = gram(W * power_of_two(jnp.max(jnp.abs(W), initial=0.0)))
    return jnp.trace(G) / jnp.sum(jnp.abs(G))


def spectrum(W: Float[Array, "C D"]) -> Float[Array, " R"]:
    """Computes the singular values, largest first; R = min(C, D).

    Not for use inside jit: as `decorrelate`, it looks at values and factorises in float64. In float32 at least.

    Args:
        W: The matrix, of any shape.

    Raises:
        ValueError: W is no float matrix, has NaN or Inf, or a singular value is too large for the type.

    Examples:
        >>> print(spectrum(jnp.array([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]])))
        [5. 2.]
    """
    S = factorize(W)[1]
    return rounded(S, np.promote_types(W.dtype, np.float32))


def decorrelate(
    W: Float[Array, "*N C D"], method: Method = "us", *, match: bool = False, seed: Seed = 0
) -> Float[Array, "*N C D"]:
    """Replaces W by a matrix with orthogonal columns (section 3.3; table 3 for the alternatives).

    Of W = U S Vᵀ and W = Q R, ``us`` gives U S, ``u`` gives U, ``uvt`` gives U Vᵀ, ``qd`` gives Q diag(R),
    ``rotation`` gives W R with a random orthogonal R, and ``none`` gives W itself. Only ``us`` and ``rotation`` keep
    every distance between rows of H @ W, because (W R)(W R)ᵀ = W Wᵀ, and for ``us`` R = V. ``rotation`` is no
    decorrelation but its control (not in the paper): it throws the classifier off as ``us`` does and leaves the
    columns correlated. Not for use inside jit: it looks at values, and factorises in float64 whatever W's
    dtype, since small singular values lose most of their digits in float32. Factors are checked against W, so that
    matrices of any rank and scale are decorrelated or refused.

    Args:
        W: The matrix; at least as many rows as columns. Of a stack of matrices, as a study over seeds has it, each is
            replaced by itself.
        method: What to put in its place.
        match: Order and sign the new columns after the old ones, by `match_columns`.
        seed: Seed of ``rotation``; the other methods draw nothing.

    Raises:
        ValueError: W is no float matrix, has NaN or Inf, has more columns than rows, the method is unknown, the new
            matrix has an entry too large for W's dtype, or no routine factorises W rightly.

    Examples:
        >>> W = jax.random.normal(jax.random.key(0), (8, 4)) + 2.0
        >>> US, image = decorrelate(W), jnp.ones(8)
        >>> print(f"{correlation(W):.1f} becomes {correlation(US):.1f}")
        0.3 becomes 1.0
        >>> bool(jnp.allclose(jnp.linalg.norm(image @ W), jnp.linalg.norm(image @ US)))
        True
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(get_args(Method))}")
    if getattr(W, "ndim", 0) > 2:
        _check_not_traced(W)
        return jnp.stack([decorrelate(each, method, match=match, seed=seed) for each in W])
    _check_replaceable(W)
    if method == "none":
        return W
    if method == "us" or method == "rotation":
        return rotate(W, method, match=match, seed=seed)[0]
    with jax.enable_x64(True):
        W64 = jnp.asarray(np.asarray(W), dtype=jnp.float64)
        new = _replacement(W64, method)
        if match:
            order, sign = match_columns(W64, new)
            new = new[:, order] * sign[None, :]
    return rounded(new, W.dtype)


def rotate(
    W: Float[Array, "C D"], method: Literal["us", "rotation"] = "us", *, match: bool = False, seed: Seed = 0
) -> tuple[Float[Array, "C D"], Float64[np.ndarray, "D D"]]:
    """Returns the replacements that keep every distance, with the rotation R that leads to them: the new W is W R.

    R is V for ``us`` and random for ``rotation``, in the order and sign chosen. Features of the new weight are those
    of the old one times R. What reads them, a classifier with the kernel K (D, classes), computes what it did before
    with Rᵀ K. (The paper leaves the classifier as it is.)

    Args:
        W: The matrix; at least as many rows as columns.
        method: Which of the two.
        match: Order and sign the new columns after the old ones, by `match_columns`.
        seed: Seed of ``rotation``.

    Returns:
        The new W, of W's dtype, and R in float64, orthogonal.

    Raises:
        ValueError: As `decorrelate`.
    """
    _check_replaceable(W)
    with jax.enable_x64(True):
        W64 = jnp.asarray(np.asarray(W), dtype=jnp.float64)
        if method == "us":
            U, S, Vt = factorize(W)
            new, R = jnp.asarray(U * S[None, :]), Vt.T
        else:
            R = random_rotation(W.shape[1], seed)
            new = jnp.matmul(W64, R, precision=jax.lax.Precision.HIGHEST)
        if match:
            order, sign = match_columns(W64, new)
            new, R = new[:, order] * sign[None, :], R[:, np.asarray(order)] * np.asarray(sign)[None, :]
    return rounded(new, W.dtype), R


def random_rotation(D: int, seed: Seed) -> Float64[np.ndarray, "D D"]:
    """Draws an orthogonal matrix, uniformly by Haar's measure (Mezzadri 2007: by QR of a normal matrix)."""
    Q, R = thin_qr(np.random.default_rng(seed).standard_normal((D, D)))
    # The signs of the diagonal are what LAPACK made of them; with them taken out Q is uniform.
    return Q * np.sign(np.diag(R))[None, :]


def factorize(
    W: Float[Array, "C D"],
) -> tuple[Float64[np.ndarray, "C R"], Float64[np.ndarray, " R"], Float64[np.ndarray, "R D"]]:
    """Computes the thin SVD, W = U S Vᵀ, in float64 whatever W's dtype; R = min(C, D).

    Not for use inside jit. Of NumPy, since JAX has float64 only within a scope. `jax.numpy.linalg.svd` is asked first;
    see `svdnet_jax.linalg`.

    Returns:
        U, the diagonal of S with the largest first, and Vᵀ.

    Raises:
        ValueError: W is no float matrix, has NaN or Inf, or no routine factorises it rightly.
    """
    check_matrix(W)
    _check_not_traced(W)
    _check_finite(W)
    return thin_svd(np.asarray(W))


def match_columns(old: Float[Array, "C D"], new: Float[Array, "C D"]) -> tuple[Int[Array, " D"], Float[Array, " D"]]:
    """Matches columns greedily, as the authors do: which new one, with which sign, takes the place of each old.

    Old columns choose in their order; each takes the closest new column by abs(cosine) that is still free, with
    the sign that makes the cosine positive. It keeps the rotated features near what the classifier above
    expects. O(D²) after one matrix product. Zero columns count as cosine 0; ties go to the first column. Cosines are in
    float32 at least.

    Args:
        old: The matrix whose columns choose.
        new: The matrix whose columns are chosen.

    Returns:
        Order and sign, such that ``new[:, order] * sign`` is the matched matrix, in its dtype.

    Examples:
        >>> order, sign = match_columns(jnp.eye(3), -jnp.eye(3)[:, ::-1])
        >>> print(order, sign)
        [2 1 0] [-1. -1. -1.]
    """
    units = (unit_columns(at_least_float32(W)) for W in (old, new))
    order, sign = _greedy(jnp.matmul(next(units).T, next(units), precision=jax.lax.Precision.HIGHEST))
    return order, sign.astype(new.dtype)


@jax.jit
def _greedy(cosine: Float[Array, "D D"]) -> tuple[Int[Array, " D"], Float[Array, " D"]]:
    D = cosine.shape[0]

    def choose(
        free: Float[Array, " D"], row: Float[Array, " D"]
    ) -> tuple[Float[Array, " D"], tuple[Int[Array, ""], Float[Array, ""]]]:
        pick = jnp.argmax(jnp.where(free > 0, jnp.abs(row), -jnp.ones_like(row)))
        sign = jnp.where(row[pick] < 0, -jnp.ones_like(row[pick]), jnp.ones_like(row[pick]))
        return free.at[pick].set(0), (pick, sign)

    _, (order, sign) = jax.lax.scan(choose, jnp.ones(D, cosine.dtype), cosine)
    return order, sign


def _replacement(W: Float[Array, "C D"], method: Method) -> Float[Array, "C D"]:
    if method == "qd":
        Q, R = thin_qr(np.asarray(W))
        return jnp.asarray(Q * np.diag(R)[None, :])
    U, _, Vt = factorize(W)
    return jnp.asarray(U if method == "u" else U @ Vt)


def unit_columns(W: Float[Array, "C D"]) -> Float[Array, "C D"]:
    """Divides every column by its length; zero columns stay zero, with a finite gradient."""
    wide = at_least_float32(W)
    # Exact, and a unit vector does not see it; squares of very large or small columns would be infinite or zero.
    wide = wide * power_of_two(jnp.max(jnp.abs(wide), axis=0, keepdims=True, initial=0.0))
    squared = jnp.sum(wide**2, axis=0, keepdims=True)
    # The root of a zero has an infinite gradient, which even a `where` behind it would turn into NaN.
    return (wide / jnp.sqrt(jnp.where(squared > 0, squared, jnp.ones_like(squared)))).astype(W.dtype)


def check_matrix(W: Array) -> None:
    """Refuses what is no float matrix.

    Raises:
        ValueError: It is of another type, dtype or number of dimensions.
    """
    if getattr(W, "ndim", None) != 2 or not jnp.issubdtype(W.dtype, jnp.floating):
        raise ValueError(
            f"expected a float matrix W (inputs, outputs), found {getattr(W, 'dtype', type(W).__name__)} "
            f"of shape {getattr(W, 'shape', ())}"
        )


def _check_not_traced(W: Array) -> None:
    if isinstance(W, jax.core.Tracer):
        raise ValueError(
            "W is traced: the SVD looks at values. Call it between steps, outside of jit, grad, vmap and pmap; for "
            "many matrices at once give decorrelate a stack (N, C, D)"
        )


def _check_replaceable(W: Float[Array, "C D"]) -> None:
    check_matrix(W)
    _check_not_traced(W)
    C, D = W.shape
    if D > C:
        raise ValueError(
            f"W is {C} x {D}: its rank is at most {C}, so {D - C} of {D} decorrelated columns would be zero, "
            f"dead outputs for good; choose an Eigenlayer of at most {C} outputs"
        )
    _check_finite(W)


def _check_finite(W: Float[Array, "C D"]) -> None:
    if not bool(jnp.isfinite(W).all()):
        bad = int(jnp.sum(~jnp.isfinite(W)))
        raise ValueError(f"W has {bad} NaN or Inf among its {W.size} entries; training diverged before")
