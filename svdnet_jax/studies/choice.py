"""The same choice for every variant: the learning rate of its rounds, from one grid, on held-out identities.

The rates of a preset were chosen for RRI. A control or another method may want others, and what is ranked with rates
chosen for one of them says little. So each variant takes the factor on the preset's rates with which the mean of both
embeddings' mAP is best on training identities that are held out; the test set is looked at once, after it. Of the
built-in pedestrians as many more are drawn, so that training is on as many people as in the study itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError, TrainingDiverged
from svdnet_jax.reporting.log import Record, after_rounds, read_log
from svdnet_jax.reporting.terminal import say
from svdnet_jax.runs.dataset import load_configured_dataset
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.studies.jobs import side_by_side

if TYPE_CHECKING:
    from svdnet_jax.studies.study import Options

SEEDS = 2
"""Seeds that choose: the first ones of a study."""
FOLDER = "choice"


def chosen(
    options: "Options", variants: Mapping[str, Config], families: Mapping[str, str], console: Console
) -> tuple[dict[str, Config], list[Record]]:
    """Returns the variants with the rates that were chosen for them, and a line of each choice.

    Args:
        options: Of the study.
        variants: Settings by name.
        families: Name of a variant -> name of the one whose choice it takes.
        console: Where to show it.
    """
    if len(options.factors) < 2:
        return dict(variants), []
    names = [*dict.fromkeys(families.values())]
    candidates = {
        f"{name}-x{factor:g}": held_out(scaled(variants[name], factor), options.held_out)
        for name in names
        for factor in options.factors
    }
    load_configured_dataset(next(iter(candidates.values())), console)  # once, before several processes ask for it
    seeds = options.seeds[:SEEDS]
    jobs = [(options, candidates, seed) for seed in seeds]
    by_seed = side_by_side(results, jobs, options.processes)
    lines: list[Record] = []
    factors = {}
    for name in names:
        found = {f: [each[f"{name}-x{f:g}"] for each in by_seed] for f in options.factors}
        # A rate with which one seed diverged is out of the question.
        means = {factor: _mean(values) for factor, values in found.items()}
        if not (finite := {factor: mean for factor, mean in means.items() if mean is not None}):
            raise ConfigError(f"--factors {' '.join(map(str, options.factors))}: {name} diverged with each of them")
        factors[name] = max(finite, key=finite.__getitem__)
        rates = [options.run.rri.learning_rates[0] * f for f in options.factors]
        lines.append(
            {
                "event": "choice",
                "variant": name,
                "seed": None,
                "seeds": list(seeds),
                "rates": rates,
                "mAP": [*means.values()],
                "chosen": options.run.rri.learning_rates[0] * factors[name],
            }
        )
        say(console, f"{name}: rate {lines[-1]['chosen']:g}, of {' '.join(f'{rate:g}' for rate in rates)}")
    return {name: scaled(config, factors[families[name]]) for name, config in variants.items()}, lines


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def results(options: "Options", candidates: Mapping[str, Config], seed: int) -> dict[str, float | None]:
    """Returns the mean of both mAPs on the held-out identities after the last round, None where training diverged."""
    from svdnet_jax.reporting.terminal import terminal
    from svdnet_jax.studies.study import trained

    out = replace(options, run=replace(options.run, out=options.folder / FOLDER))
    found: dict[str, float | None] = {}
    for name, config in candidates.items():
        try:
            folder = trained(out, name, config, seed, terminal(plain=True))
        except TrainingDiverged:
            found[name] = None
            continue
        last: Any = after_rounds(read_log(RunDir(folder).log))[-1]
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
