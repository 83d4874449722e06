"""What settings must obey, checked before any work starts."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from svdnet_jax.config import ConfigError, Phase, Run

Rule = tuple[str, Any, bool, str]
"""Option, value, whether it is valid, and what it must be."""


def check(config: Run) -> None:
    """Refuses settings that cannot work.

    Raises:
        ConfigError: Names the option, the value found and what it must be.
    """
    phases = {"base": config.base, "rri.restraint": config.rri.restraint, "rri.relaxation": config.rri.relaxation}
    if config.rri.final:
        phases["rri.final"] = config.rri.final
    rules = [*_least(config), *_finite(config), *_data(config), *_model(config), *_training(config), *_penalty(config)]
    for option, phase in phases.items():
        rules += _phase(option, phase)
    for option, value, valid, rule in rules:
        if not valid:
            raise ConfigError(f"--{option} {value}: must be {rule}")


def _least(config: Run) -> Iterator[Rule]:
    data, rri, people = config.data, config.rri, config.data.synthetic
    at_least = {
        "log-every": (config.log_every, 1),
        "checkpoint-every": (config.checkpoint_every, 1),
        "data.height": (data.height, 8),
        "data.width": (data.width, 8),
        "data.batch-size": (data.batch_size, 2),
        "data.validation": (data.validation, 0),
        "data.per-identity": (data.per_identity, 0),
        "data.crop-padding": (data.crop_padding, 0),
        "model.dim": (config.model.dim, 0),
        "rri.unmatched-rounds": (rri.unmatched_rounds, 0),
        "rri.rounds": (rri.rounds, 0),
        "eval.batch-size": (config.eval.batch_size, 1),
        "eval.train-images": (config.eval.train_images, 1),
        "data.synthetic.train-identities": (people.train_identities, 2),
        "data.synthetic.train-images": (people.train_images, 1),
        "data.synthetic.test-identities": (people.test_identities, 2),
        "data.synthetic.gallery-images": (people.gallery_images, 1),
        "data.synthetic.distractors": (people.distractors, 0),
        "data.synthetic.junk": (people.junk, 0),
        "compute.steps-per-call": (config.compute.steps_per_call, 0),
        "machines.processes": (config.machines.processes, 1),
        "machines.process": (config.machines.process, 0),
        "machines.timeout": (config.machines.timeout, 5),
        "optimizer.accumulate": (config.optimizer.accumulate, 1),
        "seed": (config.seed, 0),
        "data.synthetic.seed": (people.seed, 0),
    }
    for option, (number, least) in at_least.items():
        yield option, number, number >= least, f"{least} or more"


def _finite(config: Run) -> Iterator[Rule]:
    for option, value in _floats(dataclasses.asdict(config)):
        yield option, value, math.isfinite(value), "a finite number"


def _data(config: Run) -> Iterator[Rule]:
    data, people = config.data, config.data.synthetic
    rule = f"a divisor of --data.batch-size, which is {data.batch_size}"
    yield "data.per-identity", data.per_identity, data.batch_size % (data.per_identity or 1) == 0, rule
    yield "data.erase", data.erase, 0 <= data.erase <= 1, "in [0, 1]"
    yield "data.synthetic.alike", people.alike, 0 <= people.alike <= 1, "in [0, 1]"
    yield "data.synthetic.seed", people.seed, people.seed < 2**32, "below 2**32"


def _model(config: Run) -> Iterator[Rule]:
    model, rounds = config.model, config.rri.rounds
    yield "model.dropout", model.dropout, 0 <= model.dropout < 1, "in [0, 1)"
    yield "model.std", model.std, all(value >= 1 for value in model.std or ()), "1 or more, of RGB in [0, 255]"
    yield "model.eigenlayer-std", model.eigenlayer_std, model.eigenlayer_std > 0, "positive"
    yield "model.mean", model.mean, not (model.mean and model.mean_image), "left out where --model.mean-image is given"
    frozen = model.batch_norm == "frozen" and model.neck == "batchnorm"
    yield "model.neck", model.neck, not frozen, "none with --model.batch-norm frozen: it has no statistics but its own"
    yield "rri.rounds", rounds, model.dim > 0 or rounds == 0, "0 where --model.dim 0 leaves out the Eigenlayer"


def _training(config: Run) -> Iterator[Rule]:
    every, data, loss, optimizer, rri = config.log_every, config.data, config.loss, config.optimizer, config.rri
    # A checkpoint between two lines of the log would make a resumed log differ from an unbroken one.
    rule = f"a multiple of --log-every {every}"
    yield "checkpoint-every", config.checkpoint_every, config.checkpoint_every % every == 0, rule
    yield "seed", config.seed, config.seed < 2**32, "below 2**32"
    yield "loss.smoothing", loss.smoothing, 0 <= loss.smoothing < 1, "in [0, 1)"
    yield "loss.margin", loss.margin, loss.margin >= 0, "0 or more"
    mining = loss.triplet == "none" or 2 <= data.per_identity < data.batch_size
    rule = "none unless --data.per-identity is 2 or more and there are two identities or more in a batch"
    yield "loss.triplet", loss.triplet, mining, rule
    yield "optimizer.learning-rate", optimizer.learning_rate, optimizer.learning_rate > 0, "positive"
    yield "optimizer.momentum", optimizer.momentum, 0 <= optimizer.momentum < 1, "in [0, 1)"
    yield "optimizer.weight-decay", optimizer.weight_decay, optimizer.weight_decay >= 0, "0 or more"
    parts, whole = optimizer.accumulate, max(data.per_identity, 1)
    rule = f"such that parts of whole identities divide --data.batch-size {data.batch_size}"
    yield "optimizer.accumulate", parts, parts < 1 or data.batch_size % (parts * whole) == 0, rule
    machines, alone = config.machines, config.machines.coordinator in (None, "auto")
    rule = f"below --machines.processes {machines.processes}"
    yield "machines.process", machines.process, machines.process < machines.processes, rule
    rule = "left out unless --machines.coordinator is given as host:port"
    yield "machines.processes", machines.processes, machines.processes == 1 or not alone, rule
    address = machines.coordinator or "auto"
    yield "machines.coordinator", address, address == "auto" or ":" in address, "host:port, or auto"
    rates = rri.learning_rates
    yield "rri.learning-rates", rates, bool(rates) and min(rates) > 0, "one or more positive numbers"
    yield "rri.tolerance", rri.tolerance, rri.tolerance >= 0, "0 or more"
    rule = "left out with --rri.rounds 0: there would be nothing to do"
    yield "base-from", config.base_from, config.base_from is None or rri.rounds > 0, rule
    rule = "left out unless --rri.method is us: the others do not turn the features"
    yield "rri.rotate-classifier", rri.rotate_classifier, rri.method == "us" or not rri.rotate_classifier, rule
    if rri.final:
        rule = "given with --rri.stop never, as it belongs to the last round"
        yield "rri.final.steps", rri.final.steps, rri.stop == "never", rule


def _penalty(config: Run) -> Iterator[Rule]:
    """Of penalties: nothing that is set may be without effect."""
    penalty, rri, dim = config.loss.penalty, config.rri, config.model.dim
    on = penalty.kind != "none"
    yield "loss.penalty.kind", penalty.kind, not on or dim > 0, "none where --model.dim 0 leaves out the Eigenlayer"
    rule = "positive with, and 0 without a --loss.penalty.kind"
    yield "loss.penalty.weight", penalty.weight, penalty.weight > 0 if on else penalty.weight == 0, rule
    yield "loss.penalty.scale", penalty.scale, on or penalty.scale == "none", "none without a --loss.penalty.kind"
    yield "loss.penalty.features", penalty.features, penalty.features >= 0, "0 or more"
    late = penalty.begin == "rounds"
    some = rri.rounds > 0 and (on or penalty.features > 0)
    yield "loss.penalty.begin", penalty.begin, not late or some, "start unless there are rounds and a penalty"
    acting = [*([] if late else [config.base]), *([rri.relaxation] if rri.rounds else [])]
    frozen = all(any(fnmatchcase("eigenlayer/kernel", p) for p in phase.freeze) for phase in acting)
    rule = "none where every phase that it acts in freezes the Eigenlayer"
    yield "loss.penalty.kind", penalty.kind, not on or not frozen, rule


def _phase(option: str, phase: Phase) -> Iterator[Rule]:
    steps, drops = phase.steps, phase.milestones
    factors = tuple(factor for _, factor in phase.multipliers)
    yield f"{option}.multipliers", factors, all(f > 0 for f in factors), "positive; freeze what must not move"
    yield f"{option}.warmup", phase.warmup, 0 <= phase.warmup <= steps, f"0 to the {steps} steps of the phase"
    yield f"{option}.steps", steps, steps >= 1, "1 or more"
    ordered = list(drops) == sorted(set(drops)) and all(0 < drop < steps for drop in drops)
    yield f"{option}.milestones", drops, ordered, f"increasing, between 0 and the {steps} steps of the phase"


def _floats(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All floats of nested settings with the options they belong to."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _floats(value, f"{prefix}{key}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                yield f"{prefix}{key}".replace("_", "-"), number
