"""A run on several data sets: trained on all, tested on each by its name."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from small_data import write_manifest
from tiny_run import ONE, arguments

from experiments.market_rri import main
from svdnet_jax.cli.evaluate import main as evaluate
from svdnet_jax.cli.source import Source, with_source
from svdnet_jax.config.schema import Synthetic
from svdnet_jax.data.synthetic.generate import write_synthetic
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.log import read_log
from svdnet_jax.runs.dataset import load_configured_dataset, load_test_dataset

OPTIONS = (
    "--base.steps",
    "8",
    "--base.milestones",
    "4",
    "--rri.rounds",
    "0",
    "--log-every",
    "4",
    "--checkpoint-every",
    "4",
)

pytestmark = pytest.mark.unoptimized


@pytest.fixture(scope="module")
def other(workshop):
    """A second data set, in Market-1501's layout."""
    people = Synthetic(train_identities=3, train_images=4, test_identities=4, distractors=2, junk=1, seed=7)
    write_synthetic(workshop / "other", people, lambda count: None)
    return workshop / "other"


@pytest.fixture(scope="module")
def joined(workshop, other):
    out = workshop / "joined"
    more = ("--data.more", f"{other}:market1501")
    assert main(arguments(out, workshop / "data", *ONE, *OPTIONS, *more)) == 0
    return out


def test_the_log_has_the_numbers_of_each_test_set(joined):
    start, *records = read_log(joined / "metrics.jsonl")
    assert start["dataset"] == "synthetic pedestrians + other"
    assert (start["identities"], start["train"]) == (12 + 3, 12 * 8 + 3 * 4)
    phases = [record for record in records if record["event"] == "phase"]
    assert len(phases) == 1
    for phase in phases:
        assert phase["others"].keys() == {"other"}
        assert phase["others"]["other"]["embedding"].keys() == phase["embedding"].keys()
        assert phase["others"]["other"] != {name: phase[name] for name in ("embedding", "pooled")}


def test_a_run_on_several_sets_goes_on_where_it_was_and_prints_each_test_set(joined, workshop, other, tmp_path, capsys):
    out = shutil.copytree(joined, tmp_path / "again")
    moved = shutil.copytree(other, tmp_path / "other")
    assert main(arguments(out, workshop / "data", *ONE, *OPTIONS, "--data.more", str(moved))) == 0
    said = capsys.readouterr().out
    assert "also tested on other:" in said
    assert "on other" in [line.strip() for line in said.splitlines()]
    assert "On other" in (out / "report.html").read_text()
    assert main(arguments(out, workshop / "data", *ONE, *OPTIONS)) == 2
    assert "the images or identities of" in capsys.readouterr().err


def test_evaluating_the_run_again_gives_the_logged_numbers_of_each_set(joined, workshop, other, capsys):
    last = [record for record in read_log(joined / "metrics.jsonl") if record["event"] == "phase"][-1]
    for options, expected in (((), last), (("--data.root", str(other)), last["others"]["other"])):
        where = ("--run", str(joined), *options, "--data.cache", str(workshop / "data"))
        assert evaluate([*where, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["embedding"]["mAP"] == pytest.approx(expected["embedding"]["mAP"], abs=1e-6)


def test_what_was_trained_on_whole_is_not_tested(tiny, other, tmp_path):
    data = replace(tiny.data, more=(str(other),), combine_all=True)
    whole = load_configured_dataset(replace(tiny, data=data), Console(quiet=True))
    assert (len(np.unique(whole.train.pids)), whole.others) == (12 + 3 + 4, ())
    with pytest.raises(ConfigError, match="was trained on its query and gallery too .`data.combine_all`"):
        with_source(replace(tiny, data=data), Source(root=other), replaced=True)
    elsewhere = with_source(replace(tiny, data=data), Source(root=tmp_path), replaced=True)
    assert (elsewhere.data.more, elsewhere.data.combine_all) == ((), False)


def test_people_are_held_out_of_the_first_set(tiny, other):
    data = replace(tiny.data, more=(str(other),), validation=2)
    console = Console(quiet=True)
    held = load_configured_dataset(replace(tiny, data=data), console)
    alone = load_test_dataset(replace(tiny, data=data), console)
    np.testing.assert_array_equal(held.query.names, alone.query.names)
    assert (len(np.unique(held.train.pids)), held.others) == (12 - 2 + 3, ())
    assert not set(held.train.pids) & set(held.query.pids)
    assert held.name == "synthetic pedestrians + other (validation: 2 of 12 training identities)"


def test_a_set_without_an_answer_is_trained_on_and_said_not_to_be_tested(tiny, tmp_path, capsys):
    text = "path,identity,camera,split\na.jpg,1,1,train\nb.jpg,2,1,train\nc.jpg,3,1,query\nd.jpg,3,1,gallery\n"
    root = write_manifest(tmp_path / "mine", text)
    dataset = load_configured_dataset(replace(tiny, data=replace(tiny.data, more=(str(root),))), Console(width=300))
    assert dataset.others == ()
    assert "It is trained on and not tested." in capsys.readouterr().out
