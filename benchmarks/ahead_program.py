"""Compiles one program for devices that are not there, and prints what it takes; `benchmarks.ahead_of_time` asks."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from benchmarks import hlo
from benchmarks.least import least_of_step
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config, Parallel, input_size
from svdnet_jax.data.batches import Batch
from svdnet_jax.distributed.mesh import AXIS, MeshContext
from svdnet_jax.models.svdnet import SVDNet, create_model
from svdnet_jax.training.embedding import make_eval_fn
from svdnet_jax.training.loop import compile_phases
from svdnet_jax.training.optimizer import FROZEN, weight_groups, with_learning_rate
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import TrainState, init_state

STEPS, IDENTITIES, IMAGES, SIZE = 10, 751, 12936, (128, 64)
"""Steps of a call; Market-1501's identities, training images and their size."""
TARGET = Path(__file__).with_name("h100.txtpb")
"""XLA's description of an H100 (GpuTargetConfigProto)."""


def topology(target: str) -> tuple[Any, str]:
    """Returns the devices of a target, ``h100x8`` or ``v5e:2x2``, and what JAX calls their kind."""
    if target.startswith("h100x"):
        options = {"target_config": TARGET.read_text(), "topology": f"1x1x{target.removeprefix('h100x')}"}
        return topologies.get_topology_desc(platform="cuda", topology_name="h100", **options).devices, "gpu"
    return topologies.get_topology_desc(platform="tpu", topology_name=target).devices, "tpu"


def state_of(model: SVDNet, config: Config, optimizer: Any) -> TrainState:
    """Returns the shapes of a state at the start of a phase."""
    state = jax.eval_shape(lambda: init_state(model, input_size(config.data), 0))
    if optimizer is None:
        return state
    make = lambda params: with_learning_rate(optimizer.init(params), jnp.zeros((), jnp.float32))  # noqa: E731
    return state.replace(opt_state=jax.eval_shape(make, state.params))


def lowered(config: Config, kind: str, devices: MeshContext) -> tuple[Any, int]:
    """Returns the program of a kind of phase, or ``embed``, and the bytes of the arrays that it may take over."""
    model = create_model(config.model, num_classes=IDENTITIES)

    if devices.mode == "pmap":
        return pmapped(model, config, kind, devices)

    def whole(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=devices.replicated), tree)

    def shared(shape: tuple[int, ...], dtype: Any, axis: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=devices.sharded(axis))

    batch = config.data.batch_size
    if kind == "embed":
        variables = whole(state_of(model, config, None).variables)
        images = shared((batch, *SIZE, 3), jnp.uint8, 0)
        program: Any = make_eval_fn(model, input_size(config.data))
        return program.lower(variables, images), 0
    program, state, store, rates = parts_of(model, config, kind, devices)
    samples = shared((STEPS, batch), jnp.int32, 1)
    return program.lower(whole(state), whole(store), samples, whole(rates)), size_of_state(state)


def pmapped(model: SVDNet, config: Config, kind: str, devices: MeshContext) -> tuple[Any, int]:
    """Returns the same of ``--parallel pmap``, which shares out by the shape of the positions."""
    program, state, store, rates = parts_of(model, config, kind, devices)
    samples = jax.ShapeDtypeStruct((STEPS, devices.count, config.data.batch_size // devices.count), jnp.int32)
    return program.lower(state, store, samples, rates), size_of_state(state)


def parts_of(model: SVDNet, config: Config, kind: str, devices: MeshContext) -> tuple[Any, TrainState, Any, Any]:
    """Returns what trains a kind of phase, and the shapes of state, store and learning rates."""
    params = state_of(model, config, None).params
    phase = compile_phases(model, params, config, devices)[kind]  # type: ignore[index]
    images, labels = jax.ShapeDtypeStruct((IMAGES, *SIZE, 3), jnp.uint8), jax.ShapeDtypeStruct((IMAGES,), jnp.int32)
    rates = jax.ShapeDtypeStruct((STEPS,), jnp.float32)
    return phase.call, state_of(model, config, phase.optimizer), Batch(images, labels), rates  # type: ignore[arg-type]


def size_of_state(state: TrainState) -> int:
    """Returns the bytes of what a step takes over."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.params, state.opt_state)))


def operations(config: Config) -> float:
    """Returns floating-point operations of an image, forth."""
    model = create_model(config.model, num_classes=IDENTITIES)
    x = jax.ShapeDtypeStruct((1, *input_size(config.data), 3), jnp.float32)
    forth = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    return float(forth.lower(state_of(model, config, None).variables, x).cost_analysis()["flops"])


def least(config: Config, kind: str, devices: int) -> int | None:
    """Returns the bytes that a step must move on a device, where BatchNorm's statistics are stored; else nothing."""
    if kind == "embed" or config.model.batch_norm != "frozen":
        return None
    model = create_model(config.model, num_classes=IDENTITIES)
    variables = state_of(model, config, None).variables
    phase = next(each.settings for each in build_schedule(config) if each.kind == kind)
    groups = jax.tree.leaves(weight_groups(variables["params"], phase, config.optimizer), is_leaf=_is_group)
    images = jax.ShapeDtypeStruct((config.data.batch_size // devices, *input_size(config.data), 3), jnp.float32)
    return least_of_step(model, variables, [group != FROZEN for group in groups], images)


def _is_group(tree: Any) -> bool:
    """Tells whether a tree is the label of a weight."""
    return isinstance(tree, type(FROZEN))


def compiled(
    target: str, preset: str, kind: str, dtype: str, batch: int, parallel: Parallel = "auto"
) -> dict[str, Any]:
    """Returns the line of a program: time to compile, memory, bytes a step, collectives, what should not be there."""
    config = PRESETS[preset]
    size = batch or config.data.batch_size
    config = replace(
        config,
        model=replace(config.model, dtype=dtype),
        data=replace(config.data, batch_size=size),  # type: ignore[arg-type]
    )
    forth = operations(config)
    found, platform = topology(target)
    # The package asks JAX for the kind of device that it works on; here that is the one compiled for.
    jax.default_backend = lambda: platform
    devices = MeshContext(parallel, Mesh(np.array(found), (AXIS,), axis_types=(AxisType.Auto,)))
    program, taken = lowered(config, kind, devices)
    began = time.monotonic()
    done = program.compile()
    seconds, memory, text = time.monotonic() - began, done.memory_analysis(), done.as_text()
    work = hlo.work_of(hlo.step_of(hlo.computations(text)), IMAGES * SIZE[0] * SIZE[1] * 3)
    times = 1 if kind == "embed" else 3
    return {
        "target": target,
        "devices": len(found),
        "preset": preset,
        "kind": kind,
        "dtype": dtype,
        "batch": size,
        "parallel": parallel,
        "compile_s": seconds,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "to_alias": taken,
        "operations": times * forth * size / len(found),
        **work._asdict(),
        "least": least(config, kind, len(found)),
        "float64": sum(" f64[" in line.partition("(")[0] for line in text.splitlines()),
        "host_calls": text.count("callback") + text.count("outfeed("),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(compiled(**given)))
