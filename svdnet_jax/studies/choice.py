"""The same choice for every variant: one factor on its settings, from one grid, on held-out identities.

The rates of a preset were chosen for RRI. A control or another method may want others, and what is ranked with rates
chosen for one of them says little. So each variant takes the factor on the preset's rates with which the mean of both
embeddings' mAP is best on training identities that are held out; the test set is looked at once, after it. Where the
best is an end of the grid, the grid goes on there. Of the built-in pedestrians as many more are drawn, so that training
is on as many people as in the study itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError, TrainingDiverged
from svdnet_jax.reporting.log import Record, after_rounds, read_log
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.runs.dataset import load_configured_dataset
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.studies.jobs import side_by_side
from svdnet_jax.studies.trained import Plan, plan, trained

if TYPE_CHECKING:
    from svdnet_jax.studies.study import Options

SEEDS = (0, 1)
"""Seeds that choose, in every study, so that runs of one name have one rate in all of them."""
BEYOND = 8.0
"""How far a grid goes on, as a factor on either of its ends."""
FOLDER = "choice"

Means = dict[float, float | None]
"""Factor -> mean mAP over the seeds, None where one of them diverged."""


def chosen(
    options: "Options", variants: Mapping[str, Config], families: Mapping[str, str], console: Console
) -> tuple[dict[str, Config], list[Record]]:
    """Returns the variants with the learning rates that were chosen for them, and a line of each choice.

    Args:
        options: Of the study.
        variants: Settings by name.
        families: Name of a variant -> name of the one whose choice it takes.
        console: Where to show it.

    Raises:
        ConfigError: Training with one of them diverged at all rates.
    """
    if len(options.factors) < 2:
        return dict(variants), []
    asked = {name: variants[name] for name in dict.fromkeys(families.values())}
    found = choose(options, asked, scaled, options.factors, BEYOND, console)
    best = {name: best_of(means) for name, means in found.items()}
    rate = options.run.rri.learning_rates[0]
    lines = [line("rate", name, rate, means, best[name]) for name, means in found.items()]
    return {name: scaled(config, best[families[name]]) for name, config in variants.items()}, lines


def line(what: str, variant: str, unit: float, means: Means, best: float) -> Record:
    """Returns the record of a choice: ``rates`` are all values that were tried, smallest first."""
    return {
        "event": "choice",
        "what": what,
        "variant": variant,
        "seed": None,
        "seeds": [*SEEDS],
        "rates": [float(f"{unit * factor:.6g}") for factor in means],
        "mAP": [*means.values()],
        "chosen": float(f"{unit * best:.6g}"),
    }


def choose(
    options: "Options",
    variants: Mapping[str, Config],
    scale: Callable[[Config, float], Config],
    factors: Sequence[float],
    beyond: float,
    console: Console,
) -> dict[str, Means]:
    """Returns what each factor gives each variant on held-out identities, smallest first.

    Args:
        options: Of the study.
        variants: Settings by name.
        scale: From settings and a factor to settings.
        factors: To try first.
        beyond: How far to go on where the best is an end, as a factor on that end; 1: not at all.
        console: Where to show it.

    Raises:
        ConfigError: One diverged with all factors.
    """
    found: dict[str, Means] = {name: {} for name in variants}
    missing = {name: [*factors] for name in variants}
    while any(missing.values()):
        tried = {(name, factor): f"{name}-x{factor:g}" for name, more in missing.items() for factor in more}
        candidates = {
            text: held_out(scale(variants[name], factor), options.held_out) for (name, factor), text in tried.items()
        }
        among = plan(options.folder / FOLDER, candidates, SEEDS)
        if among.runs:
            # Drawn or prepared once, before several processes ask for it.
            load_configured_dataset(next(iter(candidates.values())), console)
            say(console, f"to choose on held-out identities: {among}")
        jobs = [(options.folder / FOLDER, candidates, seed, among) for seed in SEEDS]
        by_seed = side_by_side(results, jobs, options.processes)
        for (name, factor), text in tried.items():
            found[name][factor] = _mean([each[text] for each in by_seed])
        found = {name: dict(sorted(means.items())) for name, means in found.items()}
        missing = {name: further(means, factors, beyond) for name, means in found.items()}
    for name, means in found.items():
        if all(mean is None for mean in means.values()):
            raise ConfigError(f"--factors {' '.join(f'{each:g}' for each in means)}: {name} diverged with each of them")
        shown = ", ".join(f"x{factor:g} {_percent(mean)}" for factor, mean in means.items())
        say(console, f"{name}: x{best_of(means):g}, of mAP {shown}")
    return found


def further(means: Means, factors: Sequence[float], beyond: float) -> list[float]:
    """Returns the next factor to try: at the end of the grid that is best, if there is one.

    Args:
        means: Of the factors so far, smallest first.
        factors: The first ones.
        beyond: How far to go, as a factor on either end.
    """
    tried, first = [*means], sorted(factors)
    if len(tried) < 2 or all(mean is None for mean in means.values()):
        return []
    best, ratios = best_of(means), [larger / smaller for smaller, larger in pairwise(tried)]
    if best == tried[0] and (more := best / ratios[0]) >= first[0] / beyond * (1 - 1e-6):
        return [float(f"{more:.6g}")]
    if best == tried[-1] and (more := best * ratios[-1]) <= first[-1] * beyond * (1 + 1e-6):
        return [float(f"{more:.6g}")]
    return []


def best_of(means: Means) -> float:
    """Returns the factor with the best mean, the smallest of equal ones; one that diverged is out of the question."""
    known = {factor: mean for factor, mean in means.items() if mean is not None}
    return max(known, key=known.__getitem__)


def results(folder: Path, candidates: Mapping[str, Config], seed: int, among: Plan) -> dict[str, float | None]:
    """Returns the mean of both mAPs on the held-out identities after the last round, None where training diverged."""
    found: dict[str, float | None] = {}
    for name, config in candidates.items():
        try:
            run = trained(folder, name, config, seed, terminal(plain=True), among)
        except TrainingDiverged:
            found[name] = None
            continue
        last: Any = after_rounds(read_log(RunDir(run).log))[-1]
        found[name] = (last["embedding"]["mAP"] + last["pooled"]["mAP"]) / 2
    return found


def scaled(config: Config, factor: float) -> Config:
    """Returns the settings with all rates of the rounds multiplied."""
    rates: Sequence[float] = [float(f"{rate * factor:.6g}") for rate in config.rri.learning_rates]
    return replace(config, rri=replace(config.rri, learning_rates=tuple(rates)))


def held_out(config: Config, identities: int) -> Config:
    """Returns the settings with so many training identities in the place of the test set."""
    data = replace(config.data, validation=identities)
    if data.root is None:
        people = replace(data.synthetic, train_identities=data.synthetic.train_identities + identities)
        data = replace(data, synthetic=replace(people, test_identities=2))
    return replace(config, data=data)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _percent(mean: float | None) -> str:
    return "diverged" if mean is None else f"{100 * mean:.1f}"
