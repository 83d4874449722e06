"""`svdnet export`: a run's network in a file that others can read."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from svdnet_jax.cli.export import main
from svdnet_jax.data.found import find_images
from svdnet_jax.export import network, onnx_file, stablehlo
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs import inference, load_run

DOCS = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
WITHOUT_JAX, BY_JAX = re.findall(r"```python\n(.*?)```", DOCS, re.S)


def needs(*packages):
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason="jax2onnx or flatbuffers is not there: pip install '.[export]'")


FORMATS = [
    pytest.param("onnx", marks=needs(*onnx_file.PACKAGES)),
    pytest.param("stablehlo", marks=needs(*stablehlo.PACKAGES)),
]


@pytest.fixture
def export(finished, workshop):
    return lambda out, *more: main(
        ["--run", str(finished), "--out", str(out), "--data.cache", str(workshop / "data"), *more]
    )


@pytest.fixture
def crops(tmp_path):
    """Drawn images of several sizes and kinds."""
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[274] = 6
    for name, shape in {"a.png": (64, 32, 3), "in/b.png": (90, 41), "c.jpg": (20, 20, 3), "d.jpg": (30, 60, 3)}.items():
        path = tmp_path / "my_crops" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = {"exif": turned} if name == "d.jpg" else {}
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(path, **exif)
    return tmp_path / "my_crops"


def run_elsewhere(code, folder, blocked=()):
    """Runs a snippet as a program in a folder; what is blocked cannot be imported there."""
    blocking = f"import sys; sys.modules.update(dict.fromkeys({[*blocked]}))\n"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", blocking + code], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_is_written_and_compared_with_the_run(export, tmp_path, capsys, suffix):
    out = tmp_path / "new" / f"net.{suffix}"
    assert export(out, "--queries", "8") == 0
    text = capsys.readouterr().out
    assert re.search(rf"net.{suffix}: \w+.*, \d\.\d MB, model [0-9a-f]{{16}}-embedding\n", text)
    assert "compared with the run on 8 query and 32 gallery images:\n" in text
    found = re.search(r"difference of a feature (\S+); images differ from their mean by up to (\S+)\n", text)
    difference, spread = found.groups()
    assert float(difference) < 1e-4 * float(spread)
    assert re.search(r"rank-1 (\S+) becomes \1 \(\+0\.00\), mAP (\S+) becomes \2 \(\+0\.00\)", text)
    assert re.search(r"\n  1 image   in \S+ ms, by the run's own program in \S+ ms\n  64 images in \S+ ms, by", text)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@needs(*onnx_file.PACKAGES)
def test_the_ten_lines_without_jax_embed_a_folder_as_the_run_does(export, finished, crops, tmp_path):
    assert export(tmp_path / "net.onnx", "--queries", "1") == 0
    run_elsewhere(WITHOUT_JAX, tmp_path, blocked=("jax", "jaxlib", "flax", "svdnet_jax"))
    found = Embeddings.load(tmp_path / "mine.npz")
    embedder = inference.from_run(finished)
    expected = inference.embed_images(embedder, find_images(crops).crops, None, Console(quiet=True))
    assert len(found.names) == 4
    assert [name.removeprefix("my_crops/") for name in found.names] == expected.names.tolist()
    assert (found.model, found.pids.tolist()) == (expected.model, expected.pids.tolist())
    spread = np.abs(expected.features - expected.features.mean(axis=0)).max()
    np.testing.assert_allclose(found.features, expected.features, rtol=0, atol=1e-4 * spread)


@needs(*stablehlo.PACKAGES)
def test_the_lines_by_jax_alone_print_the_shape(export, finished, tmp_path):
    assert export(tmp_path / "net.stablehlo", "--queries", "1", "--kind", "pooled") == 0
    channels = load_run(finished).model.backbone.channels
    assert run_elsewhere(BY_JAX, tmp_path, blocked=("flax", "svdnet_jax")) == f"(4, {channels})\n"


@needs(*stablehlo.PACKAGES)
def test_an_older_file_of_ours_is_replaced_and_that_of_others_stays(export, tmp_path, capsys, monkeypatch):
    out = tmp_path / "net.stablehlo"
    out.write_text("a network of somebody")
    assert export(out) == 2
    assert "exists and is not what this command writes there, so it stays" in capsys.readouterr().err
    assert out.read_text() == "a network of somebody"
    older = b"ML\xefR\rStableHLO_v1.0.0 svdnet_jax_older"
    out.write_bytes(older)

    def other(given):
        """A network whose last layer was turned round."""
        W = given.variables["params"]["eigenlayer"]["kernel"]
        params = {**given.variables["params"], "eigenlayer": {"kernel": W[::-1]}}
        return to_stablehlo(given._replace(variables={**given.variables, "params": params}))

    to_stablehlo = stablehlo.to_stablehlo
    monkeypatch.setattr(stablehlo, "to_stablehlo", other)
    assert export(out, "--queries", "2") == 3
    assert "the file gives other features than the run" in capsys.readouterr().err
    assert (out.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (older, [out.name])
    monkeypatch.setattr(stablehlo, "to_stablehlo", to_stablehlo)
    assert export(out, "--queries", "2") == 0
    assert out.read_bytes() != older


def test_what_cannot_be_exported_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    def refused(out, *more):
        assert main(["--run", str(tmp_path), "--out", str(tmp_path / out), *more]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    assert "net.pb: the name says the kind of file; end it in .onnx or .stablehlo" in refused("net.pb")
    assert "--queries 0: must be from 1 to 1000000" in refused("net.onnx", "--queries", "0")
    monkeypatch.setattr(network, "find_spec", lambda name: None if "onnx" in name else name)
    needed = "ONNX needs jax2onnx and onnx and onnxruntime: pip install 'svdnet-jax[export]'"
    assert needed in refused("net.onnx")
    monkeypatch.setattr(network, "find_spec", lambda name: name)
    assert "no run folder" in refused("net.stablehlo")
    assert list(tmp_path.iterdir()) == []
