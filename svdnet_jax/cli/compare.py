"""RRI beside its control: what the decorrelation adds to training as long without it.

    svdnet train --rri.stop never --out runs/rri
    svdnet train --rri.method none --out runs/control
    svdnet compare --runs runs/rri --controls runs/control --out runs/comparison

Takes one or more runs (folders, or their metrics.jsonl) and as many controls, paired in order and meant to share a
seed. Prints the last round's results, mean and standard deviation over the pairs, and their difference with 95 %
intervals: over seeds, and over the people of the test set (folders only: a log does not have their results). Refuses
runs that did not have the same data, network, seed, Step 0 and steps; learning rates of the rounds may be each arm's
own, which is said. With --out, draws retrieval by round for the first pair, rounds.png, and writes the report of its
run with the control beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from svdnet_jax.cli.exits import fail_on
from svdnet_jax.errors import ConfigError, LogError
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.safe_writing import is_figure, is_text, refuse_inside, refuse_overwrite


@dataclass(frozen=True)
class Options:
    """What to compare."""

    runs: tuple[Path, ...]
    """Runs with decorrelation: folders, or logs."""
    controls: tuple[Path, ...]
    """Runs without (--rri.method none), one for each of the others, in their order."""
    out: Path | None = None
    """Folder for figure and report of the first pair; not given: only the table."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet compare") -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    # Imported after --help, which needs none of it.
    from svdnet_jax.studies.comparison import interval_table, load_pairs, rates_note, report_beside_control, table

    try:
        pairs = load_pairs(options.runs, options.controls)
        if options.out is not None:
            refuse_inside("--out", options.out, [*options.runs, *options.controls])
            refuse_overwrite("--out", options.out / "rounds.png", is_figure)
            refuse_overwrite("--out", options.out / "report.html", is_text("<title>SVDNet on", "beside the control"))
        console = terminal()
        console.print(table(pairs), "", interval_table(pairs), sep="\n")
        if note := rates_note(pairs):
            say(console, note)
        if options.out is not None:
            from svdnet_jax.reporting.figures.style import save
            from svdnet_jax.reporting.figures.training import rounds

            save(rounds(pairs[0].run, pairs[0].control), options.out / "rounds.png")
            say(console, f"figure: {options.out / 'rounds.png'}")
            if options.runs[0].is_dir():
                say(console, f"report: {report_beside_control(options.out, options.runs[0], pairs[0])}")
    except (OSError, LogError, ConfigError, MemoryError) as error:
        return fail_on(error)
    return 0
