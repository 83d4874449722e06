"""Every setting of a run, as one tree of frozen dataclasses.

The command line is made from these classes (tyro), so a field's docstring is its help text. `check` refuses
what cannot work before any work starts. Lengths of training are counted in optimiser steps, as in the
authors' solver files.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from svdnet_jax.eigenlayer import Method

PhaseKind = Literal["base", "restraint", "relaxation"]


class ConfigError(ValueError):
    """A setting that cannot work; the message names the option, the value and what would be valid."""


@dataclass(frozen=True)
class Synthetic:
    """The built-in pedestrians, used when data.root is not given."""

    train_identities: int = 120
    """Identities to train on."""
    train_images: int = 16
    """Images per training identity."""
    test_identities: int = 80
    """Identities of query and gallery, disjoint from the training ones."""
    gallery_images: int = 2
    """Gallery images of each test identity in each camera that sees it; there is one query there too."""
    distractors: int = 120
    """Gallery images of nobody in particular (pid 0)."""
    junk: int = 60
    """Gallery images of bad detections (pid -1), left out of the evaluation."""
    alike: float = 0.5
    """Share of identities dressed nearly like another one: the non-uniform samples of the paper."""
    seed: int = 0
    """Seed of the generator; independent of the seed of training."""


@dataclass(frozen=True)
class Data:
    """What to train and test on, and how images reach the network."""

    root: Path | None = None
    """Folder of Market-1501 (or its parent). Not given: built-in synthetic pedestrians."""
    cache: Path = Path("runs/data")
    """Folder for the synthetic images and for prepared records."""
    height: int = 64
    """Height the network sees, in pixels."""
    width: int = 32
    """Width the network sees, in pixels."""
    batch_size: int = 64
    """Images per optimiser step."""
    flip: bool = True
    """Mirror half of the training images."""
    synthetic: Synthetic = field(default_factory=Synthetic)


@dataclass(frozen=True)
class Model:
    """Backbone, Eigenlayer and classifier."""

    backbone: str = "mini"
    """Backbone by name: mini, a small residual network for small images."""
    dim: int = 128
    """Outputs of the Eigenlayer (D); at most the backbone's channels (C)."""
    dropout: float = 0.5
    """Share of Eigenlayer outputs dropped before the classifier while training."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """Statistics used in training: of the batch, or always the stored ones (the authors' recipe)."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from RGB in [0, 255]."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Divides RGB after the mean."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a fixed set of trainable weights and fresh momentum."""

    steps: int
    """Optimiser steps."""
    milestones: tuple[int, ...] = ()
    """Steps of the phase at which the learning rate is divided by ten."""
    freeze: tuple[str, ...] = ()
    """Weights held fixed: shell patterns over paths, such as eigenlayer/* or */bn*/scale."""


@dataclass(frozen=True)
class RRI:
    """Restraint and Relaxation Iteration."""

    rounds: int = 4
    """Rounds at most."""
    method: Method = "us"
    """What replaces W = U S V' at each round; none is the control: the same training without it."""
    match: bool = True
    """Give each old column the closest new one, with sign (the authors' code, not in the paper)."""
    learning_rates: tuple[float, ...] = (0.02,)
    """Learning rate of each round; the last one repeats."""
    restraint: Phase = field(default_factory=lambda: Phase(steps=90, milestones=(60,), freeze=("eigenlayer/*",)))
    relaxation: Phase = field(default_factory=lambda: Phase(steps=90, milestones=(60,)))
    stop: Literal["stable", "never"] = "stable"
    """When to stop before the last round: when S(W) is stable (the paper's rule; not the control), or never."""
    tolerance: float = 0.005
    """S(W) is stable if after relaxation it rose by less than this over the round before."""


@dataclass(frozen=True)
class Optimizer:
    """Stochastic gradient descent in Caffe's form, with one rate for all weights.

    The authors' release trains the classifier's bias at twice the rate.
    """

    learning_rate: float = 0.1
    """Learning rate of Step 0."""
    momentum: float = 0.9
    """Share of the last step that is taken again."""
    weight_decay: float = 5e-4
    """Of all weights but biases."""


@dataclass(frozen=True)
class Eval:
    """Retrieval on query and gallery."""

    metric: Literal["euclidean", "cosine"] = "euclidean"
    """Distance that ranks the gallery."""
    cross_camera: bool = True
    """Leave out gallery images of the query's identity taken by the query's camera (Market-1501's protocol)."""
    batch_size: int = 128
    """Images embedded at a time."""
    train_images: int = 2048
    """At most so many training images give the loss and accuracy at the borders of phases."""


@dataclass(frozen=True)
class Run:
    """One training run: Step 0, then rounds of decorrelation, restraint and relaxation."""

    preset: str = "synthetic"
    """Named settings to start from, which other options change: synthetic, or tiny (the whole loop in a minute)."""
    out: Path | None = None
    """Folder of the run (not given: runs/ and the name of data or preset). The same command again resumes it."""
    seed: int = 0
    """Seed of initial weights, sample order, flips and dropout."""
    log_every: int = 30
    """Steps between two lines of the log."""
    checkpoint_every: int = 120
    """Steps between two checkpoints; one is written after every phase too."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    base: Phase = field(default_factory=lambda: Phase(steps=900, milestones=(540, 780)))
    rri: RRI = field(default_factory=RRI)
    eval: Eval = field(default_factory=Eval)

    @property
    def folder(self) -> Path:
        """Folder of the run: what --out says, else named by the data, else by the preset."""
        if self.out is not None:
            return self.out
        return Path("runs") / (self.data.root.resolve().name if self.data.root else self.preset)


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
        "model.dim": (model.dim, 1),
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
    yield "model.std", model.std, all(value > 0 for value in model.std), "positive"
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
    for option, phase in phases.items():
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


def to_json(config: Run) -> dict[str, Any]:
    """The settings as JSON's types, nested as they are."""
    return _plain(dataclasses.asdict(config))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The options in which two results of `to_json` differ, each as ``option: old -> new``."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
