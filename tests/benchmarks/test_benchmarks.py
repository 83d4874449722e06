"""Benchmarks run, their contenders agree, and docs/benchmarks.md holds what they measured."""

from pathlib import Path

import pytest

from benchmarks import contenders, retrieval
from benchmarks.features import market_sized
from benchmarks.table import drawn, keep_rows, read_rows, table

ROOT = Path(__file__).parents[2]
SIZE = {"queries": 60, "gallery": 400, "people": 15, "dimensions": 64}


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("benchmarks*.md")), ids=lambda path: path.name)
def test_the_tables_come_from_the_stored_rows(path):
    text = path.read_text()
    assert "<!-- tables " in text
    assert drawn(text, ROOT) == text


# What float32 costs on either side, without moving the features to their mean.
@pytest.mark.parametrize(("task", "tolerance"), [("evaluation", 1e-4), ("rerank", 1e-4), ("search", 1e-4)])
def test_contenders_agree(task, tolerance):
    query, gallery = market_sized(**SIZE)
    found = {}
    for name, make in getattr(contenders, task)(None).items():
        if "torchreid" not in name:  # where it is installed, that is a matter of minutes
            found[name] = make(query, gallery)()
    found = {name: numbers for name, numbers in found.items() if numbers}
    assert len(found) > 1
    for numbers in found.values():
        for key, value in numbers.items():
            assert value == pytest.approx(found["svdnet_jax"][key], rel=tolerance), key


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are measured on Linux")
def test_rows_take_the_place_of_those_of_the_same_task_and_size(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    for share in (0.01, 0.02, 0.01):
        options = retrieval.Options(tasks=("evaluation",), share=share, out=out)
        size = {"queries": round(3368 * share), "gallery": round(19732 * share), "people": round(750 * share)}
        row = {"task": "evaluation", "name": "svdnet_jax"} | size
        measured = retrieval.measure("evaluation", "svdnet_jax", size, None, 1)
        assert retrieval._sizes(options) == [("evaluation", size)]
        keep_rows([row | measured], out, retrieval.KEYS)
    rows = read_rows(out)
    assert [row["gallery"] for row in rows] == [395, 197]
    assert all(row["seconds"] > 0 and row["memory"] >= 0 for row in rows)
    assert table(rows).count("| svdnet_jax |") == 2
