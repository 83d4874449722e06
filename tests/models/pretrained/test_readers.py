"""What is said of weight files that are damaged, of no known kind, or of a package that is missing."""

import json
import pickle
import sys

import foreign_weights as foreign
import numpy as np
import pytest

from svdnet_jax.errors import WeightsError
from svdnet_jax.models.pretrained.caffemodel import net_parameter
from svdnet_jax.models.pretrained.load import load_pretrained


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shard(change):
    def write(folder):
        path = foreign.write_tfjs(folder / "m", foreign.keras(), None)
        change(path)
        return path

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def edit(change):
    def apply(path):
        model = json.loads(path.read_text())
        change(model)
        path.write_text(json.dumps(model))

    return apply


def last(path):
    return max(path.parent.glob("*.bin"), key=lambda shard: int("".join(filter(str.isdigit, shard.stem[12:]))))


def text(name, content=b"\x80 no weights \xff"):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def saved(make):
    """A file of what is made of a tensor."""

    def write(folder):
        import torch

        torch.save(make(torch.ones(1)), folder / "x.pth")
        return folder / "x.pth"

    return write


class Bomb:
    def __reduce__(self):
        return exec, ("open('exploded', 'w').close()",)


def bomb(folder):
    (folder / "bomb.pth").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    return folder / "bomb.pth"


BAD = {
    "missing": (lambda folder: folder / "none.h5", "no such file"),
    "folder": (lambda folder: folder, "is a folder; give the file in it"),
    "kind": (text("weights.onnx"), r"\.onnx is no kind of file .*\.safetensors"),
    "no ending": (text("weights"), "a name without an ending"),
    "tfjs cut": (shard(lambda path: cut(last(path))), "end in the middle of .*: one is cut short"),
    "tfjs more": (shard(lambda path: last(path).open("ab").write(b"1234")), "shards hold .* bytes, the list"),
    "tfjs shard": (shard(lambda path: last(path).unlink()), r"bin is missing; it belongs to model\.json"),
    "tfjs json": (shard(cut), "model.json is damaged"),
    "tfjs other": (text("package.json", b'{"name": "resnet"}'), "package.json is damaged.*KeyError: 'weightsManifest'"),
    "tfjs list": (text("list.json", b"[]"), "list.json is damaged"),
    "tfjs graph": (shard(edit(lambda model: model.update(format="graph-model"))), "graph model"),
    "tfjs quantised": (
        shard(edit(lambda model: model["weightsManifest"][0]["weights"][3].update(quantization={"dtype": "uint8"}))),
        "quantised; convert without",
    ),
    "tfjs type": (
        shard(edit(lambda model: model["weightsManifest"][0]["weights"][3].update(dtype="int32"))),
        "is int32",
    ),
    "tfjs twice": (
        shard(edit(lambda model: model["weightsManifest"].append(model["weightsManifest"][0]))),
        "holds conv1/kernel twice",
    ),
    "h5 bytes": (text("x.h5"), "x.h5 is damaged"),
    "h5 of Keras 3": (lambda folder: foreign.write_h5(folder / "x.weights.h5", {}), "lists no layers"),
    "safetensors bytes": (text("x.safetensors"), "x.safetensors is damaged"),
    "safetensors of us": (
        lambda folder: foreign.write_safetensors(folder / "x.safetensors", {"params/a": np.ones(1)}),
        "does not say how its input is normalised",
    ),
    "safetensors of whom": (
        lambda folder: foreign.write_safetensors(
            folder / "x.safetensors", {"params/a": np.ones(1), "opt/a": np.ones(1)}
        ),
        "holds opt/a, which is in none of params",
    ),
    "std": (
        lambda folder: foreign.write_safetensors(
            folder / "x.safetensors",
            {"params/a": np.ones(1)},
            {"mean": "[1, 2, 3]", "std": "[1, 0, 1]", "layouts": "[]"},
        ),
        r"normalised by mean \(1, 2, 3\) and std \(1, 0, 1\)",
    ),
    "metadata": (
        lambda folder: foreign.write_safetensors(
            folder / "x.safetensors", {"params/a": np.ones(1)}, {"mean": "[1]", "std": "[]", "layouts": "[]"}
        ),
        "x.safetensors is damaged",
    ),
    "config.json": (
        lambda folder: (
            text("config.json", b"{")(folder),
            foreign.write_safetensors(folder / "x.safetensors", {"bn1.bias": np.ones(1)}),
        )[1],
        "config.json is damaged",
    ),
    "torch bytes": (text("x.pth"), "x.pth is damaged"),
    "torch empty": (text("x.pth", b""), "x.pth is damaged"),
    "torch bomb": (bomb, r"bomb.pth is damaged, incomplete or not"),
    "torch list": (saved(lambda tensor: [tensor]), "holds no state dict"),
    "torch nested": (saved(lambda tensor: {"net": {"conv1.weight": tensor}}), "holds no state dict"),
    "torch of another": (saved(lambda tensor: {"conv1_1.weight": tensor}), "holds 1 weights .*conv1_1.weight"),
    "caffe bytes": (text("x.caffemodel"), "x.caffemodel is damaged"),
    "caffe empty": (text("x.caffemodel", b""), "holds no layer with weights"),
    "caffe twice": (
        lambda folder: foreign.write_caffemodel(folder / "x.caffemodel", [("a", [np.ones(1)]), ("a", [np.ones(1)])]),
        "holds two layers a",
    ),
    "hub": (lambda folder: "hf:resnet50", "form hf:owner/name"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.torch) if case.startswith("torch") else case for case in BAD]
)
def test_files_that_cannot_be_read_are_explained(tmp_path, case):
    write, message = BAD[case]
    spec = str(write(tmp_path))
    with pytest.raises(WeightsError, match=message) as caught:
        load_pretrained(spec)
    assert str(caught.value).startswith(f"`model.weights` {spec}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_is_one(tmp_path):
    pickle.loads(bomb(tmp_path).read_bytes())
    assert (tmp_path / "exploded").exists()


def test_a_blob_that_is_not_of_its_shape(tmp_path):
    net = net_parameter()
    blob = net.layer.add(name="conv1").blobs.add()
    blob.data.extend([1, 2, 3])
    blob.shape.dim.extend([2, 2])
    (tmp_path / "x.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(WeightsError, match=r"layer conv1 has 3 numbers for the shape \(2, 2\)"):
        load_pretrained("x.caffemodel")


@pytest.mark.parametrize(
    ("module", "name", "install"),
    [
        ("torch", "x.pth", r"'svdnet-jax\[torch\]'"),
        ("h5py", "x.h5", "h5py"),
        ("safetensors", "x.safetensors", "safetensors"),
        ("google.protobuf.descriptor_pool", "x.caffemodel", "protobuf"),
        ("huggingface_hub", "hf:timm/resnet50.tv_in1k", r"'svdnet-jax\[hub\]'"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(tmp_path, monkeypatch, module, name, install):
    (tmp_path / name.replace("/", "")).touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(WeightsError, match=f"needs {module}, which cannot be imported: pip install {install}"):
        load_pretrained(name)
