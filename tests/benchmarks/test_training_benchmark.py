"""benchmarks.training runs, its contenders do the same work, and its operations are those of the compiled program."""

from contextlib import closing, contextmanager
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import training, training_ours
from benchmarks.table import read_rows, training_table
from benchmarks.training_case import is_frozen, step_flops
from benchmarks.turns import Ready, take_turns
from svdnet_jax.data.batches import make_loader
from svdnet_jax.models.svdnet import parameter_paths

KINDS = ("base", "restraint", "relaxation")


def small(kind, **others):
    """A case of four units; a batch is all of the images, so that it does not matter who draws them in which order."""
    case = training_ours.case_of(kind, 64, 32, "float32", 4, "cpu")
    return replace(case, blocks=(1, 1, 1, 1), images=4, **others)


def calm(kind):
    """Without luck."""
    return small(kind, flip=False, dropout=0.0, rate=1e-3)


@contextmanager
def call_of(made):
    """Our program and what it is called with."""
    fed = make_loader(made.split, made.config.data, 0, 0, 1, made.devices, resident=True)
    with closing(fed.batches):
        rates = jax.device_put(np.full(1, 1e-3, np.float32), made.devices.replicated)
        yield made.program.call, (made.state, fed.device_data, next(fed.batches), rates)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_takes_the_same_steps(kind):
    import torch
    from torch_networks import from_flax

    from benchmarks import training_torch

    case = calm(kind)
    network, step = training_torch.make(case, "channels_last")
    made = training_ours.make(case)
    before = {path: np.array(leaf) for path, leaf in parameter_paths(made.state.params).items()}
    theirs = dict(network.paths())
    assert {path: tuple(from_flax(leaf).shape) for path, leaf in before.items()} == {
        path: tuple(parameter.shape) for path, parameter in theirs.items()
    }
    with torch.no_grad():
        for path, parameter in theirs.items():
            parameter.copy_(from_flax(before[path]))
    losses = []
    with call_of(made) as (call, (after, *rest)):
        for _ in range(3):
            after, metrics = call(after, *rest)
            losses.append(float(metrics["loss"][0]))
    # Sums of thousands of products in float32, in another order; the momentum is in the third.
    np.testing.assert_allclose([float(step()[0]) for _ in range(3)], losses, rtol=2e-5)
    assert losses[0] - losses[2] > 1e-3
    for path, leaf in parameter_paths(after.params).items():
        moved = float(np.abs(np.asarray(leaf) - before[path]).max())
        assert (moved > 0) is theirs[path].requires_grad is not is_frozen(case, path), path
        difference = np.abs(from_flax(np.asarray(leaf)).numpy() - theirs[path].detach().numpy()).max()
        # Beside what it has moved, a weight is rounded to float32 at each step.
        assert difference <= 0.01 * moved + 1e-6 * np.abs(before[path]).max(), path


@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in ("base", "restraint")), "relaxation"]
)
def test_operations_are_those_of_the_compiled_program(kind):
    case = calm(kind)
    with call_of(training_ours.make(case)) as (call, arguments):
        compiled = call.lower(*arguments).compile()
    # A call ends with S(W), whose Gram matrix is larger than everything else here.
    found = compiled.cost_analysis()["flops"] - 2 * 2048 * case.dim**2
    # The compiler counts the small things too, and leaves out products with padding; a frozen stem is a fifth.
    assert found == pytest.approx(step_flops(case), rel=0.08)


def test_operations_of_resnet50_are_the_published_ones():
    """He et al. 2016, table 1: 3.8e9 multiplications for 224 x 224, forward; going back needs twice as many."""
    case = training_ours.case_of("base", 224, 224, "float32", 1, "cpu")
    assert step_flops(case) / 6 == pytest.approx(3.8e9, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("others", [(), pytest.param(("torch",), marks=pytest.mark.torch)])
def test_a_small_case_from_end_to_end(others):
    names = training.contenders(training.Options(contenders=("svdnet_jax", *others)), "cpu")
    rows, errors = training.measure(small("relaxation"), names, 2, 0.1)
    assert not errors
    assert [row["contender"] for row in rows] == names
    for row in rows:
        assert row["images_per_second"] == pytest.approx(4000 / row["step_ms"])
        assert row["mfu"] == pytest.approx(row["flops"] / row["step_ms"] * 1000 / row["ceiling"])
        assert len(row["rounds"]) == 2
        assert row["loss"] == pytest.approx(np.log(751), rel=0.1)
    lines = training_table([row | {"device": "a machine"} for row in rows]).splitlines()
    assert lines[0].startswith("| a machine, 64 x 32, float32, batch 4 | images/s |")
    assert lines[2].startswith("| relaxation: svdnet_jax | ")
    assert " | 1.00x | " in lines[2]
    assert len(lines) == 2 + len(names)


def test_cases_that_are_held_are_left_out_and_others_kept(tmp_path, monkeypatch, capsys):
    seen = []

    def measured(case, names, rounds, seconds):
        seen.append((case.kind, case.width))
        numbers = {"images_per_second": 1.0, "step_ms": 1.0, "mfu": None, "compile": 1.0, "memory": 1.0}
        keys = {name: getattr(case, name) for name in training.KEYS[1:]}
        return [{"contender": name} | keys | numbers for name in names], {}

    monkeypatch.setattr(training, "measure", measured)
    out = tmp_path / "rows.jsonl"
    for sizes, missing in ((("32x16",), False), (("32x16", "32x32"), True), (("32x16",), False)):
        options = training.Options(sizes=sizes, kinds=("base",), contenders=("svdnet_jax",), missing=missing, out=out)
        assert training.main(options) == 0
    assert seen == [("base", 16), ("base", 32), ("base", 16)]
    assert [row["width"] for row in read_rows(out)] == [32, 16]
    assert {row["platform"] for row in read_rows(out)} == {"cpu"}
    assert capsys.readouterr().out.count("| base: svdnet_jax | 1.00 |") == 3


def prepare(what):
    """A contender that breaks, as take_turns finds it in this module."""
    if what == "breaks":
        raise ValueError("no memory")
    return Ready(lambda: what, lambda sent: float(sent), 2, lambda: 3.0)


def test_one_who_fails_does_not_stop_the_others():
    found = take_turns(
        {name: ("tests.benchmarks.test_training_benchmark", (name,)) for name in ("breaks", "1", "nan")}, 2, 0.001
    )
    assert found["breaks"] == {"error": "ValueError: no memory"}
    assert found["nan"]["error"] == "Failed: the loss is nan"
    assert found["1"]["loss"] == 1
    assert found["1"]["steps_per_call"] == 2
    assert found["1"]["memory"] == 3
