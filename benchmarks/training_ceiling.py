"""The matrix product that benchmarks.training measures training against: a large one, at JAX's default precision."""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.turns import Ready

ON_CPU, ELSEWHERE = 2048, 8192
"""Rows and columns."""
PRODUCTS = 16
"""Of a call on an accelerator, so that it never waits for the host."""


def prepare(dtype: str, platform: str) -> Ready:
    """Products of random matrices, one after another; a product counts as a step."""
    side, products = (ON_CPU, 1) if platform == "cpu" else (ELSEWHERE, PRODUCTS)
    keys = jax.random.split(jax.random.key(0))
    # So scaled, a product has numbers of the size of its left factor's.
    first, second = (jax.random.normal(key, (side, side)).astype(dtype) for key in keys)
    second = second / jnp.sqrt(side).astype(dtype)

    @jax.jit
    def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, products, lambda _, x: x @ y, x)

    def wait(product: jax.Array) -> float:
        return float(jax.block_until_ready(product)[0, 0])

    return Ready(partial(multiply, first, second), wait, products, None, {"side": side})
