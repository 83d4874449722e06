"""Penalties that ask for orthogonality during ordinary training, where SVDNet decorrelates and trains on.

Pure functions of a matrix W (C, D), one projection direction a column as in `svdnet_jax.eigenlayer`, or of feature
maps (N, H, W, C); each gives one number to add to a loss, times a weight of the caller's choice. Sources: Bansal,
Chen and Wang, "Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?", NeurIPS 2018, section 3,
and Chen et al., "ABD-Net: Attentive but Diverse Person Re-Identification", ICCV 2019, section 3.3, both with their
authors' releases.

Scale. As published, the penalties of Bansal et al. compare WᵀW with I and so ask for columns of length 1 too. An
Eigenlayer starts with columns far shorter, and U S has columns of different lengths on purpose. `rescale` takes lengths
out of the question first: with ``common`` any one length of all columns will do, with ``columns`` any lengths, as for
S(W). It is differentiated through, so the gradient has no part along what it takes out.

Power iteration. Eigenvectors come from a fixed number of steps from a fixed start, so a penalty is a function of its
arguments only (the releases draw a new start each time and take one step or two). The vectors are constants to the
derivative (`stop_gradient`) and the eigenvalue is computed from them once more, as a Rayleigh quotient or as the length
of an image: of that the derivative is exact where the vector is exact, since eigenvalues are stationary in their
vectors. The releases differentiate through the steps as well, which is the same in the limit and costs the memory of
all steps. Products are with vectors only, 2 C D multiply-adds a step, and no Gram matrix (D x D) is made.

Types. Each penalty is in float32 at least. Where its value is outside of that type's range it is infinite or zero.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from svdnet_jax.eigenlayer import check_matrix, gram, unit_columns
from svdnet_jax.linalg import at_least_float32, power_of_two

Scale = Literal["none", "common", "columns"]
Penalty = Literal["soft", "double-soft", "coherence", "srip", "spectral-difference"]

ITERATIONS = 20
"""Steps of power iteration unless told otherwise: 0.85 to 1 of the exact value on random matrices, whose eigenvalues
crowd at both ends; exact where one stands out."""


def penalty(
    W: Float[Array, "C D"], kind: Penalty, scale: Scale = "none", *, iterations: int = ITERATIONS
) -> Float[Array, ""]:
    """Returns the penalty of a name, of W after `rescale`.

    Args:
        W: The matrix.
        kind: Which of this file's penalties on matrices.
        scale: What lengths of columns count for.
        iterations: Steps of power iteration, for ``srip`` and ``spectral-difference``.

    Raises:
        ValueError: An unknown kind or scale, no float matrix, or fewer than one iteration.
    """
    if kind not in get_args(Penalty):
        raise ValueError(f"unknown penalty {kind!r}; choose one of {', '.join(get_args(Penalty))}")
    W = rescale(W, scale)
    if kind == "soft":
        return soft_orthogonality(W)
    if kind == "double-soft":
        return double_soft_orthogonality(W)
    if kind == "coherence":
        return mutual_coherence(W)
    return srip(W, iterations) if kind == "srip" else spectral_difference(W, iterations)


def rescale(W: Float[Array, "C D"], scale: Scale) -> Float[Array, "C D"]:
    """Returns W with lengths of columns taken out; zero columns stay zero. In float32 at least.

    Args:
        W: The matrix.
        scale: ``none``: W as it is. ``common``: divided by the root mean square of the lengths. ``columns``: each
            column divided by its own length.

    Raises:
        ValueError: W is no float matrix, or the scale is unknown.
    """
    check_matrix(W)
    if scale not in get_args(Scale):
        raise ValueError(f"unknown scale {scale!r}; choose one of {', '.join(get_args(Scale))}")
    W = at_least_float32(W)
    if scale == "columns":
        return unit_columns(W)
    if scale == "common":
        # Exact, and the quotient does not see it; without, squares may leave the range of the type.
        W = W * power_of_two(jnp.max(jnp.abs(W), initial=0.0))
        mean = jnp.sum(W**2) / W.shape[1]
        return W / jnp.sqrt(jnp.where(mean > 0, mean, jnp.ones_like(mean)))
    return W


def soft_orthogonality(W: Float[Array, "C D"]) -> Float[Array, ""]:
    """Computes ||WᵀW - I||², the squared Frobenius norm (Bansal et al., equation 1).

    Zero on orthonormal columns only; D - C at least where there are more columns than rows.

    Raises:
        ValueError: W is no float matrix.
    """
    return jnp.sum(_residual(W) ** 2)


def double_soft_orthogonality(W: Float[Array, "C D"]) -> Float[Array, ""]:
    """Computes ||WᵀW - I||² + ||WWᵀ - I||² (Bansal et al., equation 2), |C - D| at least.

    The two parts differ by the constant C - D, as the traces of WᵀW and WWᵀ are equal and those of their squares too.
    So this is twice the soft penalty and a constant, with twice its gradient: a double weight, nothing else. It is
    computed that way, without the C x C matrix.

    Raises:
        ValueError: W is no float matrix.
    """
    return 2 * soft_orthogonality(W) + (W.shape[0] - W.shape[1])


def mutual_coherence(W: Float[Array, "C D"]) -> Float[Array, ""]:
    """Returns the largest magnitude in WᵀW - I (Bansal et al., equation 6).

    The paper writes the infinity norm; it is taken over the entries here, which is what makes it the mutual coherence
    where columns have length 1, and not over sums of rows. The gradient reaches the columns of the largest entry only,
    shared evenly between ties.

    Raises:
        ValueError: W is no float matrix.
    """
    residual = _residual(W)
    # Not jnp.abs, whose derivative at 0 is 1: orthonormal columns would be pushed.
    return jnp.max(residual * jnp.sign(residual))


def srip(W: Float[Array, "C D"], iterations: int = ITERATIONS) -> Float[Array, ""]:
    """Computes the spectral norm of WᵀW - I (spectral restricted isometry; Bansal et al., equations 8 and 9).

    Approached from below, as the length of (WᵀW - I) v for a unit vector v from power iteration. As a length and not as
    a Rayleigh quotient: eigenvalues may come in pairs of opposite sign, and of a mixture of their vectors the length is
    right and the quotient too small. The paper takes one step and reads the length too; its release squares it.

    Raises:
        ValueError: W is no float matrix, or fewer than one iteration.
    """
    check_matrix(W)
    W = at_least_float32(W)

    def residual(W: Float[Array, "C D"], v: Float[Array, " D"]) -> Float[Array, " D"]:
        return _product(W.T, _product(W, v)) - v

    fixed = jax.lax.stop_gradient(W)
    v = _dominant(lambda v: residual(fixed, v), _start(W.shape[1], W.dtype), iterations)
    image = residual(W, v)
    # Zero on orthonormal columns, where the root has no derivative; zero is one of its subgradients.
    squared = jnp.sum(image**2)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, jnp.ones_like(squared))), jnp.zeros_like(squared))


def spectral_difference(W: Float[Array, "C D"], iterations: int = ITERATIONS) -> Float[Array, ""]:
    """Computes the largest less the smallest eigenvalue of WᵀW (ABD-Net's spectral value difference).

    Zero where WᵀW is any multiple of I, so the scale ``common`` changes its unit and not its zeros. The smallest
    eigenvalue comes from power iteration with WᵀW - λ₁ I, as in the paper. Both are Rayleigh quotients, so the
    difference is approached from below. The paper's formula takes the square of the difference, and so does its
    release on weights; on feature maps the release takes the difference. Square it yourself where that is wanted.

    Raises:
        ValueError: W is no float matrix, or fewer than one iteration.
    """
    check_matrix(W)
    W = at_least_float32(W)
    fixed = jax.lax.stop_gradient(W)

    def apply(v: Float[Array, " D"]) -> Float[Array, " D"]:
        return _product(fixed.T, _product(fixed, v))

    start = _start(W.shape[1], W.dtype)
    first = _dominant(apply, start, iterations)
    shift = jnp.sum(_product(fixed, first) ** 2)
    last = _dominant(lambda v: apply(v) - shift * v, start, iterations)
    return jnp.sum(_product(W, first) ** 2) - jnp.sum(_product(W, last) ** 2)


def feature_spectral_difference(features: Float[Array, "N H W C"], iterations: int = ITERATIONS) -> Float[Array, ""]:
    """Computes `spectral_difference` of the channels of each image, mean over the images (ABD-Net's penalty).

    F is C x HW, one channel a row, and the eigenvalues are those of F Fᵀ (C x C). Where a map has fewer pixels than
    channels F Fᵀ is singular: its smallest eigenvalue is 0 whatever the features, and what remains is the largest, the
    squared spectral norm. The release sums over images and divides by a 32nd of their number: 32 times this mean.

    Raises:
        ValueError: Fewer than one iteration.
    """
    N, H, W, C = features.shape
    return jnp.mean(jax.vmap(lambda F: spectral_difference(F, iterations))(features.reshape(N, H * W, C)))


def _residual(W: Float[Array, "C D"]) -> Float[Array, "D D"]:
    """Computes WᵀW - I."""
    G = gram(W)
    return G - jnp.eye(len(G), dtype=G.dtype)


def _product(A: Float[Array, "m n"], v: Float[Array, " n"]) -> Float[Array, " m"]:
    # Full precision on every device: what is left of WᵀW v - v near orthonormal columns is smaller than TF32's error.
    return jnp.matmul(A, v, precision=jax.lax.Precision.HIGHEST)


def _start(n: int, dtype: jnp.dtype) -> Float[Array, " n"]:
    """Returns a fixed unit vector in no special direction; equal entries would miss eigenvectors of sum zero."""
    v = jax.random.normal(jax.random.key(0), (n,), dtype)
    return v / jnp.linalg.norm(v)


def _dominant(
    apply: Callable[[Float[Array, " n"]], Float[Array, " n"]], start: Float[Array, " n"], iterations: int
) -> Float[Array, " n"]:
    """Returns the unit eigenvector of the eigenvalue of largest magnitude, by power iteration.

    A vector that a step maps to zero stays: then it is an eigenvector already, of the eigenvalue zero.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; found {iterations}.")

    def step(_: Int[Array, ""], v: Float[Array, " n"]) -> Float[Array, " n"]:
        new = apply(v)
        # Exact; the squares of a very small or large image would be zero or infinite.
        new = new * power_of_two(jnp.max(jnp.abs(new)))
        length = jnp.linalg.norm(new)
        return jnp.where(length > 0, new / jnp.where(length > 0, length, jnp.ones_like(length)), v)

    return jax.lax.fori_loop(0, iterations, step, start)
