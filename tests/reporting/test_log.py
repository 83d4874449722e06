"""The log: what is written is read, a resumed log is the unbroken one, nothing but JSON gets in."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from fake_run import fake_run
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax.errors import LogError
from svdnet_jax.reporting.log import (
    after_rounds,
    border_name,
    borders,
    check_records,
    is_measured,
    open_log,
    other_sets,
    read_log,
)


def write_all(path, records):
    log = open_log(path, None)
    for record in records:
        log.write(record)
    return log


def test_what_is_written_is_read(tmp_path):
    records = fake_run(rounds=2)
    write_all(tmp_path / "metrics.jsonl", records)
    assert read_log(tmp_path / "metrics.jsonl") == records
    lines = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == records
    assert not any(line.endswith(b"\r") for line in lines)


def test_each_line_is_in_the_file_at_once(tmp_path):
    log = open_log(tmp_path / "metrics.jsonl", None)
    for count in range(1, 4):
        log.write({"event": "step", "step": count})
        assert len(read_log(log.path)) == count


def test_scalars_of_numpy_and_jax_become_numbers(tmp_path):
    log = open_log(tmp_path / "metrics.jsonl", None)
    log.write({"event": "step", "step": np.int64(3), "loss": jnp.float32(0.5), "ok": np.bool_(True)})
    (record,) = read_log(log.path)
    assert record == {"event": "step", "step": 3, "loss": 0.5, "ok": True}


# What a process may have left behind its last checkpoint: nothing, whole lines, or part of one.
@settings(deadline=None, max_examples=40)  # each example writes to the disk
@given(kept=st.integers(1, 20), lost=st.integers(0, 5), torn=st.integers(0, 30))
def test_a_resumed_log_reads_as_the_unbroken_one(tmp_path_factory, kept, lost, torn):
    records = fake_run(rounds=2)
    folder = tmp_path_factory.mktemp("log")
    unbroken = write_all(folder / "unbroken.jsonl", records)
    log = write_all(folder / "broken.jsonl", records[:kept])
    offset, expected = log.offset, log.hash
    for record in records[kept : kept + lost]:
        log.write(record)
    with log.path.open("ab") as file:
        file.write(json.dumps(records[kept + lost]).encode()[:torn])
    resumed = open_log(log.path, offset, expected)
    assert (resumed.offset, resumed.hash) == (offset, expected)
    for record in records[kept:]:
        resumed.write(record)
    assert resumed.path.read_bytes() == unbroken.path.read_bytes()


def test_a_new_log_forgets_what_was_written_before_the_first_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "start"}\n{"event": "st')
    assert open_log(path, None).offset == 0


@pytest.mark.parametrize("offset", [5, 1000])
def test_a_log_that_is_not_the_checkpoints_is_refused_and_left_alone(tmp_path, offset):
    log = write_all(tmp_path / "metrics.jsonl", fake_run(rounds=1)[:2])
    before = log.path.read_bytes()
    with pytest.raises(LogError, match=r"metrics\.jsonl.*(1000 bytes|byte 5).*`out`"):
        open_log(log.path, offset)
    assert log.path.read_bytes() == before


def test_a_log_that_was_changed_before_the_checkpoint_is_refused_and_left_alone(tmp_path):
    """One bit anywhere in what the checkpoint was taken with; what comes after it is cut anyhow."""
    log = write_all(tmp_path / "metrics.jsonl", fake_run(rounds=1)[:3])
    offset, expected = log.offset, log.hash
    log.write({"event": "step", "step": 4})
    content = log.path.read_bytes()
    for place in range(0, offset - 1, 17):
        changed = bytearray(content)
        changed[place] ^= 1
        log.path.write_bytes(changed)
        with pytest.raises(LogError, match=rf"metrics\.jsonl: was changed: its first {offset} bytes.*copy.*`out`"):
            open_log(log.path, offset, expected)
        assert log.path.read_bytes() == changed
        open_log(log.path, offset)  # as from a checkpoint of an older version
    log.path.write_bytes(content[:offset] + b"X" + content[offset + 1 :])
    assert open_log(log.path, offset, expected).hash == expected


def test_a_log_is_not_emptied_when_its_checkpoints_are_gone(tmp_path):
    """A run that died between the line of its first phase and its first checkpoint begins anew; no other does."""
    records = fake_run(rounds=1)
    first = next(n for n, record in enumerate(records) if record["event"] == "phase")
    path = write_all(tmp_path / "metrics.jsonl", records[: first + 1]).path
    assert open_log(path, None).offset == 0
    before = write_all(path, records[: first + 2]).path.read_bytes()
    with pytest.raises(LogError, match="there is none to go on from.*Nothing was changed.*`out`"):
        open_log(path, None)
    assert path.read_bytes() == before


def test_a_line_that_is_being_written_is_looked_at_again(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "start"}\n{"event": "st')

    def end_it(seconds):
        path.write_bytes(b'{"event": "start"}\n{"event": "step"}\n')

    monkeypatch.setattr("svdnet_jax.reporting.log.time.sleep", end_it)
    assert [record["event"] for record in read_log(path)] == ["start", "step"]


def test_a_missing_log_is_refused_on_resume(tmp_path):
    with pytest.raises(LogError, match="found 0"):
        open_log(tmp_path / "metrics.jsonl", 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), jnp.float32("inf")])
def test_what_is_not_finite_is_refused_by_name_and_nothing_is_written(tmp_path, value):
    log = open_log(tmp_path / "metrics.jsonl", None)
    record = {"event": "phase", "step": 7, "pooled": {"mAP": [0.5, value]}}
    with pytest.raises(LogError, match=r"metrics\.jsonl: phase line at step 7.*pooled\.mAP\[1\]"):
        log.write(record)
    assert log.path.read_bytes() == b""


def test_what_json_does_not_know_is_refused_by_name(tmp_path):
    log = open_log(tmp_path / "metrics.jsonl", None)
    with pytest.raises(LogError, match="loss is a ndarray"):
        log.write({"event": "step", "loss": np.zeros(3)})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"event": "step", "loss": 0.\n', "not a line of JSON"),
        (b'{"event": "step", "loss": NaN}\n', "NaN is not JSON"),
        (b"[1, 2]\n", 'expected an object with "event"'),
        (b'{"loss": 1}\n', 'expected an object with "event"'),
        (b"\xff\n", "not a line of JSON"),
        (b'{"event": "step"}', "has no end"),
    ],
)
def test_a_broken_line_is_named_with_file_and_number(tmp_path, line, reason):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "start"}\n' + line)
    with pytest.raises(LogError, match=rf"metrics\.jsonl:2: .*{reason}"):
        read_log(path)


def with_others(records, others):
    start, *rest = records
    rest = [record | ({"others": others} if record["event"] == "phase" else {}) for record in rest]
    return [start, *rest]


def test_lines_on_further_test_sets_have_their_numbers(tmp_path):
    run = fake_run(rounds=1)
    measured = {name: {"rank1": 0.25, "mAP": 0.5, "mAP_market": 0.5} for name in ("embedding", "pooled")}
    records = with_others(run, {"duke": measured})
    check_records(tmp_path, records)
    assert other_sets(run) == {}
    lines = other_sets(records)["duke"]
    assert [border_name(line) for line in lines] == ["base", "1 restraint", "1 relaxation"]
    assert [line["pooled"]["rank1"] for line in lines] == [0.25] * 3
    assert [line["loss"] for line in lines] == [record["loss"] for record in run if record["event"] == "phase"]


@pytest.mark.parametrize("others", [{"duke": {"embedding": 7}}, {"duke": []}, ["duke"], {"duke": {}}])
def test_damaged_lines_on_further_test_sets_are_refused(others, tmp_path):
    with pytest.raises(LogError, match="a line `phase` has no (others|embedding.rank1 on duke) that can be used"):
        check_records(tmp_path, with_others(fake_run(rounds=1), others))


def test_a_restraint_may_go_without_an_evaluation_and_nothing_else_may(tmp_path):
    records = fake_run(rounds=1, evaluate_restraint=False)
    check_records(tmp_path, records)
    place = next(n for n, r in enumerate(records) if not is_measured(r))
    for damaged in ({**records[place], "loss": 1.0}, {**records[place], "phase": "relaxation"}):
        with pytest.raises(LogError, match="a line `phase` has no"):
            check_records(tmp_path, [*records[:place], damaged, *records[place + 1 :]])
    steps = [{k: v for k, v in r.items() if r["event"] != "step" or k not in ("loss", "accuracy")} for r in records]
    with pytest.raises(LogError, match="a line `step` has no loss"):
        check_records(tmp_path, steps)


def test_borders_and_their_names():
    names = ["base", "1 W = US", "1 restraint", "1 relaxation"]
    assert [border_name(r) for r in borders(fake_run(rounds=1))] == names
    control = fake_run(rounds=1, method="none")
    assert [border_name(r) for r in borders(control)] == ["base", "1 restraint", "1 relaxation"]
    assert [border_name(r) for r in after_rounds(control)] == ["base", "1 relaxation"]
