"""Seeded fuzzing: whatever bytes lie in a file, its reader returns or ends in an error for people, and soon.

A longer run: pytest -m slow tests/test_hostile.py
"""

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from fake_run import fake_run

from svdnet_jax.config.serialize import from_json
from svdnet_jax.data.cache import read_prepared, write_prepared
from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import ConfigError, DataError, LogError
from svdnet_jax.reporting.log import check_records, read_log
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import build_index, load_index, save_index
from svdnet_jax.runs.directory import RunDir, load_eigenlayer, read_environment, read_settings

REFUSALS = (ValueError, OSError, ConfigError, DataError, LogError)
SHAPES = [
    b"(1000000000, 1000000000)",
    b"(1000000000, 0)",
    b"(-1,)",
    b"(9,)*9",
    b"(0,)",
    b"'x'",
    b"(1e9,)",
    b"[[[[[",
    b"",
]
TEXTS = ["[]", "null", "3", '"x"', "{}", "[" * 5000, '{"a":', "\ud800", "1e999", '{"data": 3, "rri": []}']


def sample(n=6):
    rng = np.random.default_rng(0)
    return Embeddings(rng.normal(size=(n, 4)).astype(np.float32), np.arange(n), np.ones(n, int))


def split(n):
    return Split(np.zeros((n, 4, 2, 3), np.uint8), np.arange(n), np.ones(n, int), np.arange(n).astype(str))


def make_embeddings(folder):
    sample().save(folder / "e.npz")
    return folder / "e.npz", lambda: Embeddings.load(folder / "e.npz")


def make_compressed(folder):
    np.savez_compressed(folder / "c.npz", features=np.ones((6, 4)), pids=np.arange(6), cameras=np.ones(6, int))
    return folder / "c.npz", lambda: Embeddings.load(folder / "c.npz")


def make_index(folder):
    save_index(build_index(sample()), folder / "i.npz")
    return folder / "i.npz", lambda: load_index(folder / "i.npz")


def make_prepared(folder, file="train_names.npy"):
    write_prepared(Dataset("small", split(4), split(3), split(3)), folder / "p")
    return folder / "p" / file, lambda: read_prepared(folder / "p")


def make_images(folder):
    return make_prepared(folder, "train_images.npy")


def make_description(folder):
    return make_prepared(folder, "dataset.json")


def make_eigenlayer(folder):
    path = RunDir(folder).eigenlayer("base")
    path.parent.mkdir()
    np.save(path, np.ones((4, 3), np.float32))
    return path, lambda: load_eigenlayer(RunDir(folder), "base")


def make_settings(folder):
    RunDir(folder).config.write_text('{"preset": "tiny", "data": {"height": 32}}')
    return RunDir(folder).config, lambda: from_json(read_settings(RunDir(folder)))


def make_environment(folder):
    RunDir(folder).environment.write_text('{"python": "3.11", "devices": ["cpu"]}')
    return RunDir(folder).environment, lambda: read_environment(RunDir(folder))


def make_log(folder):
    lines = [{"dataset": "x", "seed": 0} | record for record in fake_run(rounds=1)]
    RunDir(folder).log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return RunDir(folder).log, lambda: check_records(RunDir(folder).log, read_log(RunDir(folder).log))


MAKERS = [value for name, value in sorted(globals().items()) if name.startswith("make_")]


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed as a disk, a transfer or somebody with intent changes them."""
    kind = rng.integers(7)
    place = int(rng.integers(len(whole) + 1))
    if kind == 0:
        return whole[:place]
    if kind == 1:
        changed = bytearray(whole)
        for position in rng.integers(len(whole), size=rng.integers(1, 5)):
            changed[position] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 2:
        return whole[:place] + rng.bytes(int(rng.integers(1, 40))) + whole[place:]
    if kind == 3:
        return re.sub(rb"\([\d, ]*\)", lambda _: SHAPES[rng.integers(len(SHAPES))], whole)
    if kind == 4:
        return TEXTS[rng.integers(len(TEXTS))].encode("utf-8", "surrogatepass")
    if kind == 5:
        content = io.BytesIO()
        np.save(content, rng.normal(size=(2, 2)))
        return content.getvalue()[: int(rng.integers(100, 200))]
    return whole[:place] + whole[place + int(rng.integers(1, 20)) :]


def attack(maker, folder: Path, trials: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path, read = maker(folder)
    whole = path.read_bytes()
    read()
    for trial in range(trials):
        path.write_bytes(damaged(whole, rng))
        began = time.monotonic()
        try:
            read()
        except REFUSALS as error:
            assert str(error), trial  # noqa: PT017 - either outcome is right
        assert time.monotonic() - began < 5, trial


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_damaged_files_end_in_errors_for_people(tmp_path, maker):
    attack(maker, tmp_path, 40, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_damaged_files_end_in_errors_for_people_at_length(tmp_path, maker, seed):
    attack(maker, tmp_path, 400, seed=seed)
