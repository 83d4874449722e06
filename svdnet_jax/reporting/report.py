"""The report of a run: one HTML file with everything in it, to open offline or send to someone.

No script, nothing loaded from elsewhere: a content security policy in the page has the browser
refuse both. The page itself is report.html.j2; here are the values that it shows.
"""

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from svdnet_jax.reporting.log import Record, after_rounds, border_name, borders, flatten, is_measured, other_sets
from svdnet_jax.reporting.terminal import duration, printable
from svdnet_jax.safe_writing import write_whole

_EMBEDDINGS = ("embedding", "pooled")
_MEASURES = {"rank1": "rank-1", "mAP": "mAP"}


class _Card(NamedTuple):
    """A number in large type; under it what it was after Step 0 and is for the control, if known."""

    name: str
    last: str
    base: str
    control: str = ""


class _Row(NamedTuple):
    """A row of a table; what is no result of training is faint."""

    name: str
    cells: Sequence[str]
    faint: bool = False


def write_report(
    path: Path,
    *,
    title: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    records: Sequence[Record],
    figures: Mapping[str, Path],
    facts: Mapping[str, str],
    control: Sequence[Record] | None = None,
    differences: Mapping[str, object] | None = None,
    conclusion: str = "",
) -> None:
    """Writes a run's report as one self-contained HTML page.

    Args:
        path: The page to write.
        title: What the run is.
        config: Settings, nested as they are.
        environment: Versions, devices, commit.
        records: Lines of the run's log.
        figures: Caption -> PNG file, in the order to show.
        facts: What a reader must know to judge the numbers, such as where the data come from.
        control: Lines of the log of a run with the same budget and no decorrelation.
        differences: The run less its control after the last round, as text with intervals, by what was measured.
        conclusion: What the numbers rest on, with intervals, and what they do not show; a line a paragraph.

    Raises:
        ValueError: No phase of the run has ended, so there is nothing to report.
    """
    if not after_rounds(records):
        raise ValueError("no phase of the run has ended yet: there is no result to report")
    last = after_rounds(records)[-1]
    measures = flatten({name: last[name] for name in _EMBEDDINGS})
    page = _render(
        title=title,
        cards=_cards(records, control),
        ending=_ending(records),
        conclusion=conclusion.splitlines(),
        facts=facts,
        borders=_border_rows(records),
        others={name: _border_rows(lines) for name, lines in other_sets(records).items()},
        differences={name: str(each) for name, each in (differences or {}).items()},
        comparison=_comparison_rows(records, control) if control else None,
        figures={caption: base64.b64encode(file.read_bytes()).decode() for caption, file in figures.items()},
        details={
            "All measures": {name: f"{_percent(value)} %" for name, value in measures.items()},
            "Settings": flatten(config),
            "Environment": flatten(environment),
        },
    )
    write_whole(path, printable(page).encode())


def _render(**values: Any) -> str:
    """Returns the page with every value escaped; a name that the page knows and `values` does not is an error."""
    # Commands that write no report start without it.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = resources.files("svdnet_jax.reporting").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(page).render(values)


def _cards(records: Sequence[Record], control: Sequence[Record] | None) -> list[_Card]:
    """Returns the last numbers, with those of the base and of the control."""
    judged = after_rounds(records)
    first, last = judged[0], judged[-1]
    # A control that ran for fewer or more rounds is compared at the same round, or not at all.
    others = [r for r in after_rounds(control or ()) if r["round"] == last["round"]]
    compared = [last, first, *others]
    cards = [
        _Card(f"{name}: {title}", *(f"{_percent(r[name][measure])} %" for r in compared))
        for name in _EMBEDDINGS
        for measure, title in _MEASURES.items()
    ]
    return [*cards, _Card("S(W)", *(f"{r['correlation']:.3f}" for r in compared))]


def _ending(records: Sequence[Record]) -> str:
    """Returns which phase the last values stand after, and how the run ended."""
    last = after_rounds(records)[-1]
    phase = "final restraint" if last["phase"] == "final" else last["phase"]
    moment = f"the {phase} of round {last['round']}" if last["round"] else "the base (Step 0)"
    ends = [r for r in records if r["event"] == "end"]
    if not ends:
        return f"The run has not ended. The values are those after {moment}."
    why = {"maximum": "all rounds were done", "stable": "S(W) after relaxation was stable"}
    return (
        f"Values after {moment}, the last of the run, which ended after {ends[-1]['step']} steps "
        f"and {duration(ends[-1]['seconds'])} of training: {why[ends[-1]['stopped']]}."
    )


def _border_rows(records: Sequence[Record]) -> list[_Row]:
    """Returns S(W), loss and the measures of both embeddings, one row per border."""
    rows = []
    for record in borders(records):
        if not is_measured(record):
            empty = [""] * (1 + len(_EMBEDDINGS) * (len(_MEASURES) + 1))
            rows.append(_Row(border_name(record), [f"{record['correlation']:.3f}", *empty], faint=False))
            continue
        decorrelated = record["event"] == "decorrelate"
        correlation, loss = record["correlation"], record["loss"]
        cells = [
            f"{correlation['after'] if decorrelated else correlation:.3f}",
            f"{loss['after'] if decorrelated else loss:.3f}",
            *(_percent(record[name][measure]) for name in _EMBEDDINGS for measure in (*_MEASURES, "mAP_market")),
        ]
        rows.append(_Row(border_name(record), cells, faint=decorrelated))
    return rows


def _comparison_rows(records: Sequence[Record], control: Sequence[Record]) -> list[_Row]:
    """Returns both runs side by side, one row per round that both have done."""
    rows = []
    for ours, theirs in zip(after_rounds(records), after_rounds(control), strict=False):
        cells = [f"{ours['correlation']:.3f}", f"{theirs['correlation']:.3f}"]
        for name in _EMBEDDINGS:
            for measure in _MEASURES:
                cells += [_percent(ours[name][measure]), _percent(theirs[name][measure])]
        rows.append(_Row(border_name(ours), cells))
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
