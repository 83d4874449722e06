"""A trained fully connected layer factored to rank k: what the SVD is usually taken for, beside SVDNet's use of it.

W (C, D) = U S Vᵀ is replaced by A B with A = U_k S_k (C, k) and B = V_kᵀ (k, D): two layers in place of one, smaller
for small k, with a little accuracy lost. SVDNet keeps the size and trains on. Sources: Denton et al., "Exploiting
Linear Structure Within Convolutional Networks for Efficient Evaluation", NIPS 2014; Girshick, "Fast R-CNN", ICCV 2015,
section 3.1, which gives S to the first layer too; Eckart and Young, "The approximation of one matrix by another of
lower rank", Psychometrika 1936.

With S in the first layer, as in U S of the Eigenlayer, retrieval can leave the second away. The rows of B are
orthonormal, so rows of ``H @ A`` (k numbers an image) lie as far apart as those of ``H @ A @ B`` (D numbers an image).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from svdnet_jax.eigenlayer import factorize
from svdnet_jax.linalg import rounded, scaled


class LowRank(NamedTuple):
    """The two layers that take the place of one; A @ B is the layer's new W."""

    A: Float[Array, "C k"]
    """U_k S_k: orthogonal columns with the k largest singular values as lengths."""
    B: Float[Array, "k D"]
    """V_kᵀ: orthonormal rows."""


class Cost(NamedTuple):
    """What a layer without bias costs; equal numbers, as each parameter meets each input once."""

    parameters: int
    """Numbers to store."""
    multiply_adds: int
    """For one input."""


def truncate(W: Float[Array, "C D"], k: int) -> LowRank:
    """Returns the best approximation of W of rank k, as two factors (Eckart and Young).

    Not for use inside jit; factorised in float64 whatever W's dtype, which the factors have. Signs are free.

    Args:
        W: The matrix.
        k: The rank, 1 to min(C, D).

    Raises:
        ValueError: W is no float matrix, has NaN or Inf, there is no such rank, or A is too large for W's dtype.
    """
    U, S, Vt = factorize(W)
    _check_rank(k, len(S))
    return LowRank(rounded(U[:, :k] * S[None, :k], W.dtype), rounded(Vt[:k], W.dtype))


def truncation_error(values: Float[np.ndarray, " R"], k: int) -> tuple[float, float]:
    """Returns how far W is from its best approximation of rank k, which `truncate` reaches.

    Args:
        values: All singular values of W, largest first, as `svdnet_jax.eigenlayer.factorize` gives them.
        k: The rank.

    Returns:
        The Frobenius norm of W - A B, the root of the sum of the squares left out, and its spectral norm, the
        first value left out.

    Raises:
        ValueError: There is no such rank.
    """
    _check_rank(k, len(values))
    # Squares of very large or small numbers would be infinite or zero.
    left_out, exponent = scaled(values[k:])
    largest = left_out[0] if len(left_out) else 0.0
    return float(np.ldexp(np.sqrt(np.sum(left_out**2)), exponent)), float(np.ldexp(largest, exponent))


def rank_for_energy(values: Float[np.ndarray, " R"], share: float) -> int:
    """Returns the smallest rank that keeps a share of the energy ||W||², the sum of the squared singular values.

    Args:
        values: All singular values of W, largest first.
        share: Above 0, 1 at most; 1 asks for every value that counts in float64.

    Raises:
        ValueError: The share is not in that range, or W is zero.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of energy must be above 0 and at most 1; found {share}.")
    energy = np.cumsum(scaled(values)[0] ** 2)
    if not len(energy) or energy[-1] == 0:
        raise ValueError("all singular values are zero: W has no energy, so no rank keeps a share of it.")
    return int(np.searchsorted(energy, share * energy[-1])) + 1


def cost(C: int, D: int, k: int | None = None) -> Cost:
    """Returns the numbers in a layer (C, D), whole or factored to rank k: C D, or k (C + D).

    Args:
        C: Inputs.
        D: Outputs.
        k: The rank; None for the whole layer.

    Raises:
        ValueError: There is no such rank.
    """
    if k is not None:
        _check_rank(k, min(C, D))
    weights = C * D if k is None else k * (C + D)
    return Cost(weights, weights)


def break_even_rank(C: int, D: int) -> int:
    """Returns the largest rank at which the factors are smaller than the whole layer (C, D); 0 where none is."""
    return (C * D - 1) // (C + D)


def _check_rank(k: int, highest: int) -> None:
    if not 1 <= k <= highest:
        raise ValueError(f"the rank must be 1 to {highest}, the smaller side of W; found {k}.")
