"""A header is believed as far as the file's size goes, and no file is waited for."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from svdnet_jax import arrays
from svdnet_jax.arrays import read_array, read_arrays

WANTED = ("features", "pids")
EXPECTED = "some numbers"


def npy(header, data=b"", version=1):
    """An .npy with any header, as a text or as the dictionary that one is."""
    text = header if isinstance(header, bytes) else str(header).encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


def claims(shape, descr="<f4", data=b""):
    return npy({"descr": descr, "fortran_order": False, "shape": shape}, data)


def archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


LIES = {
    "far too many": (claims((10**9, 10**9)), "asks for float32 .*, 4000000000000000000 bytes, and 0 follow"),
    "rows of nothing": (claims((10**9, 0)), r"asks for float32 \(1000000000, 0\), and the file has \d+ bytes"),
    "columns of nothing": (claims((0, 10**12)), "and the file has"),
    "beyond 64 bits": (claims((2**70,)), "asks for"),
    "negative": (claims((-1,), data=b"\0" * 8), r"asks for float32 \(-1,\)"),
    "wide texts": (claims((), "<U500000000"), "2000000000 bytes, and 0 follow"),
    "texts of nothing": (claims((10**9,), "<U0"), "and the file has"),
    "one too many": (claims((3,), data=b"\0" * 8), "12 bytes, and 8 follow"),
    "not a literal": (npy(b"{'descr': '<f4', 'fortran_order': Falsf, 'shape': (3,)}\n"), "."),
    "not Python": (npy(b"{'descr: (((((\n"), "."),
    "deep": (npy(b"(" * 9000), "."),
    "no header": (npy(b""), "."),
    "a list": (npy([1, 2]), "."),
    "texts as lengths": (claims(("3",)), "."),
    "a number type of no kind": (claims((3,), "<q9"), "."),
    "a long header": (npy(b" " * 100_000, version=2), "."),
    "another version": (npy(b"{}", version=9), "."),
    "records": (claims((1,), [("a", "<f4")], b"\0" * 4), "records"),
    "objects": (claims((1,), "|O", b"\0" * 8), "pickled objects"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(tmp_path, name):
    content, message = LIES[name]
    (tmp_path / "a.npy").write_bytes(content)
    for mapped in (False, True):
        with pytest.raises(ValueError, match=message) as caught:
            read_array(tmp_path / "a.npy", mapped=mapped)
        assert "\n" not in str(caught.value)
    path = archive(tmp_path / "a.npz", features=content)
    with pytest.raises(ValueError, match=rf"a\.npz: cannot read features \(.*{message}"):
        read_arrays(path, WANTED, EXPECTED)


@pytest.mark.parametrize("array", [np.ones((3, 2), np.float32), np.empty((0, 1024)), np.empty((700, 0)), np.array("é")])
def test_sound_arrays_come_back(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", features=array, others=array)
        held = read_arrays(tmp_path / "a.npz", WANTED, EXPECTED)
        assert held.keys() == {"features"}
        np.testing.assert_array_equal(held["features"], array)


def test_columns_first_are_read_and_mapped(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.save(tmp_path / "a.npy", array)
    for mapped in (False, True):
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy", mapped=mapped), array)


def test_an_archive_that_unfolds_to_too_much_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros((300, 1000), np.float32))
    assert read_arrays(tmp_path / "a.npz", WANTED, EXPECTED)["features"].shape == (300, 1000)
    monkeypatch.setattr(arrays, "UNFOLDED", 2**20)
    with pytest.raises(ValueError, match=r"a\.npz: .*it unfolds to 1200128 bytes, and .* 1048576 at most; save it by"):
        read_arrays(tmp_path / "a.npz", WANTED, EXPECTED)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, compression):
    content = io.BytesIO()
    np.save(content, np.ones(3))
    path = archive(tmp_path / "a.npz", compression, features=content.getvalue())
    with pytest.raises(ValueError, match=r"compressed otherwise than by np\.savez"):
        read_arrays(path, WANTED, EXPECTED)


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        if path.exists():
            with pytest.raises(ValueError, match="not an ordinary file but a pipe or a device"):
                read_array(path)
            with pytest.raises(ValueError, match=r"(pipe|zero): is not an ordinary file .* expected some numbers"):
                read_arrays(path, WANTED, EXPECTED)


def test_a_folder_and_a_missing_file_are_errors_of_the_system(tmp_path):
    for read in (read_array, lambda path: read_arrays(path, WANTED, EXPECTED)):
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nope")
