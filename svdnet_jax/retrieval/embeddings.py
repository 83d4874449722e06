"""`Embeddings`: what retrieval works on, and its file format.

A file is an uncompressed `.npz` with the arrays `features`, `pids`, `cameras` and `names`; with `model`, one text,
where the network is known; and with `people`, a text an image, where identities are texts. Nothing is pickled, so
any program that has numpy can write and read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int64, Shaped

from svdnet_jax.arrays import array_names, read_arrays
from svdnet_jax.errors import FeatureError
from svdnet_jax.retrieval.people import NUMBERS, People, as_array, called, from_array
from svdnet_jax.safe_writing import is_npz, whole_file

ARRAYS = ("features", "pids", "cameras", "names")
"""What every file holds; `names` may be absent."""
IS_EMBEDDINGS = is_npz(*ARRAYS[:3], but=("kind", "metric"))
"""Whether a file is one of `Embeddings`, and not an index, which may be one too."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of N images with the identity, camera and name of each.

    Anything that numpy can turn into these arrays is taken. Features are held in float32, or in float64 if float32
    would round them (300 000.01 and 300 000.02 would be one number).
    pid -1 marks junk (a bad detection), pid 0 a distractor (nobody in particular), as in Market-1501.

    Raises:
        ValueError: The shapes do not agree, an array is not of its kind, or a feature is NaN or infinite;
            the message says which array and row.
    """

    features: Float[np.ndarray, "n d"]
    """One row per image, float32 or float64."""
    pids: Int64[np.ndarray, " n"]
    """Identity of each image."""
    cameras: Int64[np.ndarray, " n"]
    """Camera of each image; all alike where unknown (then evaluate with cross_camera=False)."""
    names: Shaped[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0, np.str_))
    """File name of each image, or anything else that tells them apart. Not given: "0" to "N-1"."""
    model: str = ""
    """Fingerprint of the network that made the features; empty where it is not known. Features of two networks are
    never compared: see `check_same_model`."""
    people: People = field(default_factory=lambda: NUMBERS)
    """What identities are called that are texts on disk, by pid. For people to read; compared are pids."""

    def __post_init__(self) -> None:
        features = _features(self.features)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "pids", _integers("pids", self.pids, features))
        object.__setattr__(self, "cameras", _integers("cameras", self.cameras, features))
        object.__setattr__(self, "names", _names(self.names, features))
        object.__setattr__(self, "model", as_text("model", self.model))

    def person(self, row: int) -> str:
        """Returns what the identity of an image is called: a text, else its pid."""
        return called(self.people, self.pids[row])

    def save(self, path: str | Path) -> None:
        """Writes to exactly this path, whatever its suffix; a reader never sees half a file.

        Args:
            path: The file; its folder is made if needed, an older file is replaced.

        Raises:
            OSError: The file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {"model": np.array(self.model)} if self.model else {}
        arrays |= {"people": as_array(self.people, self.pids)} if self.people else {}
        write_arrays(Path(path), arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Embeddings":
        """Reads a file written by `save` or, in the same format, by another program.

        Features of other number types are converted as by the class, absent names numbered, names in bytes read as
        UTF-8, an absent model is unknown, absent people are called by their pids; further arrays are ignored.

        Args:
            path: The file.

        Raises:
            OSError: The file is missing or cannot be read.
            ValueError: It is no .npz, lacks an array, holds pickled objects, or the arrays do not fit
                together; the message names the file, what was found and what is expected.
        """
        path = Path(path)
        arrays = read_arrays(
            path, (*ARRAYS, "model", "people"), f"the arrays {', '.join(ARRAYS)} as Embeddings.save writes them"
        )
        missing = [name for name in ARRAYS[:3] if name not in arrays]
        if missing:
            raise ValueError(f"{path}: {_not_there(missing, path)}")
        try:
            model, people = arrays.pop("model", ""), arrays.pop("people", None)
            embeddings = cls(**arrays, model=as_text("model", model), people=NUMBERS)
            return embeddings if people is None else with_people(embeddings, people)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def with_people(embeddings: Embeddings, texts: object) -> Embeddings:
    """Returns embeddings whose identities are called by texts, one an image, empty where the pid says all.

    Raises:
        ValueError: They are no texts, not one an image, or two for one pid.
    """
    people = from_array(_texts("people", texts, embeddings.features), embeddings.pids)
    return replace(embeddings, people=people)


def check_same_model(query: Embeddings, gallery: Embeddings) -> None:
    """Refuses to compare features of different networks; where either is unknown there is nothing to go by.

    Raises:
        ValueError: Both models are known and they differ.
    """
    if query.model and gallery.model and query.model != gallery.model:
        raise ValueError(
            f"the query features are of the model {query.model} and the gallery features of {gallery.model}; distances "
            "between features of different models mean nothing. Embed both with the same run and the same kind of "
            "embedding."
        )


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an `.npz` to exactly this path; a reader never sees half a file.

    Args:
        path: The file; its folder is made if needed, an older file is replaced.
        arrays: Numbers and text by name.

    Raises:
        OSError: The file cannot be written.
    """
    # Through an open file, as np.savez adds .npz to a path that ends otherwise.
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def as_text(name: str, value: object) -> str:
    """Returns one text, which a file holds as an array without dimensions.

    Raises:
        ValueError: It is something else.
    """
    raw = np.asarray(value)
    if raw.shape != () or raw.dtype.kind != "U":
        raise ValueError(f"{name} must be one text, found an array of {raw.dtype} with the shape {raw.shape}.")
    return str(raw)


def _features(values: object) -> np.ndarray:
    """Returns features as float32 or, where that would lose digits, float64 (N, D), all finite in float32."""
    raw = np.asarray(values)
    # jnp.issubdtype, as it knows bfloat16.
    if not (jnp.issubdtype(raw.dtype, jnp.floating) or jnp.issubdtype(raw.dtype, jnp.integer)):
        raise ValueError(f"features must be real numbers, found an array of {raw.dtype}.")
    if raw.ndim != 2:
        remedy = " Flatten each image's: features.reshape(len(features), -1)." if raw.ndim > 2 else ""
        raise ValueError(f"features must be (N, D), one row per image; found the shape {raw.shape}.{remedy}")
    # float32 holds float16, bfloat16 and integers of 16 bits; what it may not hold has 32 or more.
    wide = raw.dtype.itemsize > 4 or (raw.dtype.kind in "iu" and raw.dtype.itemsize == 4)
    features = raw.astype(np.float64 if wide else np.float32, copy=False)
    # By extremes, which NaN passes through: no second array of this size.
    with np.errstate(over="ignore"):
        extremes = np.array([features.max(axis=1, initial=0), features.min(axis=1, initial=0)]).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(extremes).all(axis=0))
    if wrong.size:
        raise FeatureError(
            f"features must be finite in float32: {wrong.size} of {len(features)} rows are not, the first is row "
            f"{wrong[0]}. NaN and infinity come from the network that made them; larger numbers can be divided by one "
            "number for all images."
        )
    if wide and not extremes.any() and features.any():
        raise ValueError(
            "features must not vanish in float32, and all of them do: none is as large as 1e-45. Multiply them by one "
            "number for all images."
        )
    return _narrow(features) if wide else features


def _narrow(features: np.ndarray) -> np.ndarray:
    """Returns numbers in float32 if nothing is lost."""
    some = features[:64]
    if not np.array_equal(some.astype(np.float32), some):  # most often a few rows say it
        return features
    less = features.astype(np.float32)
    return less if np.array_equal(less, features) else features


def _integers(name: str, values: object, features: np.ndarray) -> np.ndarray:
    """Returns ids as int64 (N,)."""
    raw, n = np.asarray(values), len(features)
    _check_length(name, raw, features)
    if n and raw.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, found an array of {raw.dtype}. {_as_integers(name, raw)}")
    # Who keeps pids without a sign has lost the -1 of junk, which comes back as the type's largest number.
    if n and name == "pids" and raw.dtype.kind == "u" and raw.max() == np.iinfo(raw.dtype).max:
        raise ValueError(
            f"pids hold {raw.max()}, which is what -1 (junk) becomes in {raw.dtype}, a type without a sign; store pids "
            "as np.int64 before they lose it."
        )
    if n and int(raw.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit 64 bits with a sign, found {raw.max()}; number them anew.")
    return raw.astype(np.int64, copy=False)


def _as_integers(name: str, raw: np.ndarray) -> str:
    """Returns how integers come from another array."""
    if raw.dtype.kind == "f":
        return f"Convert them: {name}.astype(np.int64)."
    if name == "cameras":
        return "Number them, each camera by one number in query and gallery."
    return (
        "Number them, each identity by one number in query and gallery, from 1 on: -1 marks junk, 0 distractors. "
        "Texts of digits convert: pids.astype(np.int64)."
    )


def _check_length(name: str, raw: np.ndarray, features: np.ndarray) -> None:
    """Refuses what is not one value per row of features."""
    n = len(features)
    if raw.shape == (n,):
        return
    remedy = ""
    if raw.size == n and raw.ndim > 1:
        remedy = f" Flatten it: {name}.ravel()."  # MATLAB's files have no vectors, only matrices
    elif raw.shape == (features.shape[1],):
        remedy = f" The features are {features.shape}: transpose them if an image is a column (features.T)."
    raise ValueError(f"{name} must be ({n},), one per row of features; found {raw.shape}.{remedy}")


def _not_there(missing: Sequence[str], path: Path) -> str:
    """Returns what a file lacks, what it has instead, and what to do."""
    held = ", ".join(array_names(path)) or "none"
    remedy = (
        " Where cameras are unknown, give all images one (np.zeros(N, int)) and evaluate with `cross_camera` False."
        if list(missing) == ["cameras"]
        else " Query and gallery are two files, with arrays of these names in each."
    )
    return f"no array {', '.join(missing)}; expected {', '.join(ARRAYS)}, found {held}.{remedy}"


def _names(values: object, features: np.ndarray) -> np.ndarray:
    """Returns names as text (N,); numbered where none are given."""
    raw = np.asarray(values)
    if raw.size == 0:
        return np.arange(len(features)).astype(np.str_)
    return _texts("names", raw, features)


def _texts(name: str, values: object, features: np.ndarray) -> np.ndarray:
    """Returns texts (N,)."""
    raw = np.asarray(values)
    _check_length(name, raw, features)
    if raw.dtype.kind == "S":
        return np.char.decode(raw, "utf-8")
    if raw.dtype.kind == "O" and all(isinstance(text, str) for text in raw):
        return raw.astype(np.str_)
    if raw.dtype.kind != "U":
        raise ValueError(f"{name} must be text, found an array of {raw.dtype}.")
    return raw
