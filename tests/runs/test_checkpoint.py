"""Checkpoints: under any name of a folder, verified when they are read, and read beside a run that goes on."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import to_json
from svdnet_jax.errors import CheckpointError, ConfigError
from svdnet_jax.runs import checkpoint
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.restore import (
    RunPosition,
    checkpoint_metric,
    position_to_json,
    read_latest,
    read_patiently,
)
from svdnet_jax.training.state import Cursor, TrainState

PLACE = RunPosition("0123456789abcdef", 3, step=5, log_offset=7)


def state_at(step):
    """A state of a few numbers."""
    zero = jnp.zeros((), jnp.int32)
    # Large enough for a file of its own; what is smaller lies among names, which orbax does checksum.
    weights = jax.random.normal(jax.random.key(step), (64, 50))
    return TrainState(
        params={"eigenlayer": {"kernel": weights}},
        batch_stats={},
        pixels={"mean": jnp.ones(3)},
        opt_state=(weights / 2,),
        step=zero + step,
        rng=jax.random.key(1),
        cursor=Cursor(zero, zero, jnp.float32(0.5)),
    )


def like(config, place):
    return state_at(0)


def metadata(step):
    return {"config": to_json(Config()), "place": position_to_json(PLACE._replace(step=step))}


def write(folder, steps=(1, 2)):
    with checkpoint.open_checkpoints(folder, checkpoint_metric) as saved:
        for step in steps:
            checkpoint.save(saved, state_at(step), metadata(step), {"mAP": 1 / step})
    return folder


def read(folder):
    with checkpoint.open_checkpoints(folder, checkpoint_metric, read_only=True) as saved:
        return read_latest(saved, like)


def plain(state):
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Checkpoints of steps 1 and 2."""
    return write(tmp_path_factory.mktemp("run") / "checkpoints")


NAMES = [
    "lr[0.1]",
    "a\\b",
    "gs:",
    "*",
    "a?",
    "~",
    "-x",
    "%20",
    "a\nb",
    "漢字 é",
    b"\xff".decode("utf8", "surrogateescape"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_checkpoints_are_read_from_a_folder_of_any_name(tmp_path, name):
    """Orbax by itself reads none from the first three, and looks into folders beside the fourth and fifth."""
    folder = write(tmp_path / name / "checkpoints", steps=(4,))
    found = read(folder)
    chex.assert_trees_all_equal(plain(found.state), plain(state_at(4)))
    assert found.verified
    assert found.position.step == 4
    moved = shutil.move(tmp_path / name, tmp_path / "moved")
    chex.assert_trees_all_equal(plain(read(Path(moved) / "checkpoints").state), plain(state_at(4)))


def test_a_name_that_orbax_cannot_take_is_refused_where_no_link_can_be_made(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("links are not possible here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(ConfigError, match=r"x\[0\].*links are not possible here.*letters, digits"):
        write(tmp_path / "x[0]" / "checkpoints")


def test_the_first_checkpoint_is_read_back(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(checkpoint, "restore", lambda saved, step, like: reads.append(step))
    write(tmp_path / "a")
    write(tmp_path / "a", steps=(3,))
    assert reads == [1]

    def broken(saved, step, like):
        raise CheckpointError(step, "its numbers are not those that were saved")

    monkeypatch.setattr(checkpoint, "restore", broken)
    with pytest.raises(ConfigError, match=r"b/1: the checkpoint was written and then read back.*its numbers.*`out`"):
        write(tmp_path / "b")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_flipped_bit_is_refused_or_does_no_harm(two, tmp_path):
    """Anywhere in the latest checkpoint, in every file of it."""
    chance = random.Random(0)
    refused = []
    names = [path.relative_to(two) for path in files(two / "2")]
    data = [name for name in names if "d" in name.parts]
    assert data
    for number, name in enumerate([*names, *data * 10]):
        folder = Path(shutil.copytree(two, tmp_path / str(number)))
        content = bytearray((folder / name).read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (folder / name).write_bytes(content)
        try:
            found = read(folder)
        except ConfigError as error:
            refused.append(str(error))
            continue
        chex.assert_trees_all_equal(plain(found.state), plain(state_at(2)))
        assert found.position == PLACE._replace(step=2)
    assert len(refused) > len(data)
    assert all("damaged" in text or "another version" in text for text in refused)


def change(folder, step, old, new):
    """Other text in what a checkpoint holds beside its state."""
    path = folder / str(step) / "_CHECKPOINT_METADATA"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def hash_of(folder, step):
    return json.loads((folder / str(step) / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]["sha256"]["state"]


def test_other_numbers_are_refused_and_the_sound_checkpoint_is_named(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "checkpoints"))
    for path in files(two / "1" / "state"):  # the data of another step under this one's name
        shutil.copy(path, folder / "2" / path.relative_to(two / "1"))
    with pytest.raises(CheckpointError, match=r"checkpoints/2: .*damaged.*go on from step 1, whose") as refused:
        read(folder)
    assert refused.value.step == 2
    shutil.rmtree(folder / "2")  # what the message says
    chex.assert_trees_all_equal(plain(read(folder).state), plain(state_at(1)))


def test_a_changed_place_is_refused(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "checkpoints"))
    change(folder, 2, '"log_offset": 7', '"log_offset": 6')
    change(folder, 1, '"log_offset": 7', '"log_offset": 6')
    with pytest.raises(CheckpointError, match=r"place in the run are not those.*no other one to go on from.*`out`"):
        read(folder)


def test_a_latest_checkpoint_that_is_not_whole_is_not_passed_over(two, tmp_path):
    refused = []
    for number, path in enumerate(files(two / "2")):
        folder = Path(shutil.copytree(two, tmp_path / str(number)))
        (folder / path.relative_to(two)).unlink()
        try:
            found = read(folder)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        chex.assert_trees_all_equal(plain(found.state), plain(state_at(2)))
    assert len(refused) > 3
    assert all("go on from step 1" in text for text in refused)
    folder = Path(shutil.copytree(two, tmp_path / "empty"))
    (folder / "3").mkdir()
    with pytest.raises(CheckpointError, match="empty/3: .*go on from step 2"):
        read(folder)
    (folder / "4").write_text("")  # orbax does not see it
    with pytest.raises(CheckpointError, match="empty/4: the checkpoint is not complete.*go on from step 2"):
        read(folder)


def test_a_checkpoint_of_an_older_version_is_read_and_said_to_be_unverified(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "checkpoints"))
    path = folder / "2" / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text())
    del content["custom_metadata"]["sha256"]
    for name in ("log_hash", "unreported"):
        del content["custom_metadata"]["place"][name]
    path.write_text(json.dumps(content))
    found = read(folder)
    assert not found.verified
    chex.assert_trees_all_equal(plain(found.state), plain(state_at(2)))


def test_the_hash_is_of_every_number_and_of_where_it_is():
    state = state_at(1)
    others = [
        state.replace(rng=jax.random.key(2)),
        state.replace(params={"eigenlayer": {"other": state.eigenlayer}}),
        state.replace(params={"eigenlayer": {"kernel": state.eigenlayer.T}}),
        state.replace(pixels={"mean": -state.pixels["mean"]}),
        state.replace(opt_state=(state.opt_state[0].at[5, 4].add(1e-6),)),
    ]
    assert len({checkpoint.state_hash(each) for each in [state, *others, state_at(1)]}) == 1 + len(others)


def test_a_reader_looks_again_when_the_run_has_gone_on(tmp_path):
    """A checkpoint that the run takes away while it is being read is not damaged."""
    write(tmp_path / "checkpoints", steps=(1,))
    looks = []

    def look(saved):
        looks.append(checkpoint.steps(saved))
        if len(looks) == 1:  # the run goes on meanwhile
            os.rename(tmp_path / "checkpoints" / "1", tmp_path / "gone")
            write(tmp_path / "checkpoints", steps=(2,))
        return read_latest(saved, like)

    found = read_patiently(RunDir(tmp_path), look)
    chex.assert_trees_all_equal(plain(found.state), plain(state_at(2)))
    assert looks == [[1], [2]]


def test_a_reader_does_not_wait_for_what_stands_still(two, tmp_path):
    folder = Path(shutil.copytree(two, tmp_path / "checkpoints"))
    change(folder, 2, hash_of(two, 2), "0" * 64)
    looks = []
    with pytest.raises(CheckpointError, match="go on from step 1"):
        read_patiently(RunDir(tmp_path), lambda saved: looks.append(0) or read_latest(saved, like))
    assert len(looks) == 1


@pytest.mark.parametrize("content", [b"{", b"\xff", b"["])
def test_damaged_metrics_are_named_and_taking_them_away_helps(two, tmp_path, content):
    folder = shutil.copytree(two, tmp_path / "copy")
    (first, *_) = sorted(folder.glob("*/metrics/metrics"))
    first.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{re.escape(str(first))}: is damaged .*Take its folder away"):
        read(folder)
    shutil.rmtree(first.parent)
    assert read(folder).position.step == 2
