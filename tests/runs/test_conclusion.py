"""What is said at the end of a run: its intervals, and what it cannot show."""

import numpy as np
import pytest
from fake_run import fake_run

from svdnet_jax.config.schema import RRI
from svdnet_jax.errors import ConfigError
from svdnet_jax.retrieval.intervals import ByIdentity
from svdnet_jax.runs.conclusion import conclusion
from svdnet_jax.runs.directory import RunDir, save_identities


@pytest.fixture
def run_dir(tmp_path):
    """Results of twenty people by identity; all gain two points of mAP from Step 0 to the last of four rounds."""
    run, rng = RunDir(tmp_path), np.random.default_rng(0)
    hits, ap = rng.integers(0, 3, 20) / 2, rng.random(20) / 2
    for number, phase, gain in ((0, "base", 0.0), (4, "relaxation", 0.02)):
        sums = ByIdentity(np.arange(20), np.full(20, 2), {"rank1": 2.0 * hits, "mAP": 2 * (ap + gain)})
        save_identities(run, number, phase, {"embedding": sums, "pooled": sums})
    return run


def test_intervals_are_those_of_the_results_by_identity(run_dir):
    said = conclusion(run_dir, RRI(), fake_run())
    sums = 2 * (np.random.default_rng(0).integers(0, 3, 20) / 2)
    assert f"rank-1 {100 * sums.sum() / 40:.1f} [" in said
    assert "the 20 people of the test set" in said
    assert "mAP changed by +2.0 [+2.0, +2.0] by the Eigenlayer's output" in said
    assert "`rri.method` none" in said


@pytest.mark.parametrize(
    ("people", "said"), [(1, "One person of the test set"), (4, "4 people an interval is too narrow")]
)
def test_few_people_are_said_to_be_few(tmp_path, people, said):
    run = RunDir(tmp_path)
    for number, phase in ((0, "base"), (4, "relaxation")):
        results = np.arange(people) / people + number / 100
        sums = ByIdentity(np.arange(people), np.ones(people, int), {"rank1": results, "mAP": results})
        save_identities(run, number, phase, {"embedding": sums, "pooled": sums})
    text = conclusion(run, RRI(), fake_run())
    assert said in text
    assert "nan" not in text
    assert "mAP changed by +4.0" in text


def test_people_held_out_are_not_called_those_of_the_test_set(run_dir):
    records = fake_run()
    records[0] = records[0] | {"settings": {"data": {"validation": 20}}}
    said = conclusion(run_dir, RRI(), records)
    assert "the 20 people held out" in said
    assert "test set" not in said


def test_a_control_is_not_told_to_have_a_control(run_dir):
    assert "This is a control" in conclusion(run_dir, RRI(method="none"), fake_run(method="none"))


def test_nothing_is_said_of_what_is_not_known_and_damage_is_named(run_dir):
    run_dir.identities(0, "base").unlink()
    assert conclusion(run_dir, RRI(), fake_run()) == ""
    run_dir.identities(0, "base").write_text('{"embedding": 3, "pooled": 4}')
    with pytest.raises(ConfigError, match=r"0-base\.json: is damaged"):
        conclusion(run_dir, RRI(), fake_run())
