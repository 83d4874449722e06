"""Validates settings before any work starts."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import chain, starmap
from typing import Any

from svdnet_jax.config.schema import Config, Phase
from svdnet_jax.errors import ConfigError

NO_EIGENLAYER = "none where `model.embedding_dim` 0 leaves out the Eigenlayer"
MOST = 10**9
"""Size of a number that is no count."""
MOST_PIXELS, MOST_IMAGES, MOST_PEOPLE, MOST_ROUNDS = 4096, 2**16, 10**5, 10**4
"""A side of an image, a batch, a count of the built-in pedestrians, and rounds."""
MOST_STEPS = 2**31 - 1
"""Of all phases together: a state counts its steps in 32 bits with a sign."""
MOST_DRAWN = 10**6
"""Images of the built-in pedestrians, all of which are in memory."""
Rule = tuple[str, Any, bool, str]
"""Name of the setting, value, whether it is valid, and what it must be."""


def validate(config: Config) -> None:
    """Refuses settings that cannot work: first values that no other setting could mend, then what does not go together.

    Raises:
        ConfigError: Names the setting, the value found and what it must be.
    """
    phases = {"base": config.base, "rri.restraint": config.rri.restraint, "rri.relaxation": config.rri.relaxation}
    if config.rri.final:
        phases["rri.final"] = config.rri.final
    # One after the other: what is worked out of several values would divide by a zero that is refused before.
    alone = chain(_finite(config), _bounds(config), _within(config), *starmap(_phase_itself, phases.items()))
    together = chain(_data(config), _model(config), _training(config), _penalty(config))
    for option, value, valid, rule in chain(alone, together, *starmap(_phase, phases.items())):
        if not valid:
            raise ConfigError(f"`{option}` {value}: must be {rule}")


def _finite(config: Config) -> Iterator[Rule]:
    for option, value in _floats("", dataclasses.asdict(config)):
        yield option, value, math.isfinite(value), "a finite number"
        yield option, value, abs(value) <= MOST, f"{MOST} in size or less"


def _bounds(config: Config) -> Iterator[Rule]:
    """Yields the rules of single values: the least and the most that each may be.

    The most is far beyond what anybody has trained with; it keeps a slip of the finger from taking the machine.
    """
    data, rri, people, loss = config.data, config.rri, config.data.synthetic, config.loss
    within = {
        "log_every": (config.log_every, 1, 10**9),
        "checkpoint_every": (config.checkpoint_every, 1, 10**9),
        "data.height": (data.height, 8, MOST_PIXELS),
        "data.width": (data.width, 8, MOST_PIXELS),
        "data.batch_size": (data.batch_size, 2, MOST_IMAGES),
        "data.validation": (data.validation, 0, 10**6),
        "data.num_instances": (data.num_instances, 0, MOST_IMAGES),
        "data.crop_padding": (data.crop_padding, 0, MOST_PIXELS),
        "model.embedding_dim": (config.model.embedding_dim, 0, 10**6),
        "rri.unmatched_rounds": (rri.unmatched_rounds, 0, MOST_ROUNDS),
        "rri.rounds": (rri.rounds, 0, MOST_ROUNDS),
        "eval.batch_size": (config.eval.batch_size, 1, MOST_IMAGES),
        "eval.train_images": (config.eval.train_images, 1, 10**9),
        "data.synthetic.train_identities": (people.train_identities, 2, MOST_PEOPLE),
        "data.synthetic.train_images": (people.train_images, 1, MOST_PEOPLE),
        "data.synthetic.test_identities": (people.test_identities, 2, MOST_PEOPLE),
        "data.synthetic.gallery_images": (people.gallery_images, 1, MOST_PEOPLE),
        "data.synthetic.distractors": (people.distractors, 0, MOST_PEOPLE),
        "data.synthetic.junk": (people.junk, 0, MOST_PEOPLE),
        "compute.steps_per_call": (config.compute.steps_per_call, 0, 10_000),
        "machines.processes": (config.machines.processes, 1, 10**6),
        "machines.process": (config.machines.process, 0, 10**6),
        "machines.timeout": (config.machines.timeout, 5, 10**6),
        "optimizer.grad_accum_steps": (config.optimizer.grad_accum_steps, 1, MOST_IMAGES),
        "seed": (config.seed, 0, 2**32 - 1),
        "data.synthetic.seed": (people.seed, 0, 2**32 - 1),
        "optimizer.weight_decay": (config.optimizer.weight_decay, 0, MOST),
        "loss.margin": (loss.margin, 0, MOST),
        "loss.penalty.weight": (loss.penalty.weight, 0, MOST),
        "loss.penalty.features": (loss.penalty.features, 0, MOST),
        "rri.tolerance": (rri.tolerance, 0, MOST),
    }
    for option, (number, least, most) in within.items():
        yield option, number, number >= least, f"{least} or more"
        yield option, number, number <= most, f"{most} or less"


def _within(config: Config) -> Iterator[Rule]:
    """Yields the other bounds of single values."""
    data, model, loss, optimizer = config.data, config.model, config.loss, config.optimizer
    for option, share in (("data.erase_prob", data.erase_prob), ("data.synthetic.alike", data.synthetic.alike)):
        yield option, share, 0 <= share <= 1, "in [0, 1]"
    below_one = {
        "model.dropout": model.dropout,
        "loss.label_smoothing": loss.label_smoothing,
        "optimizer.momentum": optimizer.momentum,
    }
    for option, share in below_one.items():
        yield option, share, 0 <= share < 1, "in [0, 1)"
    yield "model.std", model.std, all(value >= 1 for value in model.std or ()), "1 or more, of RGB in [0, 255]"
    yield "model.eigenlayer_std", model.eigenlayer_std, model.eigenlayer_std > 0, "positive"
    yield "optimizer.learning_rate", optimizer.learning_rate, optimizer.learning_rate > 0, "positive"
    rates = config.rri.learning_rates
    yield "rri.learning_rates", rates, bool(rates) and min(rates) > 0, "one or more positive numbers"
    address = config.machines.coordinator or "auto"
    yield "machines.coordinator", address, address == "auto" or ":" in address, "host:port, or auto"
    folder = str(config.folder.absolute())
    rule = "a name in UTF-8, as checkpoints cannot be kept under another; rename the folder"
    yield "out", config.folder, _is_text(folder), rule


def _data(config: Config) -> Iterator[Rule]:
    data = config.data
    rule = f"a divisor of `data.batch_size`, which is {data.batch_size}"
    yield "data.num_instances", data.num_instances, data.batch_size % (data.num_instances or 1) == 0, rule
    side = min(data.height, data.width)
    rule = f"at most {side}, the smaller of `data.height` and `data.width`"
    yield "data.crop_padding", data.crop_padding, data.crop_padding <= side, rule
    people = data.synthetic
    images = people.train_identities * people.train_images + people.test_identities * people.gallery_images
    rule = f"such that at most {MOST_DRAWN} images are drawn; there would be {images} of training and gallery"
    yield "data.synthetic.train_identities", people.train_identities, images <= MOST_DRAWN, rule


def _model(config: Config) -> Iterator[Rule]:
    model, rounds = config.model, config.rri.rounds
    yield "model.mean", model.mean, not (model.mean and model.mean_image), "left out where `model.mean_image` is given"
    frozen = model.batch_norm == "frozen" and model.neck == "batchnorm"
    yield "model.neck", model.neck, not frozen, "none with `model.batch_norm` frozen: it has no statistics but its own"
    yield (
        "rri.rounds",
        rounds,
        model.embedding_dim > 0 or rounds == 0,
        "0 where `model.embedding_dim` 0 leaves out the Eigenlayer",
    )


def _training(config: Config) -> Iterator[Rule]:
    every, data, loss, optimizer, rri = config.log_every, config.data, config.loss, config.optimizer, config.rri
    # A checkpoint between two lines of the log would make a resumed log differ from an unbroken one.
    rule = f"a multiple of `log_every` {every}"
    yield "checkpoint_every", config.checkpoint_every, config.checkpoint_every % every == 0, rule
    mining = loss.triplet == "none" or 2 <= data.num_instances < data.batch_size
    rule = "none unless `data.num_instances` is 2 or more and there are two identities or more in a batch"
    yield "loss.triplet", loss.triplet, mining, rule
    parts, whole = optimizer.grad_accum_steps, max(data.num_instances, 1)
    rule = f"such that parts of whole identities divide `data.batch_size` {data.batch_size}"
    yield "optimizer.grad_accum_steps", parts, data.batch_size % (parts * whole) == 0, rule
    machines, alone = config.machines, config.machines.coordinator in (None, "auto")
    rule = f"below `machines.processes` {machines.processes}"
    yield "machines.process", machines.process, machines.process < machines.processes, rule
    rule = "left out unless `machines.coordinator` is given as host:port"
    yield "machines.processes", machines.processes, machines.processes == 1 or not alone, rule
    rule = "left out with `rri.rounds` 0: there would be nothing to do"
    yield "base_from", config.base_from, config.base_from is None or rri.rounds > 0, rule
    turns = rri.method in ("us", "rotation")
    rule = "left out unless `rri.method` is us or rotation: the others do not turn the features"
    yield "rri.rotate_classifier", rri.rotate_classifier, turns or not rri.rotate_classifier, rule
    last = rri.final.steps if rri.final else 0
    steps = config.base.steps + rri.rounds * (rri.restraint.steps + rri.relaxation.steps) + last
    rule = f"such that all phases together take {MOST_STEPS} steps at most; they would take {steps}"
    yield "rri.rounds", rri.rounds, steps <= MOST_STEPS, rule
    if rri.final:
        rule = "given with `rri.stop` never, as it belongs to the last round"
        yield "rri.final.steps", rri.final.steps, rri.stop == "never", rule


def _penalty(config: Config) -> Iterator[Rule]:
    """Yields the rules of penalties: nothing that is set may be without effect."""
    penalty, rri, dim = config.loss.penalty, config.rri, config.model.embedding_dim
    on = penalty.kind != "none"
    yield (
        "loss.penalty.kind",
        penalty.kind,
        not on or dim > 0,
        NO_EIGENLAYER,
    )
    rule = "positive with, and 0 without a `loss.penalty.kind`"
    yield "loss.penalty.weight", penalty.weight, penalty.weight > 0 if on else penalty.weight == 0, rule
    yield "loss.penalty.scale", penalty.scale, on or penalty.scale == "none", "none without a `loss.penalty.kind`"
    late = penalty.begin == "rounds"
    some = rri.rounds > 0 and (on or penalty.features > 0)
    yield "loss.penalty.begin", penalty.begin, not late or some, "start unless there are rounds and a penalty"
    acting = [*([] if late else [config.base]), *([rri.relaxation] if rri.rounds else [])]
    frozen = all(any(fnmatchcase("eigenlayer/kernel", p) for p in phase.freeze) for phase in acting)
    rule = "none where every phase that it acts in freezes the Eigenlayer"
    yield "loss.penalty.kind", penalty.kind, not on or not frozen, rule


def _phase_itself(option: str, phase: Phase) -> Iterator[Rule]:
    factors = tuple(factor for _, factor in phase.multipliers)
    yield f"{option}.steps", phase.steps, phase.steps >= 1, "1 or more"
    yield f"{option}.steps", phase.steps, phase.steps <= MOST_STEPS, f"{MOST_STEPS} or less"
    yield f"{option}.warmup", phase.warmup, phase.warmup >= 0, "0 or more"
    yield f"{option}.milestones", phase.milestones, all(drop > 0 for drop in phase.milestones), "positive"
    yield f"{option}.multipliers", factors, all(f > 0 for f in factors), "positive; freeze what must not move"


def _phase(option: str, phase: Phase) -> Iterator[Rule]:
    steps, drops = phase.steps, phase.milestones
    yield f"{option}.warmup", phase.warmup, phase.warmup <= steps, f"at most `{option}.steps` {steps}"
    ordered = list(drops) == sorted(set(drops)) and all(drop < steps for drop in drops)
    yield f"{option}.milestones", drops, ordered, f"increasing, and below `{option}.steps` {steps}"


def _floats(option: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields all floats of nested settings with the options they belong to."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _floats(f"{option}.{key}".removeprefix("."), part)
    elif isinstance(value, tuple):
        for part in value:
            yield from _floats(option, part)
    elif isinstance(value, float):
        yield option, value


def _is_text(name: str) -> bool:
    """Returns whether a file name is text; bytes that are not in UTF-8 show as halves of UTF-16 pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
