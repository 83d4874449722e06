"""The report of a run: one HTML file with everything in it, to open offline or send to someone.

No script, nothing loaded from elsewhere: a content security policy in the page has the browser
refuse both.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from svdnet_jax.outputs import write_whole
from svdnet_jax.reporting.log import Record, after_rounds, border_name, borders
from svdnet_jax.reporting.terminal import duration, printable

_EMBEDDINGS = ("embedding", "pooled")
_MEASURES = ("rank1", "mAP", "mAP_market")
_NAMES = {"rank1": "rank-1", "mAP": "mAP", "mAP_market": "mAP_market"}


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

    Raises:
        ValueError: No phase of the run has ended, so there is nothing to report.
    """
    if not after_rounds(records):
        raise ValueError("no phase of the run has ended yet: there is no result to report")
    body = [
        _headline(records, control),
        _definition_list(facts),
        "<h2>Results at the border of each phase</h2>",
        _border_table(records),
        _DEFINITIONS,
    ]
    if control:
        body += ["<h2>Beside the control</h2>", _CONTROL, _comparison(records, control)]
    body.append("<h2>Figures</h2>")
    body += [_figure(caption, file) for caption, file in figures.items()]
    body.append("<h2>Details</h2>")
    last = after_rounds(records)[-1]
    measures = _flatten({name: last[name] for name in _EMBEDDINGS})
    body.append(_details("All measures", {k: f"{_percent(v)} %" for k, v in measures.items()}))
    body.append(_details("Settings", _flatten(config)))
    body.append(_details("Environment", _flatten(environment)))
    page = Template(_PAGE).substitute(title=escape(title), body="\n".join(body))
    write_whole(path, printable(page).encode())


def _headline(records: Sequence[Record], control: Sequence[Record] | None) -> str:
    """Returns the last numbers in large type, base and control under them, and how the run ended."""
    judged = after_rounds(records)
    first, last = judged[0], judged[-1]
    # A control that ran for fewer or more rounds is compared at the same round, or not at all.
    others = [r for r in after_rounds(control or ()) if r["round"] == last["round"]]
    cards = []
    for name in _EMBEDDINGS:
        for measure in ("rank1", "mAP"):
            value, *beside = (f"{_percent(r[name][measure])} %" for r in (last, first, *others))
            cards.append(_card(f"{name}: {_NAMES[measure]}", value, beside))
    value, *beside = (f"{r['correlation']:.3f}" for r in (last, first, *others))
    cards.append(_card("S(W)", value, beside))
    return f'<div class="cards">{"".join(cards)}</div>\n<p class="note">{_state(records)}</p>'


def _state(records: Sequence[Record]) -> str:
    last = after_rounds(records)[-1]
    kind = "final restraint" if last["phase"] == "final" else last["phase"]
    place = f"the {kind} of round {last['round']}" if last["round"] else "the base (Step 0)"
    ends = [r for r in records if r["event"] == "end"]
    if not ends:
        return f"The run has not ended. The values are those after {place}."
    why = {"maximum": "all rounds were done", "stable": "S(W) after relaxation was stable"}
    return (
        f"Values after {place}, the last of the run, which ended after {ends[-1]['step']} steps "
        f"and {duration(ends[-1]['seconds'])} of training: {why[ends[-1]['stopped']]}."
    )


def _border_table(records: Sequence[Record]) -> str:
    """Returns the table of S(W), loss and both embeddings, one row per border."""
    rows = []
    for record in borders(records):
        decorrelated = record["event"] == "decorrelate"
        correlation, loss = record["correlation"], record["loss"]
        cells = [
            f"{correlation['after'] if decorrelated else correlation:.3f}",
            f"{loss['after'] if decorrelated else loss:.3f}",
            *(_percent(record[name][measure]) for name in _EMBEDDINGS for measure in _MEASURES),
        ]
        rows.append(_row(border_name(record), cells, "faint" if decorrelated else ""))
    heads = ["S(W)", "loss", *(_NAMES[measure] for _ in _EMBEDDINGS for measure in _MEASURES)]
    groups = [("", 3), ("embedding", 3), ("pooled", 3)]
    return _table(groups, ["phase", *heads], rows)


def _comparison(records: Sequence[Record], control: Sequence[Record]) -> str:
    """Returns the table of both runs side by side, one row per round that both have done."""
    rows = []
    for ours, theirs in zip(after_rounds(records), after_rounds(control), strict=False):
        cells = [f"{ours['correlation']:.3f}", f"{theirs['correlation']:.3f}"]
        for name in _EMBEDDINGS:
            for measure in ("rank1", "mAP"):
                cells += [_percent(ours[name][measure]), _percent(theirs[name][measure])]
        rows.append(_row(border_name(ours), cells))
    groups = [("", 1), ("S(W)", 2)]
    groups += [(f"{n} {_NAMES[m]}", 2) for n in _EMBEDDINGS for m in ("rank1", "mAP")]
    return _table(groups, ["phase", *["RRI", "control"] * 5], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _card(name: str, value: str, beside: Sequence[str]) -> str:
    """Returns one large number; `beside` holds the base's value and, if known, the control's."""
    compared = "".join(
        f'<div class="beside">{who} {escape(other)}</div>'
        for who, other in zip(("base", "control"), beside, strict=False)
    )
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div>{compared}</div>'
    )


def _row(name: str, cells: Iterable[str], kind: str = "") -> str:
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{values}</tr>'


def _table(groups: Iterable[tuple[str, int]], heads: Iterable[str], rows: Iterable[str]) -> str:
    above = "".join(f'<th colspan="{span}"><span>{escape(name)}</span></th>' for name, span in groups)
    below = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return (
        f'<div class="wide"><table class="numbers"><thead><tr class="groups">{above}</tr>'
        f"<tr>{below}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _definition_list(facts: Mapping[str, str]) -> str:
    items = (f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def _figure(caption: str, file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _details(name: str, values: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in values.items())
    return f'<details><summary>{escape(name)}</summary><table class="pairs">{rows}</table></details>'


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns dotted names -> values, as the options on the command line are called."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


_DEFINITIONS = """<p class="note">S(W) = Σ<sub>i</sub> g<sub>ii</sub> / Σ<sub>i</sub>Σ<sub>j</sub>
|g<sub>ij</sub>| with G = WᵀW says how far the D columns of the Eigenlayer's weight W are from
parallel: 1 if they are orthogonal, 1/D if they are all parallel and of one length. W = US is the
decorrelation by SVD, which leaves distances between embeddings as they are. <em>embedding</em> is
the Eigenlayer's output, <em>pooled</em> its input. rank-1 and mAP are in per cent. <em>mAP</em> is
the mean of the plain average precision, the definition of today's toolkits; <em>mAP_market</em>
takes the trapezoid rule (at each hit the mean of two neighbouring precisions), the definition of
Market-1501's own code and of the 2017 papers. Loss is the cross-entropy on training images without
dropout.</p>"""

_CONTROL = """<p class="note">The control trains for the same steps at the same learning rates without
any decorrelation: what it gains, training longer gains by itself. This is one run of each; small
differences may be chance.</p>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light; --ink: #1d2129; --soft: #5c6370; --line: #dfe2e8; --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; color: var(--ink);
       background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1.5rem; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem;
     border-bottom: 1px solid var(--line); }
.cards { display: grid; gap: .75rem;
         grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); }
.card { border: 1px solid var(--line); border-top: 3px solid var(--mark); border-radius: 4px;
        padding: .7rem .9rem; }
.card .name, .card .beside { color: var(--soft); font-size: .82rem; }
.card .value { font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums;
               white-space: nowrap; }
.note { color: var(--soft); font-size: .9rem; }
dl { display: grid; gap: .25rem 1.25rem; grid-template-columns: max-content 1fr;
     font-size: .95rem; }
dt { color: var(--soft); } dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
.numbers { width: 100%; font-variant-numeric: tabular-nums; }
.numbers th, .numbers td { padding: .32rem .6rem; text-align: right; white-space: nowrap; }
.numbers th:first-child { text-align: left; }
.numbers thead th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--ink); }
.numbers .groups th { text-align: center; border: 0; color: var(--ink); padding-bottom: 0; }
.numbers .groups span:not(:empty) { display: block; margin-left: 1rem;
                                    border-bottom: 1px solid var(--line); }
.numbers tbody th { font-weight: 500; }
.numbers tbody tr { border-bottom: 1px solid var(--line); }
.numbers .faint { color: var(--soft); font-style: italic; }
figure { margin: 1.75rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
details { margin: .5rem 0; } summary { cursor: pointer; }
.pairs { margin: .5rem 0 1rem; }
.pairs th, .pairs td { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0;
                       font: .82rem/1.45 ui-monospace, "Cascadia Mono", Menlo, monospace;
                       overflow-wrap: anywhere; }
.pairs th { color: var(--soft); }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
"""
