"""Seeded fuzzing: whatever bytes lie in a file, its reader returns or ends in an error for people, and soon.

A longer run, with command lines, kills and full disks: python tests/hostile/table.py
"""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from commands import command, hostile_lines, training_not_begun
from damage import damaged
from readers import READERS, REFUSALS, sample

pytestmark = pytest.mark.usefixtures("as_user")


SLOW = ("cuhk03", "matlab")
"""Read in a process of its own each time, so tried less often here than in the table."""


def attack(name: str, folder: Path, trials: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = READERS[name](folder)
    trials = trials // 5 if name in SLOW else trials
    target.read()
    for trial in range(trials):
        path = target.paths[int(rng.integers(len(target.paths)))]
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        began = time.monotonic()
        try:
            target.read()
        except REFUSALS as error:
            assert str(error), trial  # noqa: PT017 - either outcome is right
        assert time.monotonic() - began < 5, trial
        path.write_bytes(whole)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_end_in_errors_for_people(tmp_path, name):
    attack(name, tmp_path, 25, seed=0)


def test_hostile_command_lines_end_with_a_line_that_says_why(tmp_path, monkeypatch):
    (tmp_path / "run" / "embeddings" / "embedding").mkdir(parents=True)
    for name in ("gallery", "query"):
        sample().save(tmp_path / "run" / "embeddings" / "embedding" / f"{name}.npz")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with training_not_begun():
        lines = hostile_lines(np.random.default_rng(0), tmp_path / "here", tmp_path / "run")
        for words in itertools.islice(lines, 40):
            ended = command(words)
            assert not ended.fault, (words, ended)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_end_in_errors_for_people_at_length(tmp_path, name, seed):
    attack(name, tmp_path, 100, seed=seed)
