"""The loop: what is trained when, what is compiled, when it stops, and that an interruption changes nothing."""

import dataclasses
import itertools
import json
import signal
from contextlib import closing
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiles import counted

from svdnet_jax import eigenlayer
from svdnet_jax.config.schema import RRI, Optimizer, Phase, input_size
from svdnet_jax.data.batches import make_loader
from svdnet_jax.distributed.mesh import create_mesh
from svdnet_jax.errors import Stopped, TrainingDiverged
from svdnet_jax.models.resnet import MiniResNet
from svdnet_jax.models.svdnet import create_model, parameter_paths
from svdnet_jax.runs import checkpoint
from svdnet_jax.training.compile import steps_per_call
from svdnet_jax.training.embedding import make_eval_fn
from svdnet_jax.training.evaluation import evaluate_model
from svdnet_jax.training.events import SaveDue, StepLogged, Working
from svdnet_jax.training.loop import Task, compile_phases, is_stable, make_optimizers, optimizer_at, run_rri
from svdnet_jax.training.optimizer import FROZEN, Group, weight_groups
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import begin_phase, init_state

pytestmark = pytest.mark.unoptimized

BACKBONES = {"micro": lambda config: MiniResNet(widths=(4,), channels=8)}
# What a record says about the clock, not about the run.
CLOCK = ("images_per_second", "seconds")


@pytest.fixture(scope="module")
def config(tiny):
    return dataclasses.replace(
        tiny,
        parallel="single",
        log_every=2,
        checkpoint_every=2,
        data=dataclasses.replace(tiny.data, batch_size=8, height=16, width=8),
        model=dataclasses.replace(tiny.model, backbone="micro", embedding_dim=6),
        optimizer=Optimizer(learning_rate=0.05, momentum=0.9, weight_decay=0.01),
        base=Phase(steps=4, milestones=(3,)),
        rri=RRI(
            rounds=2,
            learning_rates=(0.05, 0.02),
            restraint=Phase(steps=4, milestones=(3,), freeze=("eigenlayer/*",)),
            relaxation=Phase(steps=4, freeze=("backbone/stem/*", "*/bn*/scale")),
            stop="never",
        ),
    )


@pytest.fixture(scope="module")
def workbench(config, dataset):
    """The compiled parts of a run."""
    model = create_model(config.model, 12, BACKBONES)
    devices = create_mesh(config)
    fresh = devices.replicate(init_state(model, input_size(config.data), config.seed))
    infer = make_eval_fn(model, input_size(config.data), devices)
    look = partial(evaluate_model, infer=infer, dataset=dataset, settings=config.eval)
    return fresh, compile_phases(model, fresh.params, config, devices), look


def start(config, workbench, phase=0):
    fresh, by_kind, _ = workbench
    fresh = jax.tree.map(jnp.copy, fresh)  # the loop donates what it is given
    begins = {kind: program.optimizer for kind, program in by_kind.items()}
    rate = build_schedule(config)[phase].learning_rate if phase < len(build_schedule(config)) else 0.0
    return begin_phase(
        fresh,
        optimizer_at(phase, build_schedule(config), begins),
        rate,
        phase=phase,
        correlation=fresh.cursor.correlation,
    )


def go(
    config, workbench, dataset, state, save=lambda *a: None, stop=lambda: 0, unreported=None, working=None, base=None
):
    """Runs to the end; the final state and all records with the states they were made from."""
    _, by_kind, look = workbench
    seen = []
    working = [] if working is None else working

    steps = steps_per_call(config)
    samples = make_loader(
        dataset.train, config.data, config.seed, int(state.step), steps, create_mesh(config), resident=True
    )
    task = Task(config, build_schedule(config), by_kind, look, steps)
    with closing(samples.batches):
        for event in run_rri(state, task, samples, stop_signal=stop, unreported=unreported, taken_over=base):
            if isinstance(event, Working):
                working.append(tuple(event.record.values())[1:])
            elif isinstance(event, SaveDue):
                state = event.state
                save(*event)
            else:
                copied = None if isinstance(event, StepLogged) else jax.tree.map(jnp.copy, event.state)
                seen.append(({k: v for k, v in event.record.items() if k not in CLOCK}, copied))
    return state, seen


@pytest.fixture(scope="module")
def compiled():
    """How often what was compiled for the unbroken run."""
    with counted() as found:
        yield found


@pytest.fixture(scope="module")
def unbroken(compiled, config, workbench, dataset):
    return go(config, workbench, dataset, start(config, workbench))


def borders(seen, event="phase"):
    return [(record, state) for record, state in seen if record["event"] == event]


def test_phases_come_in_order_with_all_their_steps(unbroken):
    final, seen = unbroken
    order = [(r["event"], r.get("phase"), r["round"], r["step"]) for r, _ in seen if r["event"] != "step"]
    assert order == [
        ("phase", "base", 0, 4),
        ("decorrelate", None, 1, 4),
        ("phase", "restraint", 1, 8),
        ("phase", "relaxation", 1, 12),
        ("decorrelate", None, 2, 12),
        ("phase", "restraint", 2, 16),
        ("phase", "relaxation", 2, 20),
    ]
    assert int(final.step) == 20
    assert int(final.cursor.phase) == 5


def test_lines_of_phases_have_the_correlation_and_the_singular_values_of_their_weight(unbroken):
    for record, state in borders(unbroken[1]):
        W = np.asarray(state.eigenlayer)
        gram = np.abs(W.T @ W)
        assert record["correlation"] == pytest.approx(np.trace(gram) / gram.sum(), rel=1e-5)
        np.testing.assert_allclose(record["spectrum"], np.linalg.svd(W, compute_uv=False), rtol=1e-5, atol=1e-6)


def test_learning_rates_follow_rounds_and_milestones(unbroken):
    steps = {r["step"]: r["learning_rate"] for r, _ in unbroken[1] if r["event"] == "step"}
    expected = {
        2: 0.05,
        4: 0.005,
        6: 0.05,
        8: 0.005,
        10: 0.05,
        12: 0.05,
        14: 0.02,
        16: 0.002,
        18: 0.02,
        20: 0.02,
    }
    assert steps == pytest.approx(expected)


def test_frozen_weights_are_the_same_bits_after_their_phase_and_all_others_move(unbroken, config):
    """With momentum and weight decay on, and momentum from the phase before."""
    base, restraint, relaxation = [state.params for _, state in borders(unbroken[1])][:3]
    svd = borders(unbroken[1], "decorrelate")[0][1].params
    for old, new, phase in ((svd, restraint, config.rri.restraint), (restraint, relaxation, config.rri.relaxation)):
        groups = weight_groups(base, phase, config.optimizer)
        trained = parameter_paths(
            jax.tree.map(lambda group: group != FROZEN, groups, is_leaf=lambda x: isinstance(x, Group))
        )
        old, new = parameter_paths(old), parameter_paths(new)
        assert trained == {path: bool((old[path] != new[path]).any()) for path in old}


def test_the_first_rounds_may_go_without_matching(config, workbench, dataset):
    config = dataclasses.replace(config, rri=dataclasses.replace(config.rri, unmatched_rounds=1))
    _, seen = go(config, workbench, dataset, start(config, workbench))
    ends = [state.eigenlayer for record, state in borders(seen) if record["phase"] != "restraint"]
    for number, (record, state) in enumerate(borders(seen, "decorrelate"), start=1):
        expected = eigenlayer.decorrelate(ends[number - 1], "us", match=number > 1)
        other = eigenlayer.decorrelate(ends[number - 1], "us", match=number == 1)
        chex.assert_trees_all_equal(state.eigenlayer, expected)
        assert bool((expected != other).any())
        assert record["round"] == number


def test_decorrelation_is_us_and_changes_nothing_but_w(unbroken, config):
    before = [state for _, state in borders(unbroken[1])][0]
    record, after = borders(unbroken[1], "decorrelate")[0]
    expected = eigenlayer.decorrelate(before.eigenlayer, config.rri.method, match=config.rri.match)
    chex.assert_trees_all_equal(after.eigenlayer, expected)
    chex.assert_trees_all_equal(after.params["classifier"], before.params["classifier"])
    chex.assert_trees_all_equal(after.params["backbone"], before.params["backbone"])
    assert record["correlation"]["after"] == pytest.approx(1, abs=1e-5)
    assert record["correlation"]["before"] == pytest.approx(float(eigenlayer.correlation(before.eigenlayer)))


@pytest.mark.parametrize("method", ["us", "rotation"])
def test_a_classifier_that_turns_with_the_features_keeps_the_loss(method, config, workbench, dataset):
    rri = dataclasses.replace(config.rri, rounds=1, method=method, rotate_classifier=True)
    _, seen = go(dataclasses.replace(config, rri=rri), workbench, dataset, start(config, workbench))
    ((record, _),) = borders(seen, "decorrelate")
    assert record["loss"]["after"] == pytest.approx(record["loss"]["before"], rel=1e-5)
    assert (record["correlation"]["after"] > 1 - 1e-5) == (method == "us")


def test_a_final_restraint_takes_the_place_of_the_last_relaxation(config, workbench, dataset):
    rri = dataclasses.replace(config.rri, final=config.rri.restraint)
    fresh, by_kind, evaluate = workbench
    workbench = fresh, {**by_kind, "final": by_kind["restraint"]}, evaluate
    config = dataclasses.replace(config, rri=rri)
    _, seen = go(config, workbench, dataset, start(config, workbench))
    order = [(record["phase"], record["round"]) for record, _ in borders(seen)]
    assert order == [("base", 0), ("restraint", 1), ("relaxation", 1), ("restraint", 2), ("final", 2)]
    assert [record["round"] for record, _ in borders(seen, "decorrelate")] == [1, 2]
    after = {record["phase"]: record["correlation"] for record, _ in borders(seen)}
    assert after["restraint"] == after["final"] == pytest.approx(1, abs=1e-5)


def test_retrieval_does_not_notice_the_decorrelation(unbroken):
    phases = [record for record, _ in borders(unbroken[1])]
    for (after, _), before in zip(borders(unbroken[1], "decorrelate"), (phases[0], phases[2]), strict=True):
        assert after["pooled"] == before["pooled"]
        # Distances agree to float32's rounding; rankings of this little set have no ties that close.
        assert after["embedding"] == before["embedding"]


def test_one_program_is_compiled_for_each_kind_of_phase(unbroken, compiled):
    assert compiled["call"] == 3


def test_kinds_that_train_the_same_weights_share_a_program(config, workbench):
    same = dataclasses.replace(config, rri=dataclasses.replace(config.rri, relaxation=Phase(steps=4)))
    assert len({*make_optimizers(workbench[0].params, same).values()}) == 2
    by_kind = compile_phases(create_model(config.model, 12, BACKBONES), workbench[0].params, same, create_mesh(same))
    assert by_kind["base"] is by_kind["relaxation"]
    assert by_kind["base"] is not by_kind["restraint"]


def test_what_takes_long_is_said_before_it_begins(config, workbench, dataset):
    """Each program is compiled once, in the first phase that needs it; every phase and every new W is evaluated."""
    said = []
    same = dataclasses.replace(config, rri=dataclasses.replace(config.rri, relaxation=Phase(steps=4)))
    fresh, by_kind, look = workbench
    shared = fresh, {**by_kind, "relaxation": by_kind["base"]}, look
    go(same, shared, dataset, start(same, shared), working=said)
    assert said == [
        ("compiling", "base", 0, 0),
        ("training", "base", 0, 0),
        ("evaluating", "base", 0, 4),
        ("evaluating", "restraint", 1, 4),
        ("compiling", "restraint", 1, 4),
        ("training", "restraint", 1, 4),
        ("evaluating", "restraint", 1, 8),
        ("evaluating", "relaxation", 1, 12),
        ("evaluating", "restraint", 2, 12),
        ("evaluating", "restraint", 2, 16),
        ("evaluating", "relaxation", 2, 20),
    ]


NOT_MEASURED = ("loss", "accuracy", "embedding", "pooled")


def test_a_restraint_that_is_not_evaluated_changes_nothing_else(unbroken, config, workbench, dataset):
    said = []
    quick = dataclasses.replace(config, rri=dataclasses.replace(config.rri, evaluate_restraint=False))
    final, seen = go(quick, workbench, dataset, start(quick, workbench), working=said)
    for (ours, _), (theirs, _) in zip(seen, unbroken[1], strict=True):
        restraint = ours["event"] == "phase" and ours["phase"] == "restraint"
        assert ours == {k: v for k, v in theirs.items() if not (restraint and k in NOT_MEASURED)}
    chex.assert_trees_all_equal(final.params, unbroken[0].params)
    assert [step for doing, *_, step in said if doing == "evaluating"] == [4, 4, 12, 12, 20]


def test_a_step_0_that_was_taken_over_is_embedded_once(unbroken, config, workbench, dataset):
    """For its line and for the first replacement of W, whose features are the same."""
    embedded = []

    def look(state, before=None):
        embedded.append(before is None)
        return workbench[2](state, before=before)

    line = {"event": "phase", "phase": "base", "round": 0, "step": 0}
    _, seen = go(config, (*workbench[:2], look), dataset, start(config, workbench, phase=1), base=line)
    assert seen[0][0] == line
    assert seen[1][0]["event"] == "decorrelate"
    assert embedded == [True, False, True, True, False, True, True]


class Stop(Exception):
    """The moment at which a run dies."""


# Within Step 0, at its end (so before the decorrelation), just after it, before the second one, at the very end.
@pytest.mark.parametrize(
    "saves", [1, pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(6, marks=pytest.mark.slow), 10]
)
def test_a_run_stopped_after_any_save_ends_like_an_unbroken_one(
    saves, unbroken, compiled, config, workbench, dataset, tmp_path
):
    """Two steps and two are four: within a phase, across its border, and across the decorrelation."""
    count = 0
    with checkpoint.open_checkpoints(tmp_path, lambda metrics: metrics["mAP"]) as folder:

        def save(state, seconds, metrics, unreported):
            nonlocal count
            count += 1
            checkpoint.save(folder, state, {"phase": int(state.cursor.phase)}, metrics)
            if count == saves:
                raise Stop

        with pytest.raises(Stop):
            go(config, workbench, dataset, start(config, workbench), save)
    with checkpoint.open_checkpoints(tmp_path, lambda metrics: metrics["mAP"]) as folder:
        found = checkpoint.read_latest_stored(folder)
        state = checkpoint.restore(folder, found.step, start(config, workbench, found.metadata["phase"]))
    assert found.step == 2 * saves
    before = compiled["call"]
    final, seen = go(config, workbench, dataset, state)
    whole_final, whole_seen = unbroken
    chex.assert_trees_all_equal(keyless(final), keyless(whole_final))
    # A restored state is like any other: nothing is compiled for it.
    assert compiled["call"] == before
    # At a border the log already holds the lines of the phase that ended there.
    assert [record for record, _ in seen] == [record for record, _ in whole_seen][len(whole_seen) - len(seen) :]


@pytest.mark.parametrize("calls", [1, 2, 4, 5])
def test_a_run_that_is_asked_to_stop_saves_at_once_and_goes_on_like_an_unbroken_one(
    calls, unbroken, config, workbench, dataset
):
    """After a call within an interval, at its end, at the border when asked in a phase's last call, and behind it."""
    looks, saves = [], []

    def stop():
        looks.append(0)
        return signal.SIGTERM if len(looks) >= calls else 0

    def save(state, seconds, metrics, unreported):
        saves.append((jax.tree.map(jnp.copy, state), json.loads(json.dumps(unreported))))

    with pytest.raises(Stopped, match="stopped after step .*, which is saved") as stopped:
        go(config, workbench, dataset, start(config, workbench), save, stop)
    assert stopped.value.signal == signal.SIGTERM
    state, unreported = saves[-1]
    step = int(state.step)
    assert step == calls
    assert len(unreported.get("loss", ())) == step % config.log_every
    final, seen = go(config, workbench, dataset, state, unreported=unreported)
    chex.assert_trees_all_equal(keyless(final), keyless(unbroken[0]))
    whole = [record for record, _ in unbroken[1]]
    assert [record for record, _ in seen] == whole[len(whole) - len(seen) :]
    # The line of the interval that was cut in two; at the border, the decorrelation.
    assert seen[0][0]["step"] == (step if step == 4 else step // 2 * 2 + 2)


def keyless(state):
    return state.replace(rng=jax.random.key_data(state.rng))


@pytest.mark.parametrize(
    ("before", "after", "changes", "stable"),
    [
        (0.10, 0.30, {}, False),
        (0.30, 0.304, {}, True),
        (0.30, 0.20, {}, True),
        (0.30, 0.31, {"tolerance": 0.02}, True),
        (0.30, 0.30, {"stop": "never"}, False),
        (0.30, 0.30, {"method": "none"}, False),
    ],
)
def test_stopping_rule(before, after, changes, stable):
    rri = dataclasses.replace(RRI(tolerance=0.005), **changes)
    assert is_stable(before, after, rri) is stable


def test_a_stable_run_stops_after_its_relaxation(config, workbench, dataset):
    always = dataclasses.replace(config, rri=dataclasses.replace(config.rri, stop="stable", tolerance=1.0))
    final, seen = go(always, workbench, dataset, start(config, workbench))
    assert [record["phase"] for record, _ in borders(seen)] == ["base", "restraint", "relaxation"]
    assert int(final.cursor.phase) == len(build_schedule(config))


def test_the_stopping_rule_compares_with_the_round_before(config, workbench, dataset, unbroken):
    """Not with the restraint in between, whose S(W) is 1: a rise of any size goes on, a fall of any size stops."""
    after = [record["correlation"] for record, _ in borders(unbroken[1]) if record["phase"] != "restraint"]
    least = min(b - a for a, b in itertools.pairwise(after))
    for tolerance, relaxations in ((least - 1e-6, 2), (after[1] - after[0] + 1e-6, 1)):
        rule = dataclasses.replace(config.rri, stop="stable", tolerance=tolerance)
        _, seen = go(dataclasses.replace(config, rri=rule), workbench, dataset, start(config, workbench))
        assert [record["phase"] for record, _ in borders(seen)].count("relaxation") == relaxations


def test_the_control_has_the_same_budget_and_keeps_w(config, workbench, dataset, unbroken):
    control = dataclasses.replace(config, rri=dataclasses.replace(config.rri, method="none"))
    _, seen = go(control, workbench, dataset, start(config, workbench))
    budget = ("event", "phase", "round", "step", "learning_rate")

    def spent(run):
        return [{key: record.get(key) for key in budget} for record, _ in run]

    assert spent(seen) == spent(unbroken[1])
    for record, _ in borders(seen, "decorrelate"):
        assert record["correlation"]["before"] == record["correlation"]["after"]
        assert record["loss"]["before"] == record["loss"]["after"]


def test_divergence_after_a_rise_of_the_rate_says_so(config, workbench, dataset):
    rri = dataclasses.replace(config.rri, learning_rates=(1e30,))
    said = (
        r"\(restraint, round 1, .* The restraint began with 1e\+30, 2e\+32 times the rate that the phase before ended"
    )
    with pytest.raises(TrainingDiverged, match=said):
        go(dataclasses.replace(config, rri=rri), workbench, dataset, start(config, workbench))


def test_divergence_stops_the_run_with_place_and_rate(config, workbench, dataset):
    wild = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=1e30))
    with pytest.raises(TrainingDiverged, match=r"diverged: at step 2 \(base, round 0, learning rate 1e\+30\)"):
        go(wild, workbench, dataset, start(config, workbench))
