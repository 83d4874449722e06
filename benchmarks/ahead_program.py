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
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.data.loader import Batch
from svdnet_jax.distributed.mesh import AXIS, MeshContext
from svdnet_jax.models.svdnet import SVDNet, create_model
from svdnet_jax.training.eval_fn import make_eval_fn
from svdnet_jax.training.loop import compile_phases
from svdnet_jax.training.optimizer import with_learning_rate
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
    params = state_of(model, config, None).params
    phase = compile_phases(model, params, config, devices)[kind]  # type: ignore[index]
    state = whole(state_of(model, config, phase.optimizer))
    store = whole(
        Batch(jax.ShapeDtypeStruct((IMAGES, *SIZE, 3), jnp.uint8), jax.ShapeDtypeStruct((IMAGES,), jnp.int32))  # type: ignore[arg-type]
    )
    program = phase.call
    rates = whole(jax.ShapeDtypeStruct((STEPS,), jnp.float32))
    taken = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.params, state.opt_state)))
    return program.lower(state, store, shared((STEPS, batch), jnp.int32, 1), rates), taken


def operations(config: Config) -> float:
    """Returns floating-point operations of an image, forth."""
    model = create_model(config.model, num_classes=IDENTITIES)
    x = jax.ShapeDtypeStruct((1, *input_size(config.data), 3), jnp.float32)
    forth = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    return float(forth.lower(state_of(model, config, None).variables, x).cost_analysis()["flops"])


def compiled(target: str, preset: str, kind: str, dtype: str, batch: int) -> dict[str, Any]:
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
    devices = MeshContext("auto", Mesh(np.array(found), (AXIS,), axis_types=(AxisType.Auto,)))
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
        "compile_s": seconds,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "to_alias": taken,
        "operations": times * forth * size / len(found),
        **work._asdict(),
        "float64": sum(" f64[" in line.partition("(")[0] for line in text.splitlines()),
        "host_calls": text.count("callback") + text.count("outfeed("),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(compiled(**given)))
