"""Events for TensorBoard: what is in the log is in them, once."""

import struct

import pytest
from fake_run import fake_run

from svdnet_jax.config.schema import Config, Log
from svdnet_jax.config.serialize import RESUMABLE_FIELDS, diff, to_json
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting import tensorboard
from svdnet_jax.reporting.log import scalars
from svdnet_jax.reporting.tensorboard import event_file
from svdnet_jax.runs.training import preflight

pytest.importorskip("tensorboardX")


def events(folder):
    """All events of a folder by its files, read as TensorBoard does: length, checksum, content, checksum."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event, (sum_,) = content[12 : 12 + length], struct.unpack("<I", content[12 + length : 16 + length])
            crc = crc32c(event)
            assert sum_ == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            found.append(Event.FromString(event))
            content = content[16 + length :]
    return found


def points(folder):
    """(name, step, value) of all points."""
    return [(v.tag, e.step, v.simple_value) for e in events(folder) for v in e.summary.value]


def expected(records):
    return [(name, r["step"], pytest.approx(value, rel=1e-6)) for r in records for name, value in scalars(r).items()]


def test_every_number_of_the_log_is_a_point_under_its_name(tmp_path):
    records = fake_run(rounds=1)
    with event_file(tmp_path / "tensorboard", []) as write:
        for record in records:
            write(record)
        assert points(tmp_path / "tensorboard") == expected(records)  # each at once, not when the file is closed
    names = {name for name, *_ in points(tmp_path / "tensorboard")}
    assert names >= {"step/loss", "step/images_per_second", "phase/embedding.mAP", "decorrelate/correlation.after"}
    assert not {name for name in names if name.endswith(("/step", "/round"))}


def test_a_run_that_goes_on_leaves_no_point_twice(tmp_path):
    """The log was cut after 12 lines: what the killed process wrote of later ones is gone, a stranger's file is not."""
    from tensorboardX.proto.event_pb2 import SessionLog

    records, folder = fake_run(rounds=1), tmp_path / "tensorboard"
    with event_file(folder, []) as write:
        for record in records[:20]:
            write(record)
    (first,) = folder.iterdir()
    first.rename(folder / "events.out.tfevents.1700000000.host.svdnet_jax")  # else of the same second, and so the same
    stranger = folder / "events.out.tfevents.1.host"
    stranger.write_bytes(b"")
    with event_file(folder, records[:12]) as write:
        for record in [{"event": "resume", "step": 330}, *records[12:]]:
            write(record)
    assert points(folder) == expected(records)
    assert stranger.exists()
    # What a TensorBoard has read of the first file does not count any more.
    assert [e.session_log.status for e in events(folder) if e.HasField("session_log")] == [SessionLog.START]


def test_it_is_refused_with_the_line_that_mends_it(monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    preflight(Config())
    with pytest.raises(ConfigError, match=r"`log.tensorboard`: needs tensorboardX: pip install 'svdnet-jax\[tensor"):
        preflight(Config(log=Log(tensorboard=True)))


def test_a_run_may_go_on_with_it_also_one_that_older_code_began():
    settings = to_json(Config(log=Log(tensorboard=True)))
    older = {name: value for name, value in to_json(Config()).items() if name != "log"}
    for stored in (older, to_json(Config())):
        changed = diff(stored, settings)
        assert len(changed) == 1
        assert changed[0].startswith(RESUMABLE_FIELDS)
