"""One training run from settings to report: the place where data, training, evaluation and reporting meet."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from math import gcd
from pathlib import Path

import jax
from rich.console import Console

from svdnet_jax.config.schema import Eval, Run
from svdnet_jax.config.serialize import PLACES, differences, to_json
from svdnet_jax.config.validate import check
from svdnet_jax.data.loader import feed
from svdnet_jax.data.types import Dataset, check_identities, fingerprint, labels
from svdnet_jax.distributed.mesh import Devices, choose, describe, keep_compiled, keep_memory, resident
from svdnet_jax.distributed.multihost import agree, first_before_others, is_first
from svdnet_jax.errors import DataError
from svdnet_jax.models.pretrained.load import Pretrained, read_pretrained
from svdnet_jax.models.svdnet import build
from svdnet_jax.reporting.log import open_log, read_log
from svdnet_jax.reporting.progress import print_table, progress
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs.base_run import StepZero, after_step_zero, read_step_zero, retell
from svdnet_jax.runs.checkpoint import Checkpoints, checkpoints
from svdnet_jax.runs.dataset import count_valid, load_dataset, summary
from svdnet_jax.runs.directory import environment, has_checkpoint, open_folder, refuse_other_settings, write_json
from svdnet_jax.runs.load import NO_HASH, Found, Place, begun, by_map, finished_note, is_run, load_trained, read_latest
from svdnet_jax.runs.log_records import end_record, report_facts, start_record
from svdnet_jax.runs.report import write_artifacts
from svdnet_jax.runs.writing import emit, keep
from svdnet_jax.training.compile import steps_per_call
from svdnet_jax.training.evaluation import Measurement, embeddings, measure
from svdnet_jax.training.fingerprint import fingerprints
from svdnet_jax.training.init import as_pretrained, check_start, initial_state
from svdnet_jax.training.log_interval import Hooks, Unreported
from svdnet_jax.training.loop import optimizers, programs, run_rri
from svdnet_jax.training.schedule import plan
from svdnet_jax.training.state import TrainState, create
from svdnet_jax.training.step import Infer, inputs_of, make_infer
from svdnet_jax.training.stopping import asked_to_stop

RANDOM = (
    "No --model.weights given: the backbone starts from random weights. Published results start from ImageNet's; "
    "the README says which files can be read."
)


def run(config: Run, console: Console, report: bool = True) -> Path:
    """Trains, evaluates and reports; called again with the same settings it goes on where it was stopped.

    Args:
        config: All settings.
        console: Where progress and results are shown.
        report: Leave embeddings, figures and the report; without, only what training writes.

    Returns:
        The run folder.

    Raises:
        ConfigError: Settings that cannot work, or that differ from those the folder was made with.
        DataError: Data that cannot be used.
        TrainingDiverged: The loss is no longer finite; checkpoints and log are intact.
    """
    devices = preflight(config)
    chosen = differences(to_json(Run()), to_json(config))
    agree("settings", str([line for line in chosen if not line.startswith((*PLACES, "machines."))]))
    keep_compiled(config.compute.cache)
    keep_memory()
    if not is_first():
        console = terminal(quiet=True)
    with open_folder(config) if is_first() else nullcontext(config.folder) as folder:
        say(console, describe(devices, config))
        source = None if has_checkpoint(folder) else _source(config, console)
        with first_before_others():
            dataset = load_dataset(config, console)
        check_identities(dataset)
        agree("images or identities", fingerprint(dataset))
        say(console, summary(dataset, count_valid(dataset, config)))
        trained = train(config, folder, dataset, source, devices, console)
        if report:
            _report(config, folder, dataset, *trained, devices, console)
    return folder


def _report(
    config: Run, folder: Path, dataset: Dataset, state: TrainState, infer: Infer, devices: Devices, console: Console
) -> None:
    query, gallery = _test_embeddings(config, dataset, infer, devices, state)
    if not is_first():
        return
    records = read_log(folder / "metrics.jsonl")
    report = write_artifacts(
        folder, config, dataset, records, query, gallery, report_facts(config, dataset, records[0])
    )
    print_table(records, console)
    say(console, f"report: {report}")


def _test_embeddings(
    config: Run, dataset: Dataset, infer: Infer, devices: Devices, state: TrainState
) -> tuple[dict[str, Embeddings], dict[str, Embeddings]]:
    """Both embeddings of queries and gallery, to be kept."""
    apply, models = partial(infer, state.variables), fingerprints(state.variables, config)
    look = partial(embeddings, apply, settings=_even(config.eval, devices), models=models)
    return look(dataset.query), look(dataset.gallery)


def preflight(config: Run) -> Devices:
    """Refuses settings that cannot work before anything is made: values, names, sizes, freeze patterns, devices.

    Returns:
        The devices of the run.

    Raises:
        ConfigError: Names the option.
    """
    check(config)
    model = build(config.model, classes=2)
    state = jax.eval_shape(lambda: create(model, inputs_of(config).size, config.seed))
    optimizers(state.params, config)
    return choose(config)


def _source(config: Run, console: Console) -> Pretrained | StepZero | None:
    """What a new run starts from, checked; one that goes on has its own."""
    if zero := read_step_zero(config):
        if not zero.verified:
            say(console, f"note: {zero.folder}: {NO_HASH}")
        return zero
    weights = read_weights(config)
    check_start(config, weights)
    if weights is None and config.model.backbone != "mini":
        say(console, RANDOM)
    return weights


def read_weights(config: Run) -> Pretrained | None:
    """The weights that the backbone starts from, of a file or of another run; None for random ones.

    Raises:
        ConfigError: They cannot be read.
    """
    spec = config.model.weights
    if spec is None:
        return None
    if is_run(folder := Path(spec)):
        trained = load_trained(folder)
        return as_pretrained(trained.state, f"{spec}, {finished_note(trained)}", (trained.config.model.layout,))
    return read_pretrained(spec)


def train(
    config: Run,
    folder: Path,
    dataset: Dataset,
    source: Pretrained | StepZero | None,
    devices: Devices,
    console: Console,
) -> tuple[TrainState, Infer]:
    """Trains from the start, from the Step 0 of another run, or from the latest checkpoint of the folder.

    Returns:
        The final state, and the jitted network at rest.
    """
    zero = source if isinstance(source, StepZero) else None
    weights = None if isinstance(source, StepZero) else source
    model, fresh = initial_state(config, dataset.train, weights)
    fresh = devices.put(fresh)
    phases, infer = plan(config), make_infer(model, inputs_of(config).size, devices)
    by_kind = programs(model, fresh.params, config, devices)
    with (
        checkpoints(folder / "checkpoints", by_map) as saved,
        progress(phases[-1].end, console) as show,
        asked_to_stop(jax.process_count() > 1) as stop,
    ):
        begins = {kind: program.optimizer for kind, program in by_kind.items()}
        data, identities = fingerprint(dataset), labels(dataset.train.pids)[1]
        new = after_step_zero(zero, data, identities) if zero else Place(data, identities)
        like = partial(begun, phases=phases, by_kind=begins, fresh=devices.put(zero.state) if zero else fresh)
        found = _resumable(config, folder, dataset, saved, data, like)
        state, place = (found.state, found.place) if found else (like(new), new)
        if found and not found.verified:
            say(console, f"note: {folder}: {NO_HASH}")
        log = open_log(folder / "metrics.jsonl", place.log_offset, place.log_hash) if is_first() else None
        look = partial(measure, infer=infer, dataset=dataset, settings=_even(config.eval, devices))
        embed_test = partial(_test_embeddings, config, dataset, infer, devices) if config.rri.rounds else None
        hooks = Hooks(
            look,
            partial(emit, folder, log, show, embed_test),
            partial(_save, partial(keep, config, saved, log, place)),
            stop,
        )
        if is_first() and not (folder / "config.json").exists():
            write_json(folder / "config.json", to_json(config))
        if place.phase < len(phases) and is_first():
            write_json(folder / "environment.json", environment())
        if not found:
            start = start_record(config, dataset, data, state, weights)
            if zero:
                retell(zero, start, log, hooks.emit, state)
                keep(config, saved, log, place, state, 0.0, zero.border["embedding"], {})
            else:
                hooks.emit(start, state)
        elif place.phase < len(phases):
            hooks.emit({"event": "resume", "step": place.stream}, state)
        # A run that was stopped may be at a step where no call of this machine ends.
        steps = gcd(steps_per_call(config), int(state.cursor.step))
        images = resident(config, dataset.train.images.nbytes)
        batches = feed(dataset.train, config.data, config.seed, place.stream, steps, devices, resident=images)
        # Closed, so that its thread is gone before the interpreter is.
        with closing(batches.samples):
            state = run_rri(
                state,
                phases,
                by_kind,
                config=config,
                feed=batches,
                steps_per_call=steps,
                hooks=hooks,
                seconds=place.phase_seconds,
                unreported=place.unreported,
            )
        if log:
            hooks.emit(end_record(config, read_log(log.path), int(state.step)), state)
    return state, infer


def _resumable(
    config: Run, folder: Path, dataset: Dataset, saved: Checkpoints, data: str, like: Callable[[Place], TrainState]
) -> Found | None:
    """The latest checkpoint of the folder, if there is one and the run can go on from it.

    Args:
        config: Settings of the run.
        folder: Its folder.
        dataset: What it trains on.
        saved: Its checkpoints.
        data: Fingerprint of the data set.
        like: From a place to a state of the structure that it has there.

    Raises:
        ConfigError: The checkpoints are damaged, or of a run with other settings.
        DataError: They are of a run on other data.
    """

    def structure(found: Run, place: Place) -> TrainState:
        refuse_other_settings(folder, to_json(found), to_json(config))
        if place.data != data:
            raise DataError(f"--out {folder}: the images or identities of {dataset.name} are not those it began with")
        return like(place)

    return read_latest(saved, structure)


def _save(
    write: Callable[..., None], state: TrainState, seconds: float, measured: Measurement | None, unreported: Unreported
) -> None:
    write(state, seconds, measured.embedding.metrics() if measured else None, unreported)


def _even(settings: Eval, devices: Devices) -> Eval:
    """The settings with as many images at a time as devices can share; those beyond the last image are not counted."""
    return replace(settings, batch_size=-(-settings.batch_size // devices.count) * devices.count)
