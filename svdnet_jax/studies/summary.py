"""What tables and figures of the studies read from lines: the variants' rounds, their numbers, mean and spread.

Lines are those of `svdnet_jax.studies.study`, one a border of a run with ``variant`` and ``seed``; everything here is
a pure function of them.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from svdnet_jax.errors import LogError
from svdnet_jax.reporting.figures.studies import side_by_side
from svdnet_jax.reporting.log import Record, after_rounds
from svdnet_jax.retrieval.intervals import ByIdentity, Sums
from svdnet_jax.studies.comparison import spread
from svdnet_jax.studies.differences import Difference, difference
from svdnet_jax.studies.differences import about as about_differences

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


def paired(ours: Lines, theirs: Lines) -> tuple[list[Record], list[Record]]:
    """Returns two groups of lines, one a seed, in one order of the seeds.

    Raises:
        LogError: They are not of the same seeds, or one is there twice: what differs is then not the variant alone.
    """
    first, second = ({line["seed"]: line for line in group} for group in (ours, theirs))
    if first.keys() != second.keys() or (len(first), len(second)) != (len(ours), len(theirs)):
        variants, seeds = (
            [", ".join(dict.fromkeys(str(line[name]) for line in group)) or "none" for group in (ours, theirs)]
            for name in ("variant", "seed")
        )
        raise LogError(
            f"lines of a study: {variants[0]} has the seeds {seeds[0]} and {variants[1]} {seeds[1]}, or one of them "
            "twice; a difference seed by seed needs each once in both. Run the study once more, which makes its lines "
            "anew and trains only what is missing"
        )
    return list(first.values()), [second[seed] for seed in first]


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

    Raises:
        LogError: Two variants do not have the same seeds.
    """
    rows = {}
    for title, pair in pairs.items():
        ours, theirs = (at_round(lines, name, number) for name in pair)
        if ours and theirs:
            ours, theirs = paired(ours, theirs)
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
    return table_of(differences(lines, pairs, number), DIFFERENT, title)


def table_of(
    rows: Mapping[str, Sequence[Difference]], heads: Sequence[str], title: str, caption: str | None = None
) -> Table:
    """Returns a table of differences; its caption says what their brackets are, if no other is given."""
    made = make_table(title, ("", *heads), about_differences(chain(*rows.values())) if caption is None else caption)
    for name, each in rows.items():
        made.add_row(name, *(f"  {one}" for one in each))
    return made


def unlike(
    lines: Lines, ours: Mapping[str, Any], theirs: Mapping[str, Any], measures: Sequence[str]
) -> list[Difference]:
    """Returns differences of the output's numbers between two groups of lines that are of no round.

    Args:
        lines: Of the study; those of event ``identities`` tell the results by identity.
        ours: Fields that the first group has, such as variant and rank.
        theirs: Fields of the second.
        measures: Such as ``mAP``.

    Raises:
        LogError: The groups do not have the same seeds.
    """
    groups = [
        [line for line in lines if all(line.get(name) == value for name, value in fields.items())]
        for fields in (ours, theirs)
    ]
    sums = [[line["embedding"] for line in group if line["event"] == "identities"] for group in groups]
    first, second = paired(*([line for line in group if line["event"] != "identities"] for group in groups))
    known: tuple[Sums, Sums] | None = None
    if all(len(each) == 1 for each in sums):
        known = {"embedding": ByIdentity.from_json(sums[0][0])}, {"embedding": ByIdentity.from_json(sums[1][0])}
    return [
        difference((values(first, "embedding", m), values(second, "embedding", m)), known, "embedding", m)
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
        return "Learning rates of the rounds: as they were given; these lines tell of no choice."
    rates, weights = ([line for line in made if line.get("what", "rate") == what] for what in ("rate", "weight"))
    told = []
    if rates:
        told.append(f"Learning rates of the rounds, each chosen on held-out training identities: {_taken(rates)}.")
    if weights:
        likewise = "likewise" if rates else "each chosen on held-out training identities, the rates of the rounds not"
        told.append(f"Weights, {likewise}: {_taken(weights)}.")
    return " ".join(told)


def _taken(made: Lines) -> str:
    return "; ".join(f"{line['variant']} {line['chosen']:.3g} ({_grid(line)})" for line in made)


def _grid(line: Record) -> str:
    """Returns what was tried for a choice, and whether more might have been better."""
    tried, means = line["rates"], line.get("mAP", ())
    end = "an end of " if line["chosen"] in (tried[0], tried[-1]) else ""
    diverged = [f"{rate:.3g}" for rate, mean in zip(tried, means, strict=False) if mean is None]
    return f"{end}{tried[0]:.3g} to {tried[-1]:.3g}" + (f"; {', '.join(diverged)} diverged" if diverged else "")


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
