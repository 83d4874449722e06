"""What tables and figures of the studies read from lines: the variants' rounds, their numbers, mean and spread.

Lines are those of `svdnet_jax.studies.study`, one a border of a run with ``variant`` and ``seed``; everything here is
a pure function of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from svdnet_jax.reporting.figures.studies import side_by_side
from svdnet_jax.reporting.log import Record, after_rounds
from svdnet_jax.retrieval.intervals import ByIdentity, Sums
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.differences import WHAT, Difference, difference

Lines = Sequence[Record]


def runs_of(lines: Lines, variant: str) -> list[list[Record]]:
    """Returns the lines of each run of a variant, one list a seed, in their order."""
    lines = [line for line in lines if line["event"] not in ("identities", "choice")]
    seeds = dict.fromkeys(line["seed"] for line in lines if line["variant"] == variant)
    return [[line for line in lines if (line["variant"], line["seed"]) == (variant, seed)] for seed in seeds]


def at_round(lines: Lines, variant: str, number: int) -> list[Record]:
    """Returns the lines by which a round of a variant is judged, one a seed; round 0 is Step 0, -1 the last."""
    judged = [after_rounds(records) for records in runs_of(lines, variant)]
    if number < 0:
        return [records[number] for records in judged]
    return [record for records in judged for record in records if record["round"] == number]


def last_round(lines: Lines) -> int:
    """Returns the last round that every variant with rounds has."""
    ends: dict[tuple[str, int], int] = {}
    for line in lines:
        if line["event"] == "phase":
            ends[line["variant"], line["seed"]] = line["round"]
    return min((number for number in ends.values() if number), default=0)


def values(records: Lines, *path: str) -> np.ndarray:
    """Returns a number of each record, in per cent where it is of retrieval."""
    selected: list[Any] = [*records]
    for name in path:
        selected = [record[name] for record in selected]
    return np.array(selected, float) * (100 if len(path) > 1 and path[0] in ("embedding", "pooled") else 1)


def compared(records: Lines) -> list[str]:
    """Returns cells of a row: rank-1 and mAP of both embeddings, mean and standard deviation over the seeds."""
    return [spread(values(records, *path), 1) for path in COMPARED.values()]


COMPARED = {
    "rank-1": ("embedding", "rank1"),
    "mAP": ("embedding", "mAP"),
    "pooled rank-1": ("pooled", "rank1"),
    "pooled mAP": ("pooled", "mAP"),
}
"""Head of a column of `compared`, and what is in it."""
DIFFERENT = ("rank-1", "mAP", "pooled mAP")
"""Those of which differences are shown."""


def differences(lines: Lines, pairs: Mapping[str, tuple[str, str]], number: int) -> dict[str, list[Difference]]:
    """Returns differences of variants after a round, with intervals, in the order of `DIFFERENT`.

    Args:
        lines: Of the study.
        pairs: Title -> variant, and the one that it is compared with; those that the lines lack are left out.
        number: The round.
    """
    rows = {}
    for title, pair in pairs.items():
        ours, theirs = (at_round(lines, name, number) for name in pair)
        if ours and theirs:
            first, second = (sums_of(lines, name, number) for name in pair)
            known = (first, second) if first and second else None
            rows[title] = [
                difference((values(ours, *path), values(theirs, *path)), known, *path)
                for path in (COMPARED[head] for head in DIFFERENT)
            ]
    return rows


def sums_of(lines: Lines, variant: str, number: int) -> Sums | None:
    """Returns results by identity after a round, the mean over the seeds, where the lines have them."""
    for line in lines:
        if line["event"] == "identities" and (line["variant"], line.get("round")) == (variant, number):
            return {name: ByIdentity.from_json(line[name]) for name in ("embedding", "pooled")}
    return None


def difference_table(lines: Lines, pairs: Mapping[str, tuple[str, str]], number: int, title: str) -> Table:
    """Returns the table of `differences`."""
    made = make_table(title, ("", *DIFFERENT), WHAT)
    for name, each in differences(lines, pairs, number).items():
        made.add_row(name, *(f"  {one}" for one in each))
    return made


def unlike(lines: Lines, ours: Mapping[str, Any], theirs: Mapping[str, Any], measures: Sequence[str]) -> list[str]:
    """Returns cells with differences of the output's numbers between two groups of lines that are of no round.

    Args:
        lines: Of the study; those of event ``identities`` tell the results by identity.
        ours: Fields that the first group has, such as variant and rank.
        theirs: Fields of the second.
        measures: Such as ``mAP``.
    """
    sides, sums = [], []
    for fields in (ours, theirs):
        group = [line for line in lines if all(line.get(name) == value for name, value in fields.items())]
        sides.append([line for line in group if line["event"] != "identities"])
        sums += [
            {"embedding": ByIdentity.from_json(line["embedding"])} for line in group if line["event"] == "identities"
        ]
    known = (sums[0], sums[1]) if len(sums) == 2 else None
    return [
        f"  {difference((values(sides[0], 'embedding', m), values(sides[1], 'embedding', m)), known, 'embedding', m)}"
        for m in measures
    ]


def retrieval_figure(by_name: Mapping[str, Lines]) -> Figure:
    """Returns mAP and rank-1 of variants by name, of the Eigenlayer's output and its input."""
    return side_by_side(
        {
            title: {
                kind: {name: values(records, kind, measure).tolist() for name, records in by_name.items()}
                for kind in ("embedding", "pooled")
            }
            for title, measure in {"mAP": "mAP", "Rank-1": "rank1"}.items()
        }
    )


def make_table(title: str, heads: Sequence[str], caption: str = "") -> Table:
    """Returns an empty table in the common form; its first column holds names."""
    made = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    made.box, made.padding = box.SIMPLE_HEAD, 0
    for number, head in enumerate(heads):
        made.add_column(f"  {head}" if number else head, justify="right" if number else "left", no_wrap=True)
    return made


def choices(lines: Lines) -> str:
    """Describes the rates of the rounds: what was chosen on held-out identities, or that nothing was."""
    made = [line for line in lines if line["event"] == "choice"]
    if not last_round(lines):
        return ""
    if not made:
        return "Learning rates of the rounds: those of the preset for all, which were chosen for US."
    of_weights = [line for line in made if line.get("what") == "weight"]
    rates = f"Learning rates of the rounds, each chosen on held-out training identities: {_taken(made, 'rate')}."
    return rates + (f" Weights, likewise: {_taken(made, 'weight')}." if of_weights else "")


def _taken(made: Lines, what: str) -> str:
    return "; ".join(
        f"{line['variant']} {line['chosen']:.3g} "
        f"({'an end of ' if line['chosen'] in (line['rates'][0], line['rates'][-1]) else ''}"
        f"{line['rates'][0]:.3g} to {line['rates'][-1]:.3g})"
        for line in made
        if line.get("what", "rate") == what
    )


def about(lines: Lines) -> str:
    """Describes data, seeds and machine of a study, which no table goes without."""
    starts = [line for line in lines if line["event"] == "start"]
    first = starts[0]
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(line["seed"] for line in starts if line["seed"] is not None))
    machines = "; ".join(dict.fromkeys(line["machine"] for line in starts))
    return (
        f"Data: {first['dataset']}, {first['train']} training images of {first['identities']} identities, "
        f"{first['valid_queries']} valid queries, {first['gallery']} gallery images. "
        f"{f'Seeds: {seeds}' if seeds else 'No randomness, so no seeds'}. Machine: {machines}. "
        f"Per cent{'; mean and standard deviation over the seeds' if ',' in seeds else ''}."
    )
