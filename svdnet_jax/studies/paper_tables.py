"""All tables and figures of the paper's questions, and docs/results.md from what they found.

    svdnet study all
    svdnet study all --only control rounds
    svdnet study all --stored            no training: the document from the stored lines once more

Runs the studies one after the other in one folder (--out, not given: runs/paper), where they share Step 0 and runs; the
same command again goes on where it was stopped. Their lines are kept in docs/runs/paper and their figures in
docs/figures/paper. In docs/results.md the tables are replaced; what is written around them stays.

On the built-in data and two idle CPU cores: control and rounds 43 minutes, rotation 45 more, decorrelation 26,
dimensions 14, penalties 33, the other two a minute. After each run a line says how many are left and how long it takes.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from svdnet_jax.config.flags import Flag
from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.reporting.log import read_log
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.safe_writing import is_figure, is_text, refuse_overwrite, write_whole
from svdnet_jax.studies import (
    control,
    decorrelation,
    dimensions,
    pcanet,
    penalties,
    rotation,
    rounds,
    study,
    truncated,
)

MODULES = (control, rounds, rotation, decorrelation, dimensions, penalties, truncated, pcanet)
STUDIES = {module.STUDY.name: module.STUDY for module in MODULES}
COMMANDS = {module.STUDY.name: (module.__doc__ or "").partition("\n")[0] for module in MODULES}
INTRODUCTION = """# Results

Made by `svdnet study all` from the lines in [runs/paper](runs/paper). Every number is that of a fixed
round of a fixed schedule, never of the best, and nothing was chosen by the test set.
"""


@dataclass(frozen=True)
class Options:
    """What to run; the other options are those of the runs."""

    only: tuple[str, ...] = tuple(STUDIES)
    """Which studies."""
    stored: Flag = False
    """Train nothing: make the document from the stored lines."""
    docs: Path = Path("docs")
    """Where the document, lines and figures go."""
    seeds: tuple[int, ...] = study.Options().seeds
    """Seeds of all runs but those of --more-seeds."""
    more_seeds: tuple[int, ...] = control.Options().seeds
    """Seeds of what the claims of the README rest on: control, rounds and rotation."""
    factors: tuple[float, ...] = study.Options().factors
    """Factors on the learning rates of the rounds, of which each variant takes the best on held-out identities."""
    held_out: int = study.Options().held_out
    """Training identities held out for that choice."""
    jobs: int = 0
    """Runs at a time, each on its share of the CPU cores. 0: as many as there are cores, on other devices one."""
    variants_rounds: int = decorrelation.Options().variants_rounds
    """Rounds of what no other study needs."""
    below: int = decorrelation.Options().below
    """Outputs of an Eigenlayer narrower than the number of identities."""
    dims: tuple[int, ...] = dimensions.Options().dims
    """Outputs of the Eigenlayer."""
    kinds: tuple[penalties.Kind, ...] = penalties.Options().kinds
    """Penalties that begin after Step 0."""
    from_start: tuple[penalties.Kind, ...] = penalties.Options().from_start
    """Penalties that begin with the first step."""
    weight_factors: tuple[float, ...] = penalties.Options().weight_factors
    """Factors on the weights of penalties, of which each takes the best on held-out identities."""
    run: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def budget(options: Options) -> dict[str, study.Options]:
    """Returns the options of each study."""
    run, fewer = options.run, options.variants_rounds
    shared: dict[str, Any] = {name: getattr(options, name) for name in ("factors", "held_out", "jobs")}
    few, many = shared | {"seeds": options.seeds}, shared | {"seeds": options.more_seeds}
    weights = {name: getattr(options, name) for name in ("kinds", "from_start", "weight_factors")}
    return {
        "control": control.Options(**many, run=run),
        "rounds": control.Options(**many, run=run),
        "rotation": rotation.Options(**many, run=run, variants_rounds=fewer),
        "decorrelation": decorrelation.Options(**few, run=run, variants_rounds=fewer, below=options.below),
        "dimensions": dimensions.Options(**few, run=run, dims=options.dims, variants_rounds=fewer),
        "penalties": penalties.Options(**few, **weights, run=run, variants_rounds=fewer),
        "truncated": truncated.Options(**few, run=run),
        "pcanet": pcanet.Options(**few, run=run),
    }


def write(options: Options) -> Path:
    """Runs the studies, keeps their lines and figures, and writes the document.

    Returns:
        The document.

    Raises:
        ConfigError: An unknown study, or one without stored lines.
    """
    if unknown := set(options.only) - STUDIES.keys():
        raise ConfigError(f"--only {' '.join(sorted(unknown))}: unknown; choose from {', '.join(STUDIES)}")
    console = terminal()
    document, kept = options.docs / "results.md", options.docs / "runs" / "paper"
    drawn = options.docs / "figures" / "paper"
    refuse_overwrite("--docs", document, is_text("](runs/paper)"))
    for name in options.only:
        refuse_overwrite("--docs", kept / f"{name}.jsonl", study.IS_LINES)
        refuse_overwrite("--docs", drawn / f"{name}.png", is_figure)
    kept.mkdir(parents=True, exist_ok=True)
    text = document.read_text() if document.exists() else INTRODUCTION
    for name in options.only:
        chosen, stored = STUDIES[name], kept / f"{name}.jsonl"
        if not options.stored:
            write_whole(stored, study.conduct(chosen, budget(options)[name], console).read_bytes())
        if not stored.exists():
            raise ConfigError(f"--stored: {stored} is not there; run the study first")
        lines = read_log(stored)
        save(chosen.figure(lines), drawn / f"{name}.png")
        text = with_section(text, chosen, study.text(chosen, lines))
        write_whole(document, text.encode())
    say(console, f"document: {document}")
    return document


def with_section(document: str, chosen: study.Study, table: str) -> str:
    """Returns the document with the table of a study in its place; with a new section at the end if it has none."""
    name = chosen.name
    block = f"<!-- table runs/paper/{name}.jsonl -->\n```\n{table}\n```"
    place = re.compile(rf"<!-- table runs/paper/{name}\.jsonl -->\n```\n.*?\n```", re.S)
    if place.search(document):
        return place.sub(lambda _: block, document)
    return (
        f"{document}\n### {chosen.title}\n\n{COMMANDS[name]} `svdnet study {name}`\n\n"
        f"{block}\n\n![{chosen.title}](figures/paper/{name}.png)\n"
    )
