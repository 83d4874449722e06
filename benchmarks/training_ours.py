"""Our training program as benchmarks.training measures it."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.training_case import LAST_SCALE, STD, Case, random_images
from benchmarks.turns import Ready
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config, Model, PhaseKind
from svdnet_jax.data.batches import make_loader, mean_image
from svdnet_jax.data.types import Split
from svdnet_jax.distributed.mesh import MeshContext, create_mesh, disable_malloc_trim
from svdnet_jax.models.resnet import ResNet
from svdnet_jax.models.svdnet import BACKBONES, Backbones, create_model
from svdnet_jax.training.compile import steps_per_call
from svdnet_jax.training.loop import CompiledPhase, compile_phases
from svdnet_jax.training.state import TrainState, begin_phase, init_state

PRESET = PRESETS["paper-resnet50"]


def case_of(kind: str, height: int, width: int, dtype: str, batch: int, platform: str) -> Case:
    """The preset's step in words that every contender understands."""
    phase = {"base": PRESET.base, "restraint": PRESET.rri.restraint, "relaxation": PRESET.rri.relaxation}[kind]
    assert all(factor == 2 for _, factor in phase.multipliers)
    return Case(
        kind=kind,
        height=height,
        width=width,
        dtype=dtype,
        batch=batch,
        platform=platform,
        freeze=phase.freeze,
        doubled=tuple(pattern for pattern, _ in phase.multipliers),
        no_decay=PRESET.optimizer.no_decay,
        momentum=PRESET.optimizer.momentum,
        decay=PRESET.optimizer.weight_decay,
        dim=PRESET.model.embedding_dim,
        dropout=PRESET.model.dropout,
        images=16 * batch,
    )


class Made(NamedTuple):
    """What trains, and the state to start from."""

    config: Config
    devices: MeshContext
    program: CompiledPhase
    state: TrainState
    split: Split


def make(case: Case) -> Made:
    """The preset's program for a case, on one device."""
    config = replace(
        PRESET,
        parallel="single",
        data=replace(PRESET.data, height=case.height, width=case.width, batch_size=case.batch, flip=case.flip),
        model=replace(PRESET.model, dtype=cast(Any, case.dtype), embedding_dim=case.dim, dropout=case.dropout),
    )
    images, classes = random_images(case)
    split = Split(images, classes + 1, np.ones_like(classes), np.array([f"{i}.jpg" for i in range(len(images))]))
    devices = create_mesh(config)
    size = case.height, case.width
    model = create_model(config.model, case.classes, _backbones(case))
    state = init_state(model, size, 0, np.asarray(mean_image(images, size)), (STD,) * 3)
    state = devices.replicate(state.replace(params=jax.tree_util.tree_map_with_path(_livelier, state.params)))
    kind = cast(PhaseKind, case.kind)
    program = compile_phases(model, state.params, config, devices)[kind]
    return Made(
        config,
        devices,
        program,
        begin_phase(state, program.optimizer, config.optimizer.learning_rate, phase=0, correlation=0.0),
        split,
    )


def prepare(case: Case) -> Ready:
    """Trains as `svdnet_jax.training.loop` does: images on the device, positions sent ahead, metrics left there."""
    disable_malloc_trim()
    config, devices, program, state, split = make(case)
    steps = steps_per_call(config)
    made = make_loader(split, config.data, config.seed, 0, steps, devices, resident=True)
    where = state.step.sharding

    def calls() -> Any:
        now = state
        while True:
            samples = next(made.batches)
            rates = jax.device_put(np.full(steps, case.rate, np.float32), where)
            with jax.transfer_guard("disallow"):
                now, metrics = program.call(now, made.device_data, samples, rates)
            yield now, metrics

    def wait(sent: tuple[TrainState, Any]) -> float:
        jax.block_until_ready(sent)
        return float(sent[1]["loss"][-1])

    return Ready(partial(next, calls()), wait, steps, _memory())


def _backbones(case: Case) -> Backbones:
    """Ours; in tests a ResNet of fewer blocks goes by the name of ResNet-50."""

    def fewer(config: Model) -> ResNet:
        frozen = config.batch_norm == "frozen"
        return ResNet(case.blocks, True, config.layout, frozen_statistics=frozen, dtype=jnp.dtype(config.dtype))

    return BACKBONES if case.blocks == (3, 4, 6, 3) else {"resnet50": fewer}


def _livelier(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    last = [str(key.key) for key in path][-2:] == ["bn3", "scale"]
    return jnp.full_like(leaf, LAST_SCALE) if last else leaf


def _memory() -> Any:
    """What tells the peak of an accelerator, from the start of the process; None on a CPU."""
    device = jax.devices()[0]
    return None if device.platform == "cpu" else lambda: (device.memory_stats() or {})["peak_bytes_in_use"] / 2**20
