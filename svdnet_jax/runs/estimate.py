"""What a run needs, before it starts: the size of its network, memory, and on a CPU the time."""

import os
from timeit import repeat
from typing import Any

import jax
import jax.numpy as jnp

from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.reporting.terminal import duration
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import TrainState

EFFICIENCY = 0.35
"""Of convolutions beside a matrix product, forth and back: 0.34 to 0.48 with three networks on two cores."""
FEW = 2000
"""Images that are trained on in some minutes by any network."""
LITTLE = 600.0
"""Seconds of a run that nobody has to be told of."""
PARTS = ("backbone", "neck", "eigenlayer", "classifier")
"""Of a network, in the order in which an image goes through them."""
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


def network_operations(config: Config, model: SVDNet, state: TrainState) -> float:
    """Returns the floating-point operations of one image through the network, forth; 0 where XLA does not count them.

    A multiplication with its addition counts twice, as XLA counts them.

    Args:
        config: Settings of the run.
        model: Its network.
        state: Its state, or the shapes of one.
    """
    x = jax.ShapeDtypeStruct((1, *input_size(config.data), 3), jnp.float32)
    program = jax.jit(lambda variables, x: model.apply(variables, x, train=False)).lower(state.variables, x)
    return float((program.cost_analysis() or {}).get("flops", 0.0))


def tell_network(config: Config, params: Any, operations: float) -> str:
    """Returns a line about the size of a network: its parameters by part, and operations an image.

    Args:
        config: Settings of the run.
        params: Its parameters, or their shapes.
        operations: From `network_operations`.
    """
    known = [part for part in PARTS if part in params]
    rest = [part for part in params if part not in known]
    sizes = {part: sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in (*known, *rest)}
    parts = ", ".join(f"{part} {size:,}" for part, size in sizes.items() if size)
    height, width = input_size(config.data)
    many = f"{operations / 1e9:.2g} billion" if operations >= 1e9 else f"{operations / 1e6:.2g} million"
    counted = f"; {many} operations an image of {height} x {width}" if operations else ""
    return f"Network: {sum(sizes.values()):,} parameters ({parts}){counted}"


def tell_time(config: Config, forth: float) -> str:
    """Returns about how long a run takes on CPUs, from the operations of its network; empty where that is little.

    The speed is that of a matrix product, measured here, times `EFFICIENCY`. Images are counted as if nothing were
    frozen.

    Args:
        config: Settings of the run.
        forth: From `network_operations`.
    """
    steps = build_schedule(config)[-1].end - (config.base.steps if config.base_from else 0)
    if steps * config.data.batch_size < FEW:
        return ""
    operations = 3 * forth * steps * config.data.batch_size  # back takes twice what forth takes
    seconds = operations / (EFFICIENCY * product_speed())
    if seconds < LITTLE:
        return ""
    return (
        f"About {duration(seconds)} on this machine, half or twice as much: {steps} steps of "
        f"{config.data.batch_size} images, {forth / 1e9:.2g} billion operations an image; embedding the test images "
        "after phases comes on top. The lines of training say what is left"
    )


def product_speed(size: int = 1024) -> float:
    """Returns floating-point operations a second of a matrix product on the default device."""
    product, square = jax.jit(jnp.matmul), jnp.ones((size, size))
    product(square, square).block_until_ready()
    fastest = min(repeat(lambda: product(square, square).block_until_ready(), number=1, repeat=5))
    return float(2 * size**3 / fastest)


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of memory that a device has; 0 where it does not say."""
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return int((device.memory_stats() or {}).get("bytes_limit", 0))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
