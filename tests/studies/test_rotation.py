"""The study of the rotation: its variants, its intervals, and that the document is what its lines say."""

import re
from pathlib import Path

import numpy as np
import pytest

from svdnet_jax.config.validate import validate
from svdnet_jax.reporting.log import read_log
from svdnet_jax.retrieval.intervals import ByIdentity
from svdnet_jax.studies import decorrelation, rotation, study, summary

DOCS = Path(__file__).parents[2] / "docs"
STORED = DOCS / "runs" / "market-h200" / "rotation.jsonl"


@pytest.mark.parametrize("place", ["runs/market-h200/rotation.jsonl", "runs/market-cpu/held-out.jsonl"])
def test_the_document_is_what_the_stored_lines_say(place):
    shown = rf"<!-- table {re.escape(place)} -->\n```\n(.*?)\n```"
    (table,) = re.findall(shown, (DOCS / "results.md").read_text(), re.S)
    assert table == study.text(rotation.STUDY, read_log(DOCS / place))


def test_variants_are_the_two_by_two_by_two_and_the_control():
    found = rotation.variants(rotation.Options())
    for config in found.values():
        validate(config)
    said = {(run.rri.method, run.rri.match, run.rri.rotate_classifier) for run in found.values()}
    corners = {
        (m, matched, turned) for m in ("us", "rotation") for matched in (True, False) for turned in (True, False)
    }
    assert said == corners | {("none", True, False)}
    others = decorrelation.variants(decorrelation.Options())
    for name in found.keys() & others.keys():
        assert found[name] == others[name], "runs of one name are shared among studies"


def test_sums_of_identities_give_the_numbers_of_the_log():
    """Of each variant: its mAP and rank-1, mean over the seeds, are the sums of all identities over their queries."""
    lines = read_log(STORED)
    sums = [line for line in lines if line["event"] == "identities"]
    assert len(sums) == 3
    for line in sums:
        last = summary.at_round(lines, line["variant"], line["round"])
        for kind in ("embedding", "pooled"):
            found = ByIdentity.from_json(line[kind])
            for measure in ("rank1", "mAP"):
                mean = found.sums[measure].sum() / found.queries.sum()
                # bfloat16 and another batch size: the embeddings of the log were computed once more.
                assert 100 * mean == pytest.approx(summary.values(last, kind, measure).mean(), abs=0.1)


def test_differences_are_those_of_hand_made_runs():
    """Two seeds, three identities: +10 and +20 points of mAP."""
    lines = []
    for variant, gains in {"none": (0.0, 0.0), "us": (0.1, 0.2)}.items():
        shared = {"variant": variant}
        for seed, gain in enumerate(gains):
            numbers = {"rank1": 0.5, "mAP": 0.3 + gain}
            for phase, number in (("base", 0), ("relaxation", 1)):
                line = {"event": "phase", "phase": phase, "round": number, "embedding": numbers, "pooled": numbers}
                lines.append(line | shared | {"seed": seed})
        mean = 0.3 + np.mean(gains)
        sums = {"rank1": np.array([1.0, 1.0, 2.0]), "mAP": mean * np.array([2.0, 2.0, 4.0])}
        kept = ByIdentity(np.arange(1, 4), np.array([2, 2, 4]), sums).to_json()
        lines.append({"event": "identities", "round": 1, "seed": None, "embedding": kept, "pooled": kept, **shared})
    (row,) = summary.differences(lines, {"U S - control": ("us", "none")}, 1).values()
    texts = dict(zip(summary.DIFFERENT, map(str, row), strict=True))
    # 12.706 is Student's t for one degree of freedom; the standard error is 5. All identities gain alike.
    assert texts["mAP"] == "+15.0 [-48.5, +78.5] [+15.0, +15.0]"
    assert texts["rank-1"] == "+0.0 [+0.0, +0.0] [+0.0, +0.0]"
