"""Features as other programs save them: the same embeddings come out, and nothing is unpickled."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from svdnet_jax import matlab
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.foreign import from_one, load_embeddings

RNG = np.random.default_rng(0)
SIDES = {
    "query": Embeddings(RNG.normal(size=(3, 4)), [1, 2, 2], [1, 1, 2], ["q0.jpg", "q1.jpg", "q2 .jpg"]),
    "gallery": Embeddings(RNG.normal(size=(5, 4)), [1, 2, 0, -1, 2], [2, 2, 3, 3, 1], [f"g{n}.jpg" for n in range(5)]),
}


def arrays(features, pids, cameras, names=None):
    """Both sides under another program's names; `{0}` stands for the side."""
    wanted = {"features": features, "pids": pids, "cameras": cameras} | ({"names": names} if names else {})
    starts = {"query": ("q", "query"), "gallery": ("g", "gallery")}
    return {form.format(*starts[side]): getattr(e, kind) for side, e in SIDES.items() for kind, form in wanted.items()}


TORCHREID = arrays("{0}f", "{0}_pids", "{0}_camids", "{0}_img_path")
LAYUMI = arrays("{1}_f", "{1}_label", "{1}_cam")


def assert_same(found, expected, names=True):
    for name in ("features", "pids", "cameras", *(("names",) if names else ())):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("side", SIDES)
def test_torchreids_names_in_an_npz(tmp_path, side):
    np.savez(tmp_path / "f.npz", **TORCHREID, distmat=np.ones((3, 5)))
    assert_same(load_embeddings(tmp_path / "f.npz", side), SIDES[side])
    np.savez_compressed(tmp_path / "p.npz", **arrays("{1}_feature", "{0}_pids", "{0}_camids"))
    assert_same(load_embeddings(tmp_path / "p.npz", side), SIDES[side], names=False)


@pytest.mark.parametrize("side", SIDES)
def test_layumis_matlab_file(tmp_path, side):
    """Which has pids and cameras as rows, and numbers as Matlab may keep them."""
    whole = LAYUMI | {"query_label": np.float64(LAYUMI["query_label"])}
    savemat(tmp_path / "pytorch_result.mat", whole, do_compression=side == "query")
    assert_same(load_embeddings(tmp_path / "pytorch_result.mat", side), SIDES[side], names=False)
    names = {"query_names": SIDES["query"].names, "gallery_names": SIDES["gallery"].names}
    savemat(tmp_path / "named.mat", whole | names)
    assert_same(load_embeddings(tmp_path / "named.mat", side), SIDES[side])


@pytest.mark.parametrize("head", ["pid,camera,name", " Path ;identity;camera;split".replace(";", ",")])
def test_bare_features_with_a_table_beside_them(tmp_path, head):
    e = SIDES["gallery"]
    np.save(tmp_path / "gf.npy", e.features)
    rows = zip(e.pids, e.cameras, e.names, strict=True)
    lines = [f"{p}.0,{c},{n}" if head.startswith("pid") else f"{n},{p},{c},gallery" for p, c, n in rows]
    (tmp_path / "gf.csv").write_text("\n".join([head, *lines]))
    assert_same(load_embeddings(tmp_path / "gf.npy", "gallery"), e)


def test_bare_features_with_names_of_market_beside_them(tmp_path):
    names = ["0002_c1s1_000451_03.jpg", "bounding_box_test/-1_c6s3_000010_02.jpg", "0000_c3s1_1_1.jpg"]
    np.save(tmp_path / "f.npy", np.eye(3))
    (tmp_path / "f.txt").write_text("\n".join(names))
    expected = Embeddings(np.eye(3), [2, -1, 0], [1, 6, 3], names)
    assert_same(load_embeddings(tmp_path / "f.npy", "query"), expected)


@pytest.mark.torch
@pytest.mark.parametrize("side", SIDES)
def test_tensors_of_pytorch(tmp_path, side):
    import torch

    saved = {
        name: torch.from_numpy(array) if array.dtype.kind in "if" else array.tolist()
        for name, array in TORCHREID.items()
    }
    saved |= {"q_camids": saved["q_camids"].tolist(), "gf": saved["gf"].requires_grad_()}
    torch.save(saved, tmp_path / "f.pt")
    assert_same(load_embeddings(tmp_path / "f.pt", side), SIDES[side])
    rounded = saved | {"qf": saved["qf"].bfloat16(), "gf": saved["gf"].detach().bfloat16()}
    torch.save(rounded, tmp_path / "b.pth")
    np.testing.assert_allclose(load_embeddings(tmp_path / "b.pth", side).features, SIDES[side].features, rtol=1 / 128)
    torch.save(torch.from_numpy(SIDES[side].features), tmp_path / "bare.pt")
    (tmp_path / "bare.csv").write_text("pid,camera\n" + "".join(f"{n},1\n" for n in range(len(SIDES[side].pids))))
    found = load_embeddings(tmp_path / "bare.pt", side)
    assert found.pids.tolist() == list(range(len(found.features)))


@pytest.mark.torch
def test_what_pytorch_would_have_to_unpickle_is_refused_with_lines_that_convert(tmp_path):
    """A file of NumPy's arrays, and one that runs a program when it is unpickled, which stays where it is."""
    import torch

    torch.save(TORCHREID, tmp_path / "f.pt")
    with pytest.raises(ValueError, match=r"f\.pt: PyTorch refuses it as more than numbers \(Unsupp") as caught:
        load_embeddings(tmp_path / "f.pt", "query")
    assert_same(converted(str(caught.value), tmp_path / "f.npz"), SIDES["query"])
    torch.save(Program(tmp_path / "ran"), tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="refuses it"):
        load_embeddings(tmp_path / "bad.pt", "query")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "f.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut\.pt: is not a file of torch.save"):
        load_embeddings(tmp_path / "cut.pt", "query")


class Program:
    """What makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def converted(message, path):
    """What is read of the file that the lines in a message make."""
    *_, first, second, third = (line.strip() for line in message.splitlines())
    program = "\n".join([first, second, third])
    subprocess.run([sys.executable, "-c", program], check=True)
    return load_embeddings(path, "query")


def test_a_pickle_is_refused_with_lines_that_convert(tmp_path):
    path = tmp_path / "it's.pkl"
    path.write_bytes(pickle.dumps(TORCHREID | {"q_camids": TORCHREID["q_camids"].tolist()}))
    with pytest.raises(ValueError, match="a pickle runs whatever code is in it, so it is not read") as caught:
        load_embeddings(path, "query")
    assert_same(converted(str(caught.value), tmp_path / "it's.npz"), SIDES["query"])


def test_our_own_files_and_their_errors_stay_as_they_were(tmp_path):
    SIDES["query"].save(tmp_path / "e")
    assert_same(load_embeddings(tmp_path / "e", "gallery"), SIDES["query"])
    own = {name: getattr(SIDES["query"], name) for name in ("features", "pids", "cameras", "names")}
    np.savez(tmp_path / "both.npz", **{"qf": np.ones((9, 4))} | own)
    assert_same(load_embeddings(tmp_path / "both.npz", "query"), SIDES["query"])
    np.savez(tmp_path / "few.npz", features=np.ones((2, 4)))
    (tmp_path / "text.npz").write_text("no arrays")
    for name, said in {"few.npz": "no array pids, cameras; expected features", "text.npz": "not an .npz file"}.items():
        with pytest.raises(ValueError, match=said):
            load_embeddings(tmp_path / name, "query")
    with pytest.raises(FileNotFoundError):
        load_embeddings(tmp_path / "nope.npz", "query")


def without(*names):
    return {name: array for name, array in TORCHREID.items() if name not in names}


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            without("qf", "q_pids"),
            r"no features and no pids of the query; expected features as qf, .*hold the gallery",
        ),
        (without("q_camids"), "no cameras of the query; expected cameras as q_camids.*`cross_camera` False"),
        (TORCHREID | {"q_pids": np.array([1.5, 2, 2])}, "pids must be integers, found an array of float64"),
        (TORCHREID | {"q_pids": np.array([1, np.nan, 2])}, "pids must be integers, found an array of float64"),
        (TORCHREID | {"q_pids": np.ones(4, int)}, r"pids must be \(3,\), one per row of features; found \(4,\)"),
        (TORCHREID | {"q_pids": np.array([1, "x", 2], object)}, "cannot read q_pids .*no pickled objects"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name_in_the_file(tmp_path, held, message):
    np.savez(tmp_path / "f.npz", **held)
    with pytest.raises(ValueError, match=rf"f\.npz: {message}"):
        load_embeddings(tmp_path / "f.npz", "query")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"f\.csv with the columns pid, camera and.*or f\.txt with names.*neither is there"),
        ({"f.csv": "pid,camera\n", "f.txt": ""}, "both are there"),
        ({"f.csv": "pid,camera\n1,1\n"}, "has 3 rows, and the list beside it 1"),
        ({"f.csv": "who,camera\n1,1\n"}, "found the columns who, camera; expected pid/identity/label"),
        ({"f.csv": "pid,camera\nanna,1\n2,1\n3,1\n"}, "found 'anna' among the pids; expected whole numbers"),
        ({"f.csv": "pid,camera\n1\n2,1\n3,1\n"}, "found '' among the cameras"),
        ({"f.txt": "0001_c1.jpg\nanna.jpg\n"}, r"f\.txt, line 2: found 'anna.jpg'; expected names as 0002_c1s1"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path, files, message):
    np.save(tmp_path / "f.npy", np.eye(3))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"f\.npy: .*{message}"):
        load_embeddings(tmp_path / "f.npy", "query")


def test_damaged_and_foreign_matlab_files_are_refused(tmp_path):
    path = tmp_path / "f.mat"
    savemat(path, LAYUMI)
    whole = path.read_bytes()
    for content in (whole[:300], b"no Matlab"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"f\.mat: (cannot be read|no features)"):
            load_embeddings(path, "query")
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(ValueError, match="save it with '-v7'"):
        load_embeddings(path, "query")
    savemat(path, {"query_f": np.eye(3)})
    with pytest.raises(ValueError, match=r"no pids and no cameras of the query; .* found query_f"):
        load_embeddings(path, "query")


def test_a_matlab_file_that_unfolds_to_more_than_its_size_allows_is_refused(tmp_path, monkeypatch):
    savemat(tmp_path / "f.mat", {"query_f": np.zeros((100, 100))}, do_compression=True)
    for name in ("UNFOLDED", "RATIO"):
        monkeypatch.setattr(matlab, name, 1)
    with pytest.raises(ValueError, match="it unfolds to 80000 bytes, and a file of its size to [0-9]{3} at most"):
        load_embeddings(tmp_path / "f.mat", "query")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to its address space")
def test_the_reader_of_matlab_files_has_so_much_memory_and_no_more(tmp_path, monkeypatch):
    savemat(tmp_path / "f.mat", {"query_f": np.zeros((2000, 2000))}, do_compression=True)
    monkeypatch.setattr(matlab, "STARTED", -4 * matlab.UNFOLDED)
    with pytest.raises(ValueError, match=r"f\.mat: cannot be read as a Matlab file \(.*(memory|alloc|crashed|Memory)"):
        load_embeddings(tmp_path / "f.mat", "query")


def test_the_table_of_what_is_read_names_tests_that_there_are():
    root = Path(__file__).parents[2]
    text = (root / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text.partition("## Files of other programs")[2].partition("\nAll but the first")[0]
    named = re.findall(r"`(test_\w+)`", table)
    assert len(named) >= 6
    assert all(callable(globals().get(name)) for name in named), named


def test_identities_from_zero_are_numbered_from_one_and_junk_stays():
    assert from_one(SIDES["gallery"]).pids.tolist() == [2, 3, 1, -1, 3]
