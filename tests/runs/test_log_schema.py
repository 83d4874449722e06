"""docs/log.md says what a run writes, field by field; what stands there for other programs runs."""

import json
import re
import shutil
import sys
import types
from math import isfinite
from pathlib import Path

import pytest
from test_tensorboard import expected, points
from tiny_run import ONE, arguments

from experiments.market_rri import main
from svdnet_jax.reporting.log import read_log

pytestmark = pytest.mark.unoptimized

DOCS = (Path(__file__).parents[2] / "docs" / "log.md").read_text("utf-8")


def number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


KINDS = {
    "text": lambda value: isinstance(value, str),
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "number": number,
    "share": lambda value: number(value) and -1e-6 <= value <= 1 + 1e-6,
    "numbers": lambda value: isinstance(value, list) and value and all(map(number, value)),
    "object": lambda value: isinstance(value, dict),
}


def tables():
    """Field -> kind, by the heading of the table."""
    found = {}
    for section in re.split(r"^## ", DOCS, flags=re.M)[1:]:
        rows = re.findall(r"^\| `([a-zA-Z0-9_.]+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|$", section, re.M)
        if rows:
            found[section.partition("\n")[0].strip("`")] = {name: kind for name, kind, *_ in rows}
    return found


def fields(record, kinds):
    """Fields of a line as the table names them, down to where it has a kind."""
    for name, value in record.items():
        if isinstance(value, dict) and name not in kinds:
            yield from ((f"{name}.{key}", part) for key, part in value.items())
        else:
            yield name, value


def check(record, kinds, measures):
    held = dict(fields(record, kinds))
    assert held.keys() == kinds.keys()
    for name, value in held.items():
        if kinds[name] == "measures":
            check(value, measures, measures)
        else:
            assert KINDS[kinds[name]](value), f"{record.get('event')}: {name} {value!r} is no {kinds[name]}"


def check_log(path):
    documented = tables()
    measures = documented.pop("Measures")
    for record in map(json.loads, path.read_text("utf-8").splitlines()):
        check(record, documented[record["event"]], measures)
    return {record["event"] for record in read_log(path)}


@pytest.fixture(scope="module")
def resumed(finished, workshop, tmp_path_factory):
    """The finished run as older code left it, its last checkpoint lost: resumed, now with events for TensorBoard."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("resumed") / "run"))
    settings = json.loads((folder / "config.json").read_text())
    del settings["log"]
    (folder / "config.json").write_text(json.dumps(settings))
    shutil.rmtree(max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name)))
    assert main(arguments(folder, workshop / "data", *ONE, "--log.tensorboard")) == 0
    return folder


def test_every_field_of_every_line_is_documented_and_of_its_kind(finished, resumed):
    assert check_log(finished / "metrics.jsonl") == tables().keys() - {"Measures", "resume"}
    assert check_log(resumed / "metrics.jsonl") == tables().keys() - {"Measures"}


def test_a_resumed_run_has_each_point_once(resumed):
    records = read_log(resumed / "metrics.jsonl")
    found = points(resumed / "tensorboard")
    assert found == expected(records)
    assert len({(name, step) for name, step, _ in found}) == len(found)


def test_the_lines_for_weights_and_biases_send_every_number(finished, monkeypatch):
    """By a stand-in: nothing is sent, and the package need not be there."""
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", DOCS, re.S) if "wandb" in each)
    assert len([line for line in code.splitlines() if line]) <= 9
    sent, configs, ended = [], [], []

    def log(values, step):
        sent.extend((name, step, value) for name, value in values.items())

    run = types.SimpleNamespace(log=log, finish=lambda: ended.append(True))
    stand_in = types.ModuleType("wandb")
    stand_in.init = lambda project, config: (configs.append(config), run)[1]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    exec(code.replace("runs/synthetic", str(finished)), {})
    records = read_log(finished / "metrics.jsonl")
    assert sent == expected(records)
    assert configs == records[:1]
    assert ended == [True]
    steps = [step for _, step, _ in sent]
    assert steps == sorted(steps)  # wandb drops what goes back


def test_a_reader_needs_nothing_of_this_package(finished):
    code = re.findall(r"```python\n(.*?)```", DOCS, re.S)[0]
    assert "svdnet_jax" not in code
    held = {}
    exec(code.replace("runs/synthetic", str(finished)), held)
    assert len(held["curve"]) == 56 // 4
