"""Embeddings as other programs save them: torchreid's names, layumi's Matlab file, bare arrays, PyTorch's files.

`docs/evaluation.md` has the table of what is read. Such files often hold query and gallery together, so who reads one
says which side is wanted. Nothing is unpickled: where only that would do, the message has three lines that convert.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from svdnet_jax.arrays import RATIO, UNFOLDED, array_names, read_array, read_arrays
from svdnet_jax.matlab import read_matlab
from svdnet_jax.retrieval.embeddings import ARRAYS, Embeddings
from svdnet_jax.retrieval.listed import read_list

Side = Literal["query", "gallery"]
FEATURES, PIDS, CAMERAS, NAMES = "features", "pids", "cameras", "names"
_PLAIN = {
    FEATURES: ("features", "feats", "feat", "embeddings"),
    PIDS: ("pids", "labels", "ids"),
    CAMERAS: ("cameras", "camids", "cams"),
    NAMES: ("names", "img_path", "img_paths", "paths"),
}
"""Names of arrays in files that hold one side."""
_ENDINGS = {
    FEATURES: ("{0}f", "{0}_f", "{0}_feature", "{0}_features", "{0}_feats"),
    PIDS: ("{0}_pids", "{0}_label", "{0}_labels", "{0}_ids"),
    CAMERAS: ("{0}_camids", "{0}_cam", "{0}_cams"),
    NAMES: ("{0}_names", "{0}_img_path", "{0}_img_paths", "{0}_image_paths", "{0}_paths"),
}
"""Names in files that hold both: `{0}` is q or query, g or gallery. qf, q_pids and q_camids are torchreid's."""
_UNSAFE = (".pkl", ".pickle", ".p", ".pth.tar")


def load_embeddings(path: str | Path, side: Side) -> Embeddings:
    """Reads embeddings of this or of another program.

    Args:
        path: An `.npz`, `.npy`, `.mat`, `.pt` or `.pth`, told by its suffix; any other name is taken for an `.npz`.
        side: What is wanted of a file that holds query and gallery.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It cannot be used; the message names the file, what was found and what is expected.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.name.lower().endswith(_UNSAFE):
        path.stat()
        raise ValueError(f"{path}: a pickle runs whatever code is in it, so it is not read. {_conversion(path)}")
    if suffix == ".npy":
        return _bare(path, read_array)
    if suffix == ".mat":
        return _matlab(path, side)
    if suffix in (".pt", ".pth"):
        return _torch(path, side)
    return _npz(path, side)


def from_one(embeddings: Embeddings) -> Embeddings:
    """Returns embeddings with identities that were numbered from 0 numbered from 1; junk (-1) stays."""
    pids = embeddings.pids
    people = {pid + (pid >= 0): text for pid, text in embeddings.people.items()}
    return replace(embeddings, pids=np.where(pids >= 0, pids + 1, pids), people=people)


def _npz(path: Path, side: Side) -> Embeddings:
    if not path.is_file():
        return Embeddings.load(path)  # which says what is wrong, as below
    try:
        held = array_names(path)
    except Exception:  # a parser that meets arbitrary bytes may raise anything
        return Embeddings.load(path)
    chosen = _chosen(held, side)
    theirs = set(chosen.values()) - set(ARRAYS)
    if set(ARRAYS[:3]) <= set(held) or not (theirs or _other_side(held, side)):
        return Embeddings.load(path)
    return _of(path, side, read_arrays(path, [*chosen.values()], "arrays of numbers and text"), held)


def _matlab(path: Path, side: Side) -> Embeddings:
    wanted = [name for kind in _PLAIN for name in _candidates(kind, side)]
    others = _candidates(FEATURES, "gallery" if side == "query" else "query")
    try:
        arrays = read_matlab(path, [*wanted, *others])
    except ValueError as error:
        newer = "HDF reader" in str(error)
        remedy = "; Matlab 7.3 is another format: save it with '-v7'" if newer else ""
        raise ValueError(f"{path}: cannot be read as a Matlab file ({error}){remedy}") from error
    # Matlab fills texts up to one length.
    texts = {name: np.char.rstrip(array) for name, array in arrays.items() if array.dtype.kind == "U"}
    return _of(path, side, arrays | texts, list(arrays))


def _torch(path: Path, side: Side) -> Embeddings:
    size = path.stat().st_size
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is not a file of torch.save (1.6 or newer), or one cut short. {_conversion(path)}")
    with zipfile.ZipFile(path) as archive:
        unfolded = sum(member.file_size for member in archive.infolist())
    if unfolded > max(RATIO * size, UNFOLDED):
        raise ValueError(f"{path}: it unfolds to {unfolded} bytes, more than a file of its size should")
    try:
        import torch
    except ImportError:
        raise ValueError(f"{path}: needs PyTorch (pip install 'svdnet-jax[torch]'). {_conversion(path)}") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a parser that meets arbitrary bytes may raise anything
        said = " ".join(str(error).split())
        reason = (said.partition("WeightsUnpickler error: ")[2] or said)[:120]
        raise ValueError(f"{path}: PyTorch refuses it as more than numbers ({reason}). {_conversion(path)}") from error
    if isinstance(found, torch.Tensor):
        return _bare(path, lambda _: _array(found))
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: holds a {type(found).__name__}; expected a dictionary of tensors and lists")
    chosen = _chosen([name for name in found if isinstance(name, str)], side)
    try:
        arrays = {name: _array(found[name]) for name in chosen.values()}
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: cannot be turned into arrays ({error})") from error
    return _of(path, side, arrays, [str(name) for name in found])


def _array(value: Any) -> np.ndarray:
    """Returns a tensor or a list as an array."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    dense = value.detach().cpu()
    return np.asarray((dense.float() if str(dense.dtype) == "torch.bfloat16" else dense).numpy())


def _bare(path: Path, read: Callable[[Path], np.ndarray]) -> Embeddings:
    """Reads features alone, with the list beside them."""
    try:
        path.stat()
        rows = read_list(path)
        features = read(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if features.ndim == 2 and len(rows[PIDS]) != len(features):
        raise ValueError(
            f"{path}: has {len(features)} rows, and the list beside it {len(rows[PIDS])}; expected as many"
        )
    ids = [np.array(rows[kind], np.int64) for kind in (PIDS, CAMERAS)]
    return _of(
        path, "gallery", {FEATURES: features, PIDS: ids[0], CAMERAS: ids[1], NAMES: np.array(rows[NAMES], str)}, ()
    )


def _candidates(kind: str, side: Side) -> list[str]:
    """Returns the names that arrays of a kind may have."""
    both = [form.format(start) for form in _ENDINGS[kind] for start in (side[0], side)]
    return [*(name for name in both if name not in ("queryf", "galleryf")), *_PLAIN[kind]]


def _chosen(held: Sequence[str], side: Side) -> dict[str, str]:
    """Returns for each kind the name that a file has for it, if it has one."""
    known = {kind: [name for name in _candidates(kind, side) if name in held] for kind in _PLAIN}
    return {kind: names[0] for kind, names in known.items() if names}


def _other_side(held: Sequence[str], side: Side) -> bool:
    other: Side = "gallery" if side == "query" else "query"
    return _chosen(held, other).get(FEATURES, FEATURES) != FEATURES


def _of(path: Path, side: Side, arrays: Mapping[str, np.ndarray], held: Sequence[str]) -> Embeddings:
    """Returns the embeddings of a side, from arrays by the names that they have in the file."""
    chosen = _chosen(list(arrays), side)
    if missing := [kind for kind in (FEATURES, PIDS, CAMERAS) if kind not in chosen]:
        expected = "; ".join(f"{kind} as {', '.join(_candidates(kind, side))}" for kind in missing)
        remedy = ""
        if FEATURES in missing and _other_side(held, side):
            remedy = f" It seems to hold the {'gallery' if side == 'query' else 'query'} only."
        elif missing == [CAMERAS]:
            remedy = " Where cameras are unknown, give all images one and evaluate with `cross_camera` False."
        raise ValueError(
            f"{path}: no {' and no '.join(missing)} of the {side}; expected {expected}; found "
            f"{', '.join(held) or 'nothing of these'}.{remedy}"
        )
    try:
        pids, cameras = (_whole(_flat(arrays[chosen[kind]])) for kind in (PIDS, CAMERAS))
        names = _flat(arrays[chosen[NAMES]]).astype(str) if NAMES in chosen else np.empty(0, str)
        return Embeddings(arrays[chosen[FEATURES]], pids, cameras, names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _flat(array: np.ndarray) -> np.ndarray:
    """Returns a vector of a matrix that has one row or one column."""
    return array.ravel() if array.ndim == 2 and 1 in array.shape else array


def _whole(array: np.ndarray) -> np.ndarray:
    """Returns whole numbers as integers, which Matlab keeps as floating-point numbers."""
    if array.dtype.kind == "f" and (np.abs(array) < 2**53).all() and (array == np.rint(array)).all():
        return array.astype(np.int64)
    return array


def _conversion(path: Path) -> str:
    """Returns the lines that make an `.npz` of a file, for who trusts its source."""
    name, out = str(path), str(path.with_suffix(".npz"))
    is_torch = path.name.lower().endswith((".pt", ".pth", ".pth.tar"))
    loads = (
        f"import numpy as np, torch; found = torch.load({name!r}, map_location='cpu', weights_only=False)"
        if is_torch
        else f"import numpy as np, pickle; found = pickle.load(open({name!r}, 'rb'))"
    )
    lines = (
        loads,
        "arrays = {k: np.asarray(v.cpu() if hasattr(v, 'cpu') else v) for k, v in found.items()}",
        f"np.savez({out!r}, **arrays)",
    )
    return "Where you trust its source, these lines make a file that is read:\n    " + "\n    ".join(lines)
