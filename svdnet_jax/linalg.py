"""Factorizations of a matrix in float64, each checked before it is used, and scales that round nothing.

LAPACK can be wrong without a word: with two BLAS threads the SVD and QR behind `jax.numpy.linalg` are NaN for some
matrices with equal columns, such as 0.52 in all of (256, 64) (jax-ml/jax#22809). A collapsed weight is such a matrix.
So every factorization here is compared with the matrix that it is of, another routine is asked where it is not right,
and an error raised where none is. They look at values: none is for use inside jit.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

Factors = TypeVar("Factors", bound=tuple[np.ndarray, ...])
SVD = tuple[Float64[np.ndarray, "C R"], Float64[np.ndarray, " R"], Float64[np.ndarray, "R D"]]
QR = tuple[Float64[np.ndarray, "C R"], Float64[np.ndarray, "R D"]]
Eigh = tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, "D D"]]

_TOLERANCE = 64 * float(np.finfo(np.float64).eps)
"""Error of a factorization, times the larger side; LAPACK's is a tenth of it at most."""


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the same numbers in float32, or as they are where their type is wider."""
    # NumPy's promotion, as JAX's refuses to mix types in strict mode.
    return x.astype(np.promote_types(x.dtype, np.float32))


def power_of_two(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the power of two that brings each magnitude into [1, 2), nearly so at the ends of the type's range.

    Products with it are exact, so that squares of the scaled numbers neither overflow nor vanish and nothing else
    changes. A constant to the derivative. From the bits of x, since XLA's `exp2` rounds. 0 counts as tiny.

    Args:
        x: Magnitudes in float32 or float64.
    """
    info = jnp.finfo(x.dtype)
    integer = jnp.dtype(f"int{info.bits}")
    top = 2 * info.maxexp - 2  # The largest exponent as it is stored, of 2**(maxexp - 1).
    stored = jnp.right_shift(jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), integer), info.nmant)
    # The stored exponent of the inverse, kept within those of normal numbers.
    inverse = jnp.clip(top - stored, 1, top - 1).astype(integer)
    return jax.lax.bitcast_convert_type(jnp.left_shift(inverse, info.nmant), x.dtype)


def scaled(A: np.ndarray) -> tuple[Float64[np.ndarray, "..."], int]:
    """Returns numbers in float64 times the power of two that brings the largest into [1/2, 1), and A's exponent."""
    wide = np.asarray(A, np.float64)
    exponent = int(np.frexp(np.abs(wide).max(initial=0.0))[1])
    return np.ldexp(wide, -exponent), exponent


def rounded(new: Float[Array | np.ndarray, "..."], dtype: np.dtype) -> Float[Array, "..."]:
    """Returns numbers in another type; refuses those that it cannot hold.

    On the host, since XLA on a CPU takes numbers below the smallest normal one for zero.
    """
    wide = np.asarray(new)
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    if not np.isfinite(narrow).all():
        raise ValueError(
            f"the result has entries of magnitude {np.abs(wide).max():.3g}, too large for {np.dtype(dtype).name}; "
            "divide W by a number, or give it in a wider type"
        )
    with jax.enable_x64(True):
        return jnp.asarray(narrow)


def thin_svd(W: np.ndarray) -> SVD:
    """Computes W = U diag(S) Vᵀ by `jax.numpy.linalg.svd`, by NumPy or SciPy's gesvd where that is wrong.

    Args:
        W: A finite float matrix (C, D).

    Returns:
        U, S with the largest first, and Vᵀ; R = min(C, D).

    Raises:
        LinAlgError: None of them is right. (A ValueError.)
    """

    def by_jax(A: np.ndarray) -> Any:
        return jnp.linalg.svd(jnp.asarray(A), full_matrices=False)

    def by_numpy(A: np.ndarray) -> Any:
        return np.linalg.svd(A, full_matrices=False)

    def by_scipy(A: np.ndarray) -> Any:
        import scipy.linalg  # takes long to import, and is hardly ever asked

        return scipy.linalg.svd(A, full_matrices=False, lapack_driver="gesvd")

    def is_right(A: np.ndarray, factors: SVD, tolerance: float) -> bool:
        U, S, Vt = factors
        descending = bool((S >= 0).all() and (np.diff(S) <= 0).all())
        orthonormal = _orthonormal(U, tolerance) and _orthonormal(Vt.T, tolerance)
        return descending and orthonormal and _equal(U * S[None, :] @ Vt, A, tolerance)

    A, exponent = scaled(W)
    U, S, Vt = _first_right("SVD", A, (by_jax, by_numpy, by_scipy), is_right)
    return U, np.ldexp(S, exponent), Vt


def thin_qr(W: np.ndarray) -> QR:
    """Computes W = Q R by `jax.numpy.linalg.qr`, by NumPy or SciPy where that is wrong.

    Args:
        W: A finite float matrix (C, D).

    Returns:
        Q (C, min(C, D)) with orthonormal columns and R, upper triangular.

    Raises:
        LinAlgError: None of them is right.
    """

    def by_jax(A: np.ndarray) -> Any:
        return jnp.linalg.qr(jnp.asarray(A))

    def by_scipy(A: np.ndarray) -> Any:
        import scipy.linalg  # takes long to import, and is hardly ever asked

        return scipy.linalg.qr(A, mode="economic")

    def is_right(A: np.ndarray, factors: QR, tolerance: float) -> bool:
        Q, R = factors
        return bool((np.tril(R, -1) == 0).all()) and _orthonormal(Q, tolerance) and _equal(Q @ R, A, tolerance)

    A, exponent = scaled(W)
    Q, R = _first_right("QR factorization", A, (by_jax, np.linalg.qr, by_scipy), is_right)
    return Q, np.ldexp(R, exponent)


def symmetric_eigen(G: np.ndarray) -> Eigh:
    """Computes G = V diag(w) Vᵀ of a symmetric matrix by `numpy.linalg.eigh`, by SciPy's syev where that is wrong.

    Args:
        G: A finite symmetric matrix (D, D), of which the lower triangle is read.

    Returns:
        w with the smallest first, and V, an eigenvector a column.

    Raises:
        LinAlgError: None of them is right.
    """

    def by_scipy(A: np.ndarray) -> Any:
        import scipy.linalg  # takes long to import, and is hardly ever asked

        return scipy.linalg.eigh(A, driver="ev")

    def is_right(A: np.ndarray, factors: Eigh, tolerance: float) -> bool:
        w, V = factors
        ascending = bool((np.diff(w) >= 0).all())
        return ascending and _orthonormal(V, tolerance) and _equal(V * w[None, :] @ V.T, A, tolerance)

    # Sums of outer products are symmetric up to rounding only.
    A, exponent = scaled(np.tril(G) + np.tril(G, -1).T)
    w, V = _first_right("eigendecomposition", A, (np.linalg.eigh, by_scipy), is_right)
    return np.ldexp(w, exponent), V


def _first_right(
    what: str,
    A: Float64[np.ndarray, "C D"],
    routines: Sequence[Callable[[np.ndarray], Any]],
    is_right: Callable[[np.ndarray, Factors, float], bool],
) -> Factors:
    """Returns what the first routine finds that passes the check."""
    tolerance = _TOLERANCE * max(A.shape)
    for routine in routines:
        try:
            with jax.enable_x64(True):
                factors: Any = tuple(np.asarray(factor) for factor in routine(A))
        except np.linalg.LinAlgError:  # It did not converge.
            continue
        if all(np.isfinite(factor).all() for factor in factors) and is_right(A, factors, tolerance):
            return factors
    raise np.linalg.LinAlgError(
        f"no LAPACK here gives a right {what} of a finite matrix {A.shape[0]} x {A.shape[1]}: {len(routines)} routines "
        "were tried. Try with one BLAS thread (OPENBLAS_NUM_THREADS=1 in the environment) or other versions of NumPy "
        "and SciPy"
    )


def _orthonormal(Q: Float64[np.ndarray, "m n"], tolerance: float) -> bool:
    return bool(np.abs(Q.T @ Q - np.eye(Q.shape[1])).max(initial=0.0) <= tolerance)


def _equal(product: Float64[np.ndarray, "C D"], A: Float64[np.ndarray, "C D"], tolerance: float) -> bool:
    """Returns whether a product is the matrix, but for an error in the Frobenius norm relative to it."""
    return bool(np.linalg.norm(product - A) <= tolerance * np.linalg.norm(A))
