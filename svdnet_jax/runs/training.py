"""`train`: a run from settings to report. Here data, training, evaluation and reporting meet."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from math import gcd
from pathlib import Path
from typing import NamedTuple

import jax
from rich.console import Console

from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.config.serialize import PATH_FIELDS, diff, to_json
from svdnet_jax.config.validate import validate
from svdnet_jax.data.batches import make_loader
from svdnet_jax.data.types import Dataset, check_identities, fingerprint
from svdnet_jax.distributed.mesh import (
    MeshContext,
    create_mesh,
    describe,
    disable_malloc_trim,
    enable_compilation_cache,
    fits_on_device,
)
from svdnet_jax.distributed.multihost import assert_same_on_all_hosts, is_lead_host, lead_host_first
from svdnet_jax.models.pretrained.load import Pretrained
from svdnet_jax.models.svdnet import SVDNet, create_model
from svdnet_jax.reporting.log import check_records, open_log, other_sets, read_log
from svdnet_jax.reporting.progress import print_table, progress
from svdnet_jax.reporting.tensorboard import check_tensorboard, event_file
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.runs.base_run import BaseRun
from svdnet_jax.runs.checkpoint import Checkpoints, open_checkpoints
from svdnet_jax.runs.conclusion import conclusion
from svdnet_jax.runs.dataset import count_valid, load_configured_dataset, summary
from svdnet_jax.runs.directory import RunDir, open_run_dir
from svdnet_jax.runs.environment import environment
from svdnet_jax.runs.estimate import network_operations, refuse_too_large, tell_network, tell_time
from svdnet_jax.runs.evaluate import divisible_batches, with_fingerprints
from svdnet_jax.runs.log_records import end_record, report_facts, start_record
from svdnet_jax.runs.report import write_artifacts
from svdnet_jax.runs.restore import RunPosition, checkpoint_metric
from svdnet_jax.runs.saving import RunOutput, copy_base_run, log_record, save_border, save_checkpoint
from svdnet_jax.runs.start import Start, read_source, restore_or_start
from svdnet_jax.safe_writing import write_json
from svdnet_jax.training.compile import steps_per_call
from svdnet_jax.training.embedding import EvalFn, make_eval_fn
from svdnet_jax.training.evaluation import EvalResult, evaluate_model
from svdnet_jax.training.events import Decorrelated, Event, PhaseEnded, Record, SaveDue, StepLogged, Working
from svdnet_jax.training.init import initial_state
from svdnet_jax.training.loop import Task, compile_phases, make_optimizers, run_rri
from svdnet_jax.training.pixel_features import PixelFn, make_pixel_fn
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import TrainState, init_state
from svdnet_jax.training.stopping import asked_to_stop


def train(
    config: Config,
    console: Console | None = None,
    *,
    dataset: Dataset | None = None,
    model: SVDNet | None = None,
    report: bool = True,
) -> Path:
    """Trains, evaluates and reports; called again with the same settings it resumes where it was stopped.

    Args:
        config: All settings.
        console: Where progress and results are shown; not given: nowhere.
        dataset: Arrays of your own in place of the data set that the settings name.
        model: A network of your own in place of the one that the settings describe: an `SVDNet` with your backbone.
        report: Leave embeddings, figures and the report; without, only what training writes.

    Returns:
        The folder of the run, for `load_run`.

    Raises:
        ConfigError: Settings that cannot work, or that differ from those the folder was made with.
        DataError: Data that cannot be used.
        TrainingDiverged: The loss is no longer finite; checkpoints and log are intact.
    """
    devices, operations, time_needed = preflight(config, model)
    chosen = diff(to_json(Config()), to_json(config))
    assert_same_on_all_hosts(
        "settings", str([line for line in chosen if not line.startswith((*PATH_FIELDS, "machines."))])
    )
    enable_compilation_cache(config.compute.cache)
    disable_malloc_trim()
    if console is None or not is_lead_host():
        console = terminal(quiet=True)
    with open_run_dir(config) if is_lead_host() else nullcontext(RunDir(config.folder)) as run_dir:
        say(console, describe(devices, config.model))
        if time_needed and not run_dir.has_checkpoint:
            say(console, time_needed)
        source = None if run_dir.has_checkpoint else read_source(config, console)
        if dataset is None:
            with lead_host_first():
                dataset = load_configured_dataset(config, console)
        check_identities(dataset)
        assert_same_on_all_hosts("images or identities", fingerprint(dataset))
        say(console, summary(dataset, count_valid(dataset, config.eval)))
        for other in dataset.others:
            say(
                console, f"also tested on {other.name}: {len(other.query)} queries, {len(other.gallery)} gallery images"
            )
        session = _prepare(config, dataset, source, model, devices)
        say(console, tell_network(config, session.fresh.params, operations))
        state, latest = _train(session, run_dir, source, console)
        if report:
            if not latest:
                say(console, "Evaluating the final state")
            _report(session, run_dir, state, latest or session.task.evaluate(state), console)
    return run_dir.path


def preflight(config: Config, model: SVDNet | None = None) -> tuple[MeshContext, float, str]:
    """Refuses settings that cannot work before anything is made: values, names, sizes, freeze patterns, memory.

    Returns:
        The devices of the run, the operations of its network for an image, and what to say of the time that it takes.

    Raises:
        ConfigError: Names the setting.
    """
    validate(config)
    if config.log.tensorboard:
        check_tensorboard()
    network = model or create_model(config.model, num_classes=2)
    state = jax.eval_shape(lambda: init_state(network, input_size(config.data), config.seed))
    make_optimizers(state.params, config)
    devices = create_mesh(config)
    refuse_too_large(config, network, state, jax.local_devices()[0], devices.count)
    forth = network_operations(config, network, state)
    return devices, forth, tell_time(config, forth) if jax.default_backend() == "cpu" else ""


class _Session(NamedTuple):
    """What one call of `train` works with: everything that stays the same while the state changes."""

    task: Task
    dataset: Dataset
    fresh: TrainState
    """The state to begin from: before the first step, or of a base run after its last."""
    infer: EvalFn
    pixels: PixelFn
    devices: MeshContext


def _prepare(
    config: Config, dataset: Dataset, source: Pretrained | BaseRun | None, model: SVDNet | None, devices: MeshContext
) -> _Session:
    """Makes the network, its first state and its programs; nothing is compiled before it is used."""
    base = source if isinstance(source, BaseRun) else None
    weights = source if isinstance(source, Pretrained) else None
    network, fresh = initial_state(config, dataset.train, weights, model)
    fresh = devices.replicate(base.state if base else fresh)
    infer = make_eval_fn(network, input_size(config.data), devices)
    evaluate = partial(evaluate_model, infer=infer, dataset=dataset, settings=divisible_batches(config.eval, devices))
    compiled = compile_phases(network, fresh.params, config, devices)
    task = Task(config, build_schedule(config), compiled, evaluate, steps_per_call(config))
    return _Session(task, dataset, fresh, infer, make_pixel_fn(network, input_size(config.data)), devices)


def _train(
    session: _Session, run_dir: RunDir, source: Pretrained | BaseRun | None, console: Console
) -> tuple[TrainState, EvalResult | None]:
    """Trains from the latest checkpoint, from a base run, or from the start.

    Returns:
        The final state, and its evaluation if a phase ended.
    """
    task = session.task
    with (
        open_checkpoints(run_dir.checkpoints, checkpoint_metric) as saved,
        progress(task.schedule, console) as show,
        asked_to_stop(jax.process_count() > 1) as stop_signal,
        ExitStack() as stack,
    ):
        base = source if isinstance(source, BaseRun) else None
        start = restore_or_start(task, session.fresh, base, session.dataset, run_dir, saved, console)
        output = _open_output(session, run_dir, saved, show, start.position)
        if output.log and task.config.log.tensorboard:
            board = event_file(run_dir.tensorboard, read_log(output.log.path))
            output = output._replace(write_event=stack.enter_context(board))
        taken_over = _log_start(output, session, start, source)
        state, latest = start.state, None
        # Closed also where writing fails, so that the loader's thread is gone before the interpreter is.
        with closing(_events(session, start, taken_over, stop_signal)) as events:
            for event in events:
                match event:
                    case Working():
                        output.show(event.record)
                    case StepLogged(record):
                        log_record(output, record)
                        latest = None
                    case PhaseEnded():
                        save_border(output, event)
                        latest = event.evaluation
                    case Decorrelated():
                        save_border(output, event)
                    case SaveDue():
                        save_checkpoint(output, event)
                        state = event.state
        if output.log:
            log_record(output, end_record(task.config.rri, read_log(output.log.path), int(state.step)))
    return state, latest


def _events(
    session: _Session, start: Start, taken_over: Record | None, stop_signal: Callable[[], int]
) -> Generator[Event]:
    """Runs the loop from where the run is, with the batches from there on."""
    task, position, images = session.task, start.position, session.dataset.train
    config = task.config
    # A run that was stopped may be at a step where no call of this machine ends.
    steps = gcd(task.steps_per_call, int(start.state.cursor.step))
    on_device = fits_on_device(config.compute, images.images.nbytes)
    loader = make_loader(images, config.data, config.seed, position.step, steps, session.devices, resident=on_device)
    with closing(loader.batches):
        yield from run_rri(
            start.state,
            task._replace(steps_per_call=steps),
            loader,
            stop_signal=stop_signal,
            phase_seconds=position.phase_seconds,
            unreported=position.unreported,
            taken_over=taken_over,
        )


def _open_output(
    session: _Session, run_dir: RunDir, saved: Checkpoints, show: Callable[[Record], None], position: RunPosition
) -> RunOutput:
    """Opens the log where the run is, and writes what the folder says of the run; only the lead host writes."""
    config, log = session.task.config, None
    if is_lead_host():
        log = open_log(run_dir.log, position.log_offset, position.log_hash)
        if not run_dir.config.exists():
            write_json(run_dir.config, to_json(config))
        if position.phase < len(session.task.schedule):
            write_json(run_dir.environment, environment())
    return RunOutput(config, run_dir, saved, log, show, position)


def _log_start(
    output: RunOutput, session: _Session, start: Start, source: Pretrained | BaseRun | None
) -> Record | None:
    """Writes the `start` line of a new run, with the steps of a base run, or that a run is resumed.

    Returns:
        The line with which the base run ended, where a new run begins from one.
    """
    position = start.position
    if start.resumed:
        if position.phase < len(session.task.schedule):
            log_record(output, {"event": "resume", "step": position.step})
        return None
    weights = source if isinstance(source, Pretrained) else None
    record = start_record(output.config, session.dataset, position.data, start.state, weights)
    if isinstance(source, BaseRun):
        copy_base_run(output, source, record)
        return source.phase
    log_record(output, record)
    return None


def _report(session: _Session, run_dir: RunDir, state: TrainState, evaluation: EvalResult, console: Console) -> None:
    """Writes and prints the results; the lead host does."""
    if not is_lead_host():
        return
    task, dataset = session.task, session.dataset
    query, gallery = with_fingerprints(evaluation.features, state, task.config)
    records = read_log(run_dir.log)
    check_records(run_dir.log, records)
    facts = report_facts(task.config, dataset, records[0])
    reports = {"embedding": evaluation.embedding, "pooled": evaluation.pooled}
    # This host works alone here, so by its own copy of the weights.
    pixels = partial(session.pixels, jax.device_get(state.variables))
    report = write_artifacts(run_dir, task.config, dataset, records, query, gallery, reports, facts, pixels)
    print_table(records, console)
    for name, lines in other_sets(records).items():
        print_table(lines, console, title=f"on {name}")
    if shown := conclusion(run_dir, task.config.rri, records):
        say(console, shown)
    say(console, f"report: {report}")
