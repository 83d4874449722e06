"""How many outputs the Eigenlayer should have: 16 and up to its input's, for the baseline and for SVDNet.

    python -m experiments.dimensions
    python -m experiments.dimensions --preset short-resnet50 --data.root Market-1501 --dims 16 64 256 1024 2048

Each number of outputs has its own Step 0, the baseline, and its own rounds with US. On two idle CPU cores a number
takes about two minutes a seed.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments import study
from experiments.compare import spread
from experiments.decorrelation import Options as Shared
from experiments.decorrelation import with_rri
from svdnet_jax.config import ConfigError, Run
from svdnet_jax.models.svdnet import build
from svdnet_jax.reporting.log import Record
from svdnet_jax.reporting.study_figures import against


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    dims: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Outputs of the Eigenlayer (D), at most the backbone's channels."""
    variants_rounds: int = Shared.variants_rounds
    """Rounds of each; the preset's own number of outputs is shared with other studies and may have more."""


def variants(options: Options) -> dict[str, Run]:
    """US with each number of outputs.

    Raises:
        ConfigError: More outputs than the backbone has channels.
    """
    config = options.run
    few = with_rri(config, method="us", rounds=min(options.variants_rounds, config.rri.rounds))
    found = {}
    for dim in options.dims:
        if dim < 1:
            raise ConfigError(f"--dims {dim}: must be 1 or more")
        build(replace(config.model, dim=dim), classes=2)
        own = dim == config.model.dim
        found["us" if own else f"us-d{dim}"] = (
            with_rri(config, method="us") if own else replace(few, model=replace(config.model, dim=dim))
        )
    return found


def measure(options: Options, console: Console) -> list[Record]:
    """Trains all; the lines say the number of outputs."""
    dims = {name: config.model.dim for name, config in variants(options).items()}
    return [{**line, "dim": dims[line["variant"]]} for line in study.train(options, variants(options), console)]


def by_dim(lines: study.Lines, number: int) -> dict[int, list[Record]]:
    """The lines of a round by number of outputs, fewest first."""
    found = {line["dim"]: study.at_round(lines, line["variant"], number) for line in lines}
    return dict(sorted(found.items()))


def tables(lines: study.Lines) -> list[Table]:
    """A row for each number of outputs, Step 0 beside the last round that all have."""
    number = study.last_round(lines)
    (K,) = {line["identities"] for line in lines if line["event"] == "start"}
    heads = ("outputs", "S(W)", "rank-1", "mAP", "", "S(W)", "rank-1", "mAP", "pooled mAP")
    caption = f"left: the baseline (Step 0); right: SVDNet after round {number}; {K} training identities"
    made = study.make_table(f"Outputs of the Eigenlayer: baseline, and after round {number}", heads, caption)
    for (dim, base), after in zip(by_dim(lines, 0).items(), by_dim(lines, number).values(), strict=True):
        left = [spread(study.values(base, "embedding", m), 1) for m in ("rank1", "mAP")]
        S = [spread(study.values(records, "correlation"), 2) for records in (base, after)]
        made.add_row(str(dim), S[0], *left, "→", S[1], *study.retrieval(after, ("rank1", "mAP")))
    return [made]


def figure(lines: study.Lines) -> Figure:
    """Rank-1 and mAP against the number of outputs."""
    moments = {"baseline": by_dim(lines, 0), "SVDNet": by_dim(lines, study.last_round(lines))}
    return against(
        {
            title: {
                f"{kind}, {name}": {dim: study.values(r, kind, measure).tolist() for dim, r in found.items()}
                for name, found in moments.items()
                for kind in ("embedding", "pooled")
            }
            for title, measure in {"Rank-1": "rank1", "mAP": "mAP"}.items()
        },
        "outputs of the Eigenlayer (D)",
        logarithmic=True,
    )


EXPERIMENT = study.Experiment(
    "dimensions",
    "How wide the Eigenlayer is",
    Options,
    measure,
    tables,
    figure,
    "Does not show: what the same extra training gives without decorrelation at each width (experiments.decorrelation "
    "has it for one below the number of identities), nor learning rates chosen for each width.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    return study.main(argv, EXPERIMENT, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
