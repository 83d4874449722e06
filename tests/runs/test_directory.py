"""Small files of a run that are damaged are named, with what to do."""

import numpy as np
import pytest

from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError
from svdnet_jax.runs.directory import RunDir, load_eigenlayer, open_run_dir, save_eigenlayer


def test_the_eigenlayer_comes_back(tmp_path):
    W = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_eigenlayer(RunDir(tmp_path), "base", W)
    np.testing.assert_array_equal(load_eigenlayer(RunDir(tmp_path), "base"), W)
    assert load_eigenlayer(RunDir(tmp_path), "final") is None


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-3], lambda whole: whole[:20] + whole[30:]])
def test_a_damaged_eigenlayer_is_named_with_the_remedy(tmp_path, damage):
    save_eigenlayer(RunDir(tmp_path), "base", np.ones((3, 2), np.float32))
    path = RunDir(tmp_path).eigenlayer("base")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"eigenlayer/base\.npy: is damaged .* Take it away and give the command of"):
        load_eigenlayer(RunDir(tmp_path), "base")


@pytest.mark.parametrize("array", [np.ones(3), np.ones((2, 2), int), np.full((2, 2), np.nan), np.ones((0, 2))])
def test_what_is_no_matrix_of_weights_is_no_eigenlayer(tmp_path, array):
    save_eigenlayer(RunDir(tmp_path), "base", array)
    with pytest.raises(ConfigError, match="expected W, a matrix of floats"):
        load_eigenlayer(RunDir(tmp_path), "base")


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "metrics.jsonl", "report.html", "figures/ranks.csv", "figures/cmc.png"]
)
def test_a_file_that_no_run_has_made_is_not_written_over(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"loss": 1}\n')
    with pytest.raises(ConfigError, match=f"{name}: exists and is not what"), open_run_dir(Config(out=tmp_path)):
        pass
    assert path.read_text() == '{"loss": 1}\n'


def test_a_folder_where_a_run_has_just_begun_can_be_used_again(tmp_path):
    for _ in range(2):
        with open_run_dir(Config(out=tmp_path)) as run_dir:
            run_dir.log.write_text('{"event": "start", "data')
            run_dir.environment.write_text('{"python": "3.11", "devices": []}')
