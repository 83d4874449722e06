"""The study of the rotation: its variants, its intervals, and that the document is what its lines say."""

import re
from pathlib import Path

import numpy as np
import pytest

from svdnet_jax.config.validate import validate
from svdnet_jax.reporting.log import read_log
from svdnet_jax.studies import decorrelation, rotation, study

DOCS = Path(__file__).parents[2] / "docs"
STORED = DOCS / "runs" / "market-h200" / "rotation.jsonl"


def test_the_document_is_what_the_stored_lines_say():
    (table,) = re.findall(
        r"<!-- table runs/market-h200/rotation\.jsonl -->\n```\n(.*?)\n```", (DOCS / "results.md").read_text(), re.S
    )
    assert table == study.text(rotation.STUDY, read_log(STORED))


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
    """Of each run: its mAP and rank-1 are the sums of all identities over their queries."""
    lines = read_log(STORED)
    sums = [line for line in lines if line["event"] == "identities"]
    assert len(sums) == 9
    for line in sums:
        run = [r for r in lines if (r["variant"], r["seed"]) == (line["variant"], line["seed"])]
        last = [r for r in run if r["event"] == "phase"][-1]
        for kind in rotation.KINDS:
            for measure in rotation.MEASURES:
                mean = np.sum(line[kind][measure]) / np.sum(line["queries"])
                # bfloat16 and another batch size: the embeddings of the log were computed once more.
                assert mean == pytest.approx(last[kind][measure], abs=1e-3)


def test_differences_are_those_of_hand_made_runs():
    """Two seeds, three identities: +10 and +20 points of mAP."""
    lines = []
    for variant, gains in {"none": (0.0, 0.0), "us": (0.1, 0.2)}.items():
        for seed, gain in enumerate(gains):
            numbers = {"rank1": 0.5, "mAP": 0.3 + gain}
            shared = {"variant": variant, "seed": seed}
            lines.append(
                {"event": "phase", "phase": "base", "round": 0, "embedding": numbers, "pooled": numbers} | shared
            )
            lines.append(
                {"event": "phase", "phase": "relaxation", "round": 1, "embedding": numbers, "pooled": numbers} | shared
            )
            of_each = {"rank1": [1.0, 1.0, 2.0], "mAP": [2 * (0.3 + gain), 2 * (0.3 + gain), 4 * (0.3 + gain)]}
            sums = {"event": "identities", "queries": [2, 2, 4], "embedding": of_each, "pooled": of_each}
            lines.append(sums | shared)
    rows = {(row[0], row[1]): row[2:] for row in rotation.differences(lines, 1)}
    seeds, people = rows["U S - nothing (control)", "embedding mAP"]
    # 12.706 is Student's t for one degree of freedom; the standard error is 5.
    assert seeds == "  +15.0 [-48.5, +78.5]"
    assert people == "  +15.0 [+15.0, +15.0]", "all identities gain alike"
    assert rows["U S - nothing (control)", "pooled rank1"][0] == "  +0.0 [+0.0, +0.0]"
