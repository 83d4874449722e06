"""The same training whoever shares the work (dropout masks under pmap apart): modes, places of images, steps, parts."""

import dataclasses
import subprocess
import sys
from contextlib import closing
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import counted

from svdnet_jax.config.schema import Compute, Config, Data, Loss, Model, Optimizer, Phase
from svdnet_jax.data.batches import make_loader
from svdnet_jax.distributed.mesh import create_mesh, describe
from svdnet_jax.models.resnet import MiniResNet, ResNet, resnet50
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.runs import checkpoint
from svdnet_jax.training.compile import steps_per_call
from svdnet_jax.training.loop import compile_phases
from svdnet_jax.training.state import begin_phase, init_state

pytestmark = pytest.mark.unoptimized


def mini(widths):
    def make(config):
        frozen, dtype = config.batch_norm == "frozen", jnp.dtype(config.dtype)
        return MiniResNet(widths, channels=8, frozen_statistics=frozen, dtype=dtype)

    return make


BACKBONES = {
    "micro": mini((4,)),
    "deeper": mini((4, 8)),
    "resnet": lambda config: ResNet((1, 1, 1, 1), bottleneck=False, remat=config.remat),
}
BASE = Config(
    data=Data(batch_size=16, num_instances=2, height=16, width=8, crop_padding=2, erase_prob=0.5),
    model=Model(backbone="micro", embedding_dim=6, dropout=0.0),
    optimizer=Optimizer(learning_rate=0.05),
    base=Phase(steps=6),
)
RATE = 0.05
STEPS = 6


def change(config, **sections):
    return dataclasses.replace(config, **{k: dataclasses.replace(getattr(config, k), **v) for k, v in sections.items()})


@cache
def bench(config):
    """Devices, what trains on them, and new weights."""
    devices = create_mesh(config)
    model = create_model(config.model, 12, BACKBONES)
    fresh = devices.replicate(init_state(model, (config.data.height, config.data.width), 0))
    return devices, compile_phases(model, fresh.params, config, devices)["base"], fresh


def begun(config):
    """Devices, program and state before the first step, to be donated."""
    devices, program, fresh = bench(config)
    fresh = jax.tree.map(jnp.copy, fresh)
    return devices, program, begin_phase(fresh, program.optimizer, RATE, phase=0, correlation=fresh.cursor.correlation)


def train(config, dataset, steps=STEPS, per_call=1, resident=True, start=None, frozen=False, rate=RATE):
    """The state after some steps and the metrics of each, as NumPy's."""
    devices, program, state = begun(config)
    if frozen:  # statistics that are not those of this batch, as of ImageNet
        state = state.replace(batch_stats=jax.tree.map(lambda x: x + 0.25, state.batch_stats))
    state = devices.replicate(start(state)) if start else state
    made = make_loader(dataset.train, config.data, 0, int(state.step), per_call, devices, resident=resident)
    rates = jax.device_put(np.full(per_call, rate, np.float32), devices.replicated)
    seen = []
    with closing(made.batches):
        for _ in range(steps // per_call):
            samples = next(made.batches)
            with jax.transfer_guard("disallow"):
                state, metrics = program.call(state, made.device_data, samples, rates)
            seen.append(metrics)
    loss, accuracy = (np.concatenate([np.asarray(m[name]) for m in seen]) for name in ("loss", "accuracy"))
    return state, {"loss": loss, "accuracy": accuracy}


def numbers(state):
    return jax.device_get((state.params, state.batch_stats, state.opt_state, state.step, state.cursor))


# Weights are of the size of one, gradients are sums over 16 images in float32: some roundings, a few steps long.
CLOSE = {"atol": 2e-6, "rtol": 2e-5}


@pytest.mark.parametrize("mode", ["auto", "pmap"])
@pytest.mark.parametrize(
    ("batch_norm", "neck"),
    # With statistics that are frozen there is less to go wrong.
    [pytest.param("frozen", "none", marks=pytest.mark.slow), ("batch", "batchnorm")],
)
def test_eight_devices_train_what_one_trains(mode, batch_norm, neck, dataset):
    config = change(BASE, model={"batch_norm": batch_norm, "neck": neck})
    frozen = batch_norm == "frozen"
    expected, seen = train(dataclasses.replace(config, parallel="single"), dataset, frozen=frozen)
    found, there = train(dataclasses.replace(config, parallel=mode), dataset, frozen=frozen)
    assert len(found.params["eigenlayer"]["kernel"].sharding.device_set) == 8
    chex.assert_trees_all_close(numbers(found), numbers(expected), **CLOSE)
    np.testing.assert_allclose(there["loss"], seen["loss"], rtol=1e-5)
    np.testing.assert_array_equal(there["accuracy"], seen["accuracy"])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found.params, begun(config)[2].params)
    assert max(jax.tree.leaves(moved)) > 1e-3  # thousands of roundings


@pytest.mark.slow  # test_mesh.py has the masks of each device
def test_dropout_draws_the_same_masks_but_under_pmap(dataset):
    """As README.md, docs/devices.md and the help of --parallel say."""
    config = change(BASE, model={"dropout": 0.5})
    single, auto, pmap = (
        train(dataclasses.replace(config, parallel=mode), dataset, steps=1) for mode in ("single", "auto", "pmap")
    )
    chex.assert_trees_all_close(numbers(auto[0]), numbers(single[0]), **CLOSE)
    classifier, other = (np.asarray(state.params["classifier"]["kernel"]) for state in (single[0], pmap[0]))
    assert np.abs(classifier - other).max() > 10 * CLOSE["atol"]  # ten times what rounding may do


@pytest.mark.parametrize("mode", ["auto", pytest.param("pmap", marks=pytest.mark.slow)])
def test_triplets_are_mined_among_the_images_of_all_devices(mode, dataset):
    config = dataclasses.replace(BASE, loss=Loss(triplet="margin", margin=5.0))
    # One step, as the hardest images may be others after a rounding.
    expected, seen = train(dataclasses.replace(config, parallel="single"), dataset, steps=1)
    found, there = train(dataclasses.replace(config, parallel=mode), dataset, steps=1)
    assert seen["loss"] > 5  # the triplet loss is in it: ln 12 is 2.5
    chex.assert_trees_all_close(numbers(found), numbers(expected), **CLOSE)
    np.testing.assert_allclose(there["loss"], seen["loss"], rtol=1e-5)


@pytest.mark.parametrize("mode", [pytest.param("auto", marks=pytest.mark.slow), "pmap"])
def test_images_in_host_memory_train_what_images_on_the_devices_train(mode, dataset):
    config = dataclasses.replace(BASE, parallel=mode)
    ours, theirs = (train(config, dataset, resident=resident)[0] for resident in (True, False))
    # The same numbers enter; the compiler may add them in another order.
    chex.assert_trees_all_close(numbers(ours), numbers(theirs), **CLOSE)


@pytest.mark.parametrize("mode", [pytest.param("single", marks=pytest.mark.slow), "pmap"])
def test_several_steps_in_one_call_are_those_steps(mode, dataset):
    config = dataclasses.replace(BASE, parallel=mode)
    one, seen = train(config, dataset)
    with counted() as compiled:
        two, there = train(config, dataset, per_call=2)
    assert compiled["call"] + compiled["_fun"] == 1  # as pmap names it
    chex.assert_trees_all_close(numbers(two), numbers(one), **CLOSE)
    np.testing.assert_allclose(there["loss"], seen["loss"], rtol=1e-5)


def test_steps_in_a_loop_of_the_device_are_those_steps(dataset, monkeypatch):
    """As on an accelerator; on a CPU they are written out."""
    config = dataclasses.replace(BASE, parallel="single", optimizer=Optimizer(grad_accum_steps=2, learning_rate=0.05))
    written_out, seen = train(config, dataset)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        # Another seed of the run, which nothing here looks at: the program is cached by its settings.
        looped, there = train(dataclasses.replace(config, seed=1), dataset)
    chex.assert_trees_all_close(numbers(looped), numbers(written_out), **CLOSE)
    np.testing.assert_allclose(there["loss"], seen["loss"], rtol=1e-5)


def test_a_call_has_the_most_steps_that_divide_everything():
    config = Config(
        log_every=12, checkpoint_every=24, base=Phase(steps=36), rri=dataclasses.replace(Config().rri, rounds=0)
    )
    for most, steps in ((1, 1), (3, 3), (5, 4), (11, 6), (100, 12)):
        assert steps_per_call(change(config, compute={"steps_per_call": most})) == steps
    assert steps_per_call(config) == 1  # on a CPU
    assert steps_per_call(change(config, compute={"steps_per_call": 100}, base={"steps": 7})) == 1


def frozen_norm(config, **sections):
    """Where a part of a batch knows nothing of the others."""
    return change(config, model={"batch_norm": "frozen"}, **sections)


@pytest.mark.parametrize(
    "mode", [pytest.param("single", marks=pytest.mark.slow), "auto", pytest.param("pmap", marks=pytest.mark.slow)]
)
def test_gradients_of_parts_add_up_to_that_of_the_batch(mode, dataset):
    config = frozen_norm(BASE, data={"num_instances": 0})
    whole, seen = train(dataclasses.replace(config, parallel="single"), dataset, frozen=True)
    parts, there = train(
        dataclasses.replace(change(config, optimizer={"grad_accum_steps": 2}), parallel=mode), dataset, frozen=True
    )
    chex.assert_trees_all_close(numbers(parts), numbers(whole), **CLOSE)
    np.testing.assert_allclose(there["loss"], seen["loss"], rtol=1e-5)
    np.testing.assert_allclose(there["accuracy"], seen["accuracy"])


@pytest.mark.slow  # test_misuse.py refuses other parts
def test_parts_are_whole_identities(dataset):
    """With K = 2 every image has its positive in its part: the triplet loss of each is not zero for want of one."""
    config = dataclasses.replace(frozen_norm(BASE), loss=Loss(triplet="margin", margin=50.0), parallel="single")
    _, seen = train(change(config, optimizer={"grad_accum_steps": 4}), dataset, steps=1, frozen=True)
    assert seen["loss"] > 45


def test_a_run_goes_on_on_other_devices_with_the_same_stream(dataset, tmp_path):
    whole, seen = train(dataclasses.replace(BASE, parallel="single"), dataset)
    half, before = train(dataclasses.replace(BASE, parallel="pmap"), dataset, steps=2)
    with checkpoint.open_checkpoints(tmp_path, lambda metrics: 0.0) as saved:
        checkpoint.save(saved, half, {})
        rest, after = train(BASE, dataset, steps=4, start=lambda like: checkpoint.restore(saved, 2, like))
    assert len(rest.step.sharding.device_set) == 8
    chex.assert_trees_all_close(numbers(rest), numbers(whole), **CLOSE)
    np.testing.assert_allclose(np.concatenate([before["loss"], after["loss"]]), seen["loss"], rtol=1e-5)


@pytest.mark.slow
def test_bfloat16_follows_the_loss_of_float32(dataset):
    """Convolutions with 8 bits of mantissa: on the way down the losses part by a fiftieth of the way at most."""
    smooth = dataclasses.replace(BASE, data=Data(batch_size=48, height=16, width=8), parallel="single")
    losses = {
        dtype: train(change(smooth, model={"backbone": "deeper", "dtype": dtype}), dataset, steps=40, rate=0.2)[1][
            "loss"
        ]
        for dtype in ("float32", "bfloat16")
    }
    way = losses["float32"][:4].mean() - losses["float32"][-4:].mean()
    difference = np.abs(losses["bfloat16"] - losses["float32"])
    assert way > 0.05
    assert 0 < difference.max() < way / 50
    state, _ = train(change(BASE, model={"dtype": "bfloat16"}), dataset, steps=1)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {"float32"}


LARGER = change(
    BASE, model={"backbone": "resnet", "embedding_dim": 8}, data={"batch_size": 8, "height": 64, "width": 32}
)
LARGER = dataclasses.replace(LARGER, parallel="single")


def compiled(config, dataset):
    """The compiled step and what it is called with."""
    devices, program, state = begun(config)
    made = make_loader(dataset.train, config.data, 0, 0, 1, devices, resident=True)
    with closing(made.batches):
        samples = next(made.batches)
    arguments = state, made.device_data, samples, devices.replicate(np.full(1, RATE, np.float32))
    return program.call.lower(*arguments).compile(), arguments


@pytest.mark.slow
def test_recomputing_gives_the_same_step(dataset):
    (kept, before), (again, _) = (compiled(change(LARGER, model={"remat": remat}), dataset) for remat in (False, True))
    expected = kept(*jax.tree.map(jnp.copy, before))[0]
    chex.assert_trees_all_close(numbers(again(*before)[0]), numbers(expected), **CLOSE)
    assert again.cost_analysis()["flops"] > 1.1 * kept.cost_analysis()["flops"]


def test_recomputing_keeps_less_for_the_backward_pass():
    """Of a ResNet-50 at 256 x 128: block borders remain of some ten activations a block."""

    def kept(recompute):
        model = resnet50(remat=recompute, frozen_statistics=True)
        images = jax.ShapeDtypeStruct((8, 256, 128, 3), jnp.float32)
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
        going_back = jax.eval_shape(
            lambda v, x: jax.vjp(lambda v: model.apply(v, x, train=True), v)[1], variables, images
        )
        weights = sum(leaf.size for leaf in jax.tree.leaves(variables))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(going_back)) - 4 * weights

    assert kept(True) < 0.4 * kept(False)


@pytest.mark.slow
def test_a_frozen_stem_costs_no_backward_pass(dataset):
    """As the paper's relaxation freezes stem and first stage: the compiled program does not have their gradients."""
    everything, stem, backbone = (
        compiled(change(LARGER, base={"freeze": frozen}), dataset)[0].cost_analysis()["flops"]
        for frozen in ((), ("backbone/stem/*", "backbone/bn_stem/*", "backbone/stage1_*"), ("backbone/*",))
    )
    # Stem and first stage are three convolutions. Going back through one are two more, but for the gradient of images.
    first, *others = _convolutions(64, 32, 8)[:3]
    assert everything - stem == pytest.approx(2 * sum(others) + first, rel=0.1)
    # Only the forward pass is left, a third of the whole.
    assert backbone == pytest.approx((everything + first) / 3, rel=0.1)


def _convolutions(height, width, images):
    """Floating-point operations of each convolution of that ResNet, forward."""
    h, w, found = height // 2, width // 2, [2 * 49 * 3 * 64 * (height // 2) * (width // 2)]
    h, w, inputs = h // 2, w // 2, 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        h, w = (h, w) if stage == 0 else (h // 2, w // 2)
        found += [2 * 9 * inputs * channels * h * w, 2 * 9 * channels**2 * h * w]
        if inputs != channels:
            found.append(2 * inputs * channels * h * w)
        inputs = channels
    return [images * one for one in found]


def test_a_run_says_what_it_works_on_and_warns_of_a_large_network_on_a_cpu():
    for backbone, warned in (("mini", False), ("resnet50", True)):
        config = change(Config(), model={"backbone": backbone})
        text = describe(create_mesh(config), config.model)
        assert text.startswith("Devices: 8 x cpu (cpu), `parallel` auto")
        assert ("about to train on a CPU" in text) is warned
    assert Compute().images == "auto"


FAULTS = """
import resource, sys
import numpy as np
from svdnet_jax.distributed.mesh import disable_malloc_trim
kept = sys.argv[1] == "keep" and disable_malloc_trim()
faults = []
for _ in range(6):
    np.ones(2**22)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, faults[-1] - faults[2])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of the GNU C library")
def test_memory_that_is_kept_needs_not_be_asked_for_again():
    def faults(word):
        found = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
        kept, number = found.stdout.split()
        return kept == "True", int(number)

    kept, few = faults("keep")
    if not kept:
        pytest.skip("another C library")
    assert few < 5 < faults("no")[1]
