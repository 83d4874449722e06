"""Retrieval and S(W) by round, of both embeddings: the paper's figure of convergence, with the control beside it.

    svdnet study rounds
    svdnet study rounds --preset short-resnet50 --data.root Market-1501 --model.weights resnet50.h5

The runs are those of svdnet study control: after it this takes seconds, else forty minutes on two CPU
cores. Round 0 is Step 0; the others are judged after their relaxation.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from rich.table import Table

from svdnet_jax.reporting.figures.studies import against
from svdnet_jax.studies import control, study, summary
from svdnet_jax.studies.comparison import spread

NAMES = {"us": "RRI", "none": "control"}


def tables(lines: summary.Lines) -> list[Table]:
    """Returns a row for each round of RRI and of the control, and what RRI gains by each round."""
    heads = ("round", "S(W)", "rank-1", "mAP", "mAP_market", "pooled rank-1", "pooled mAP")
    made = summary.make_table("By round, after relaxation", heads)
    for variant, name in NAMES.items():
        for number in range(variant == "none", summary.last_round(lines) + 1):
            records = summary.at_round(lines, variant, number)
            cells = [spread(summary.values(records, "embedding", m), 1) for m in ("rank1", "mAP", "mAP_market")]
            cells += [spread(summary.values(records, "pooled", m), 1) for m in ("rank1", "mAP")]
            title = f"{name} {number}" if number else "Step 0"
            made.add_row(title, spread(summary.values(records, "correlation"), 2), *cells)
    gains = {
        f"round {number}": each
        for number in range(1, summary.last_round(lines) + 1)
        for each in summary.differences(lines, {"": ("us", "none")}, number).values()
    }
    return [made, *([summary.table_of(gains, summary.DIFFERENT, "RRI less control, by round")] if gains else [])]


def figure(lines: summary.Lines) -> Figure:
    """Returns rank-1, mAP and S(W) by round."""
    numbers = range(summary.last_round(lines) + 1)

    def curve(variant: str, *path: str) -> dict[float, Sequence[float]]:
        return {n: summary.values(summary.at_round(lines, variant, n), *path).tolist() for n in numbers}

    kinds = [(kind, variant) for variant in NAMES for kind in ("embedding", "pooled")]
    panels = {
        title: {f"{kind}, {NAMES[variant]}": curve(variant, kind, measure) for kind, variant in kinds}
        for title, measure in {"Rank-1": "rank1", "mAP": "mAP"}.items()
    }
    panels["S(W) after relaxation"] = {
        f"embedding, {NAMES[variant]}": curve(variant, "correlation") for variant in NAMES
    }
    return against(panels, "round", units=("per cent", "per cent", "S(W)"))


STUDY = study.Study(
    "rounds",
    "Convergence over the rounds",
    control.Options,
    control.measure,
    tables,
    figure,
    "Does not show: what more rounds would bring, or the paper's rule to stop, which is off here so that all runs have "
    "the same budget.",
)
