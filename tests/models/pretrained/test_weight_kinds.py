"""Sound weight files that hold more than weights, or numbers of another type: read, or refused for what they are."""

import argparse
import re
import tarfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from svdnet_jax.errors import WeightsError
from svdnet_jax.models.pretrained.load import load_pretrained
from svdnet_jax.models.pretrained.readers import read_safetensors, read_torch

CONV = np.random.default_rng(0).normal(size=(4, 3, 7, 7)).astype(np.float32)


@pytest.fixture
def torch():
    """PyTorch, of which no test that is not marked so may know."""
    import torch

    return torch


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("modern", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("number", [np.float64(0.7), np.float32(0.7), np.int64(3), np.bool_(True)], ids=str)
def test_a_number_of_numpy_beside_the_weights_is_no_damage(torch, tmp_path, number, modern):
    content = {"state_dict": {"conv1.weight": torch.from_numpy(CONV)}, "best": number, "epoch": 3}
    torch.save(content, "x.pth", _use_new_zipfile_serialization=modern)
    assert np.array_equal(read_torch(tmp_path / "x.pth")["conv1.weight"], CONV)


def linear(torch):
    return torch.nn.Linear(2, 2)


def tar(torch, path):
    path.with_suffix(".part").touch()
    with tarfile.open(path, "w") as file:
        file.add(path.with_suffix(".part"), "sys_info")


REFUSED = {
    "model": (
        lambda torch, path: torch.save(linear(torch), path),
        r"holds a pickled Python object \(torch\.nn\.modules\.linear\.Linear\), which is not loaded.*"
        r"torch\.save\(model\.state_dict\(\), 'clean\.pth'\)",
    ),
    "old model": (
        lambda torch, path: torch.save(linear(torch), path, _use_new_zipfile_serialization=False),
        r"pickled Python object \(torch\.nn\.modules\.linear\.Linear\)",
    ),
    "arguments": (
        lambda torch, path: torch.save({"state_dict": {}, "args": argparse.Namespace(a=1)}, path),
        r"pickled Python object \(argparse\.Namespace\).*torch\.save\(model\['state_dict'\]",
    ),
    "script": (
        lambda torch, path: torch.jit.trace(linear(torch), torch.ones(1, 2)).save(path),
        r"is a TorchScript archive.*torch\.jit\.load\('x\.pth'\)\.state_dict\(\)",
    ),
    "tar": (tar, r"oldest format \(\.tar\)"),
    "sparse": (
        lambda torch, path: torch.save({"conv1.weight": torch.ones(2, 2).to_sparse()}, path),
        "conv1.weight is quantised, sparse or without numbers",
    ),
    "eight bits": (
        lambda torch, path: torch.save({"conv1.weight": torch.ones(2).to(torch.float8_e4m3fn)}, path),
        "conv1.weight holds floating-point numbers of eight bits",
    ),
    "integers": (
        lambda torch, path: torch.save({"conv1.weight": torch.ones(4, 3, 7, 7, dtype=torch.int8)}, path),
        "stem/kernel must hold floating-point numbers; found int8",
    ),
    "infinity": (
        lambda torch, path: torch.save({"conv1.weight": torch.full((4, 3, 7, 7), torch.inf)}, path),
        "stem/kernel must hold finite numbers; found NaN or infinity",
    ),
}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_a_sound_file_is_refused_for_what_it_is(torch, tmp_path, case):
    write, message = REFUSED[case]
    write(torch, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        load_pretrained("x.pth")
    said = str(caught.value)
    assert "damaged" not in said
    assert "\n" not in said
    assert "\x1b" not in said


@pytest.mark.torch
def test_the_way_out_that_the_message_names_is_one(torch, tmp_path):
    model = torch.nn.Sequential()
    model.add_module("conv1", torch.nn.Conv2d(3, 4, 7, bias=False))
    torch.save(model, "x.pth")
    with pytest.raises(WeightsError) as caught:
        load_pretrained("x.pth")
    code = re.search(r"(model = .*?'clean.pth'\))", str(caught.value))[1]
    exec(code, {"torch": torch})
    assert read_torch(tmp_path / "clean.pth")["conv1.weight"].shape == (4, 3, 7, 7)


@pytest.mark.torch
def test_a_damaged_file_is_called_so_without_the_words_of_torch(torch, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"\x80 no weights")
    with pytest.raises(WeightsError, match="x.pth is damaged, incomplete or not what its name says") as caught:
        load_pretrained("x.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16, np.float64], ids=lambda kind: kind.__name__)
def test_safetensors_in_other_floating_point_types(tmp_path, kind):
    array = CONV.astype(kind)
    safetensors.numpy.save_file({"conv1.weight": array}, "x.safetensors", {"format": "pt"})
    found = load_pretrained("x.safetensors").params["stem/kernel"]
    assert found.dtype == np.float32
    assert np.array_equal(found, array.astype(np.float32).transpose(2, 3, 1, 0))


@pytest.mark.torch
def test_bfloat16_is_the_same_from_torch_and_from_safetensors(torch, tmp_path):
    array = torch.from_numpy(CONV).to(torch.bfloat16)
    torch.save({"conv1.weight": array}, "x.pth")
    safetensors.numpy.save_file({"conv1.weight": CONV.astype(ml_dtypes.bfloat16)}, "x.safetensors")
    one, other = (load_pretrained(name).params["stem/kernel"] for name in ("x.pth", "x.safetensors"))
    assert np.array_equal(one, other)


def test_eight_bits_in_safetensors_are_refused(tmp_path):
    header = b'{"conv1.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x38\x38")
    with pytest.raises(WeightsError, match=r"conv1.weight holds floating-point numbers of eight bits.*F8_E4M3"):
        read_safetensors(tmp_path / "x.safetensors")


def test_our_own_files_hold_numbers_too(tmp_path):
    facts = {"mean": "[1, 2, 3]", "std": "[1, 1, 1]", "layouts": "[]"}
    safetensors.numpy.save_file({"params/stem/kernel": np.full(2, np.nan, np.float32)}, "x.safetensors", facts)
    with pytest.raises(WeightsError, match="params/stem/kernel must hold finite numbers"):
        load_pretrained("x.safetensors")
