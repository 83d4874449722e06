"""What settings must obey, checked before any work starts."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from svdnet_jax.config import ConfigError, Run


def check(config: Run) -> None:
    """Refuses settings that cannot work.

    Raises:
        ConfigError: Names the option, the value found and what it must be.
    """
    for option, value, valid, rule in _rules(config):
        if not valid:
            raise ConfigError(f"--{option} {value}: must be {rule}")


def _rules(config: Run) -> Iterator[tuple[str, Any, bool, str]]:
    """Option, value, whether it is valid, and what it must be."""
    data, model, rri, people = config.data, config.model, config.rri, config.data.synthetic
    at_least = {
        "log-every": (config.log_every, 1),
        "checkpoint-every": (config.checkpoint_every, 1),
        "data.height": (data.height, 8),
        "data.width": (data.width, 8),
        "data.batch-size": (data.batch_size, 2),
        "data.validation": (data.validation, 0),
        "data.per-identity": (data.per_identity, 0),
        "data.crop-padding": (data.crop_padding, 0),
        "model.dim": (model.dim, 0),
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
        "seed": (config.seed, 0),
        "data.synthetic.seed": (people.seed, 0),
    }
    for option, (number, least) in at_least.items():
        yield option, number, number >= least, f"{least} or more"
    every = config.log_every
    # A checkpoint between two lines of the log would make a resumed log differ from an unbroken one.
    rule = f"a multiple of --log-every {every}"
    yield "checkpoint-every", config.checkpoint_every, config.checkpoint_every % every == 0, rule
    yield "model.dropout", model.dropout, 0 <= model.dropout < 1, "in [0, 1)"
    yield "model.std", model.std, all(value > 0 for value in model.std or ()), "positive"
    yield "model.eigenlayer-std", model.eigenlayer_std, model.eigenlayer_std > 0, "positive"
    rule = f"a divisor of --data.batch-size, which is {data.batch_size}"
    yield "data.per-identity", data.per_identity, data.batch_size % (data.per_identity or 1) == 0, rule
    yield "data.erase", data.erase, 0 <= data.erase <= 1, "in [0, 1]"
    yield "loss.smoothing", config.loss.smoothing, 0 <= config.loss.smoothing < 1, "in [0, 1)"
    yield "loss.margin", config.loss.margin, config.loss.margin >= 0, "0 or more"
    mining = config.loss.triplet == "none" or 2 <= data.per_identity < data.batch_size
    rule = "none unless --data.per-identity is 2 or more and there are two identities or more in a batch"
    yield "loss.triplet", config.loss.triplet, mining, rule
    yield "rri.rounds", rri.rounds, model.dim > 0 or rri.rounds == 0, "0 where --model.dim 0 leaves out the Eigenlayer"
    yield "seed", config.seed, config.seed < 2**32, "below 2**32"
    yield "data.synthetic.seed", people.seed, people.seed < 2**32, "below 2**32"
    for option, value in _floats(dataclasses.asdict(config)):
        yield option, value, math.isfinite(value), "a finite number"
    optimizer = config.optimizer
    rate = optimizer.learning_rate
    yield "optimizer.learning-rate", rate, 0 < rate < math.inf, "positive"
    yield "optimizer.momentum", optimizer.momentum, 0 <= optimizer.momentum < 1, "in [0, 1)"
    yield "optimizer.weight-decay", optimizer.weight_decay, optimizer.weight_decay >= 0, "0 or more"
    rates = rri.learning_rates
    fine = bool(rates) and all(0 < rate < math.inf for rate in rates)
    yield "rri.learning-rates", rates, fine, "one or more positive numbers"
    yield "rri.tolerance", rri.tolerance, rri.tolerance >= 0, "0 or more"
    yield "data.synthetic.alike", people.alike, 0 <= people.alike <= 1, "in [0, 1]"
    phases = {"base": config.base, "rri.restraint": rri.restraint, "rri.relaxation": rri.relaxation}
    if rri.final:
        phases["rri.final"] = rri.final
        yield (
            "rri.final.steps",
            rri.final.steps,
            rri.stop == "never",
            "given with --rri.stop never, as it belongs to the last round",
        )
    for option, phase in phases.items():
        factors = tuple(factor for _, factor in phase.multipliers)
        yield (
            f"{option}.multipliers",
            factors,
            all(factor > 0 for factor in factors),
            "positive; freeze what must not move",
        )
        yield (
            f"{option}.warmup",
            phase.warmup,
            0 <= phase.warmup <= phase.steps,
            f"0 to the {phase.steps} steps of the phase",
        )
        yield f"{option}.steps", phase.steps, phase.steps >= 1, "1 or more"
        drops = phase.milestones
        ordered = list(drops) == sorted(set(drops)) and all(0 < drop < phase.steps for drop in drops)
        rule = f"increasing, between 0 and the {phase.steps} steps of the phase"
        yield f"{option}.milestones", drops, ordered, rule


def _floats(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All floats of nested settings with the options they belong to."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _floats(value, f"{prefix}{key}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                yield f"{prefix}{key}".replace("_", "-"), number
