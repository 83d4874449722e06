"""The device mesh of a run, and placing arrays on it: replicated, or sharded along one axis.

A state is whole on every device whatever the mode, so that checkpoints, measuring and decorrelation know nothing of
modes, and a run goes on on other devices by putting its state there.
"""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Int, PyTree

from svdnet_jax.config.schema import Compute, Config, Model, Parallel
from svdnet_jax.errors import ConfigError

AXIS = "data"
"""Name of the one axis of the mesh."""
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of settings of the GNU C library's malloc (malloc.h)."""
SLOW_ON_CPU = ("resnet", "caffenet")

Tree = TypeVar("Tree", bound=PyTree)
Index = Any


@dataclass(frozen=True)
class MeshContext:
    """Devices in a row, and what is done on them."""

    mode: Parallel
    mesh: Mesh

    @property
    def count(self) -> int:
        """How many there are, on all machines."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """Of an array that is whole on each."""
        return NamedSharding(self.mesh, PartitionSpec())

    def sharded(self, axis: int) -> NamedSharding:
        """Returns the sharding of an array that is split along an axis."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

    def replicate(self, tree: Tree) -> Tree:
        """Places the same arrays, whole, on each device; every host must bring the same."""
        return replicate_on(tree, self.replicated)

    def make_global_array(self, shape: tuple[int, ...], read: Callable[[Index], np.ndarray], axis: int) -> Array:
        """Makes an array split along an axis, of which each host reads only what its own devices hold.

        Args:
            shape: Of the whole array; the axis is a multiple of `count`.
            read: From an index of the whole array to that part of it.
            axis: Which.
        """
        return jax.make_array_from_callback(shape, self.sharded(axis), read)

    def rows(self, array: np.ndarray) -> Array:
        """Makes an array split along its first axis."""
        return self.make_global_array(array.shape, lambda index: array[index], 0)

    def arrange(self, positions: Int[np.ndarray, "K B"]) -> Int[np.ndarray, "K ..."]:
        """Returns positions of samples such that axis 1 can be shared out: pmap wants an axis of one entry a device."""
        return positions.reshape(len(positions), self.count, -1) if self.mode == "pmap" else positions


def replicate_on(tree: Tree, sharding: Sharding) -> Tree:
    """Places the same arrays under another sharding, which may be over the devices of several hosts."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def leaf(x: Array) -> Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(leaf(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        host = np.asarray(jax.device_get(x))
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(leaf, tree)


def create_mesh(config: Config) -> MeshContext:
    """Makes the mesh of the devices that settings ask for.

    Raises:
        ConfigError: The batch cannot be shared among them, or the mode does not go with several processes.
    """
    several = jax.process_count() > 1
    if several and config.parallel != "auto":
        raise ConfigError(
            f"`parallel` {config.parallel}: works in one process, and there are {jax.process_count()}; give auto"
        )
    devices = jax.devices()[:1] if config.parallel == "single" else jax.devices()
    context = MeshContext(
        config.parallel, jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    )
    size, parts = config.data.batch_size, config.optimizer.grad_accum_steps
    unit = context.count * parts * (max(config.data.num_instances, 1) if parts > 1 else 1)
    if size % unit:
        raise ConfigError(
            f"`data.batch_size` {size}: cannot be shared among {context.count} devices"
            + (f" in {parts} parts (`optimizer.grad_accum_steps`) of whole identities" if parts > 1 else "")
            + f"; give a multiple of {unit}, or `parallel` single"
        )
    return context


def enable_compilation_cache(folder: Path | None) -> None:
    """Turns on JAX's persistent compilation cache, for programs that compile in a tenth of a second or more.

    Raises:
        ConfigError: The folder cannot be made.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"`compute.cache` {folder}: cannot be made ({error})") from None
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def disable_malloc_trim() -> bool:
    """Turns off malloc trimming (glibc, CPU backend).

    XLA takes and frees its temporaries in every step. The system would take them back and hand them out again page by
    page, zeroed, which shows in the step of a small network. glibc's arenas of threads may still map a block anew.

    Returns:
        Whether it will.
    """
    if jax.default_backend() != "cpu" or not sys.platform.startswith("linux"):
        return False
    # Other C libraries have no such function.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(which, 2**30) for which in (TRIM_THRESHOLD, MMAP_THRESHOLD))


def fits_on_device(compute: Compute, nbytes: int) -> bool:
    """Returns whether training images of so many bytes in all lie on the devices."""
    if compute.images != "auto":
        return compute.images == "device"
    statistics = jax.local_devices()[0].memory_stats() or {}
    # A CPU's memory is not told; there the copy is one beside the mapped file.
    return 4 * nbytes <= statistics.get("bytes_limit", 8 * 2**30)


def describe(devices: MeshContext, model: Model) -> str:
    """Returns what a run works on, and a warning where a large network is about to train on a CPU."""
    first = devices.mesh.devices.flat[0]
    where = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    text = f"Devices: {devices.count} x {first.device_kind} ({first.platform}){where}, `parallel` {devices.mode}"
    if first.platform == "cpu" and model.backbone.startswith(SLOW_ON_CPU):
        text += (
            f"\nWarning: {model.backbone} is about to train on a CPU. If there is an accelerator, JAX does not see it: "
            "pip install 'svdnet-jax[cuda]' or 'svdnet-jax[tpu]'"
        )
    return text
