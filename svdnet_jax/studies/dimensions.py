"""How many outputs the Eigenlayer should have: 16 and up to its input's, for the baseline, its control and for SVDNet.

    svdnet study dimensions
    svdnet study dimensions --preset short-resnet50 --data.root Market-1501 --dims 16 64 256 1024 2048

Each number of outputs has its own Step 0, the baseline, and its own rounds with US and, as the control, without. On two
idle CPU cores a number takes a little over a minute a seed.
"""

from dataclasses import dataclass, replace

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.reporting.figures.studies import against
from svdnet_jax.reporting.log import Record
from svdnet_jax.studies import study, summary
from svdnet_jax.studies.choice import chosen
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.decorrelation import Options as Shared
from svdnet_jax.studies.decorrelation import with_rri


@dataclass(frozen=True)
class Options(study.Options):
    """What to compare."""

    dims: tuple[int, ...] = (16, 64, 128, 256)
    """Outputs of the Eigenlayer (D), at most the backbone's channels."""
    variants_rounds: int = Shared.variants_rounds
    """Rounds of each; the preset's own number of outputs is shared with other studies and may have more."""


def variants(options: Options) -> dict[str, Config]:
    """Returns the settings of US and the control with each number of outputs.

    Raises:
        ConfigError: More outputs than the backbone has channels.
    """
    config = options.run
    rounds = min(options.variants_rounds, config.rri.rounds)
    configs = {}
    for dim in options.dims:
        if dim < 1:
            raise ConfigError(f"--dims {dim}: must be 1 or more")
        create_model(replace(config.model, embedding_dim=dim), num_classes=2)
        own = dim == config.model.embedding_dim
        for method in ("none", "us"):
            if own:
                configs[method] = with_rri(config, method=method)
            else:
                narrow = replace(config, model=replace(config.model, embedding_dim=dim))
                configs[f"{method}-d{dim}"] = with_rri(narrow, method=method, rounds=rounds)
    return configs


def measure(options: Options, console: Console) -> list[Record]:
    """Trains all; the lines say the number of outputs."""
    runs = variants(options)
    dims = {name: config.model.embedding_dim for name, config in runs.items()}
    own = {method: with_rri(options.run, method=method) for method in ("none", "us")}
    families = {name: name.partition("-")[0] for name in own | runs}
    runs, choices = chosen(options, own | runs, families, console)
    lines = study.train(options, {name: runs[name] for name in dims}, console)
    return choices + [{**line, "dim": dims[line["variant"]]} for line in lines]


def by_dim(lines: summary.Lines, method: str, number: int) -> dict[int, list[Record]]:
    """Returns the lines of a round of US or the control by number of outputs, fewest first."""
    trained = [line for line in lines if line["event"] == "phase" and line["variant"].partition("-")[0] == method]
    names = {line["dim"]: line["variant"] for line in trained}
    return {dim: summary.at_round(lines, name, number) for dim, name in sorted(names.items())}


def moments(lines: summary.Lines) -> dict[str, dict[int, list[Record]]]:
    """Returns what is compared at each number of outputs."""
    number = summary.last_round(lines)
    return {
        "Step 0": by_dim(lines, "us", 0),
        "control": by_dim(lines, "none", number),
        "SVDNet": by_dim(lines, "us", number),
    }


def tables(lines: summary.Lines) -> list[Table]:
    """Returns three rows for each number of outputs."""
    (K,) = {line["identities"] for line in lines if line["event"] == "start"}
    title = f"Outputs of the Eigenlayer: Step 0, and after round {summary.last_round(lines)}"
    made = summary.make_table(title, ("outputs", "S(W)", *summary.COMPARED), f"{K} training identities")
    by_moment = moments(lines)
    for dim in by_moment["Step 0"]:
        for name, by in by_moment.items():
            S = spread(summary.values(by[dim], "correlation"), 2)
            made.add_row(f"{dim}, {name}", S, *summary.compared(by[dim]))
    names = {dim: records[0]["variant"] for dim, records in by_moment["SVDNet"].items()}
    pairs = {f"D = {dim}": (name, name.replace("us", "none")) for dim, name in names.items()}
    number = summary.last_round(lines)
    return [made, summary.difference_table(lines, pairs, number, "SVDNet less control, by outputs")]


def figure(lines: summary.Lines) -> Figure:
    """Returns rank-1 and mAP against the number of outputs."""
    panels = {
        "Rank-1": ("embedding", "rank1"),
        "mAP of the Eigenlayer's output": ("embedding", "mAP"),
        "mAP of its input, pooled": ("pooled", "mAP"),
    }
    return against(
        {
            title: {
                name: {dim: summary.values(records, *path).tolist() for dim, records in by.items()}
                for name, by in moments(lines).items()
            }
            for title, path in panels.items()
        },
        "outputs of the Eigenlayer (D)",
        logarithmic=True,
    )


STUDY = study.Study(
    "dimensions",
    "How wide the Eigenlayer is",
    Options,
    measure,
    tables,
    figure,
    "Does not show: learning rates chosen for each width.",
)
