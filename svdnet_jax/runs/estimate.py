"""What a run needs at least, before it starts: a batch that no machine has the memory for is told so in a second."""

import os
from typing import Any

import jax
import jax.numpy as jnp

from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.training.state import TrainState

COPIES = 3
"""Of the weights: themselves, their gradient and the momentum."""


def refuse_too_large(config: Config, model: SVDNet, state: TrainState, device: jax.Device, devices: int) -> None:
    """Refuses a batch that cannot be had in memory.

    Followed by shapes alone. Counted is half of what the modules of the network give, as outputs of a block and of its
    last layer are one array, and none of it where frozen layers or remat keep less; so what is refused cannot run, and
    what is not may still be too large.

    Args:
        config: Settings of the run.
        model: Its network.
        state: Its state, or the shapes of one.
        device: One of the run's devices.
        devices: How many share the batch.

    Raises:
        ConfigError: Says what is needed and what there is.
    """
    weights = COPIES * _bytes(state.params)
    images = -(-config.data.batch_size // (devices * config.optimizer.grad_accum_steps))
    x = jax.ShapeDtypeStruct((images, *input_size(config.data), 3), jnp.float32)

    def at_rest(variables: Any, x: Any) -> Any:
        return model.apply(variables, x, train=False, capture_intermediates=True, mutable=["intermediates"])

    _, kept = jax.eval_shape(at_rest, state.variables, x)
    keeps_less = config.model.remat or config.base.freeze or config.base_from
    between = 0 if keeps_less else _bytes(kept) // 2
    needed, memory = weights + _bytes(x) + between, memory_of(device)
    if memory and needed > memory:
        raise ConfigError(
            f"`data.batch_size` {config.data.batch_size} at {config.data.height}x{config.data.width}: needs "
            f"{_gigabytes(needed)} at least on each device (weights {_gigabytes(weights)}, images "
            f"{_gigabytes(_bytes(x))}, between the layers {_gigabytes(between)}), and there are {_gigabytes(memory)}; "
            "give a smaller one, `optimizer.grad_accum_steps` or `model.remat`"
        )


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of memory that a device has; 0 where it does not say."""
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return int((device.memory_stats() or {}).get("bytes_limit", 0))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
