"""Bytes changed as a disk, a transfer or somebody with intent changes them."""

import io
import re
import zipfile

import numpy as np

SHAPES = [
    b"(1000000000, 1000000000)",
    b"(1000000000, 0)",
    b"(-1,)",
    b"(9,)*9",
    b"(0,)",
    b"'x'",
    b"(1e9,)",
    b"[[[[[",
    b"",
]
TEXTS = ["[]", "null", "3", '"x"', "{}", "[" * 5000, '{"a":', "\ud800", "1e999", '{"data": 3, "rri": []}']
NUMBERS = [b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999999", b"null", b"[]", b'"1"', b"0.5"]


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Returns the bytes with one change; half of the archives are whole and hold one damaged file, as no sum tells."""
    if whole[:2] != b"PK" or rng.random() < 0.5:
        return changed(whole, rng)
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(content, "w") as new:
        chosen = str(rng.choice(old.namelist()))
        for name in old.namelist():
            new.writestr(name, changed(old.read(name), rng) if name == chosen else old.read(name))
    return content.getvalue()


def changed(whole: bytes, rng: np.random.Generator) -> bytes:
    """Returns the bytes with one change of one of nine kinds."""
    kind = rng.integers(9)
    place = int(rng.integers(len(whole) + 1))
    if kind == 0:
        return whole[:place]
    if kind == 1:
        flipped = bytearray(whole)
        for position in rng.integers(len(whole), size=rng.integers(1, 5)) if whole else ():
            flipped[position] ^= 1 << int(rng.integers(8))
        return bytes(flipped)
    if kind == 2:
        return whole[:place] + rng.bytes(int(rng.integers(1, 40))) + whole[place:]
    if kind == 3:
        return re.sub(rb"\([\d, ]*\)", lambda _: SHAPES[rng.integers(len(SHAPES))], whole)
    if kind == 4:
        return TEXTS[rng.integers(len(TEXTS))].encode("utf-8", "surrogatepass")
    if kind == 5:
        content = io.BytesIO()
        np.save(content, rng.normal(size=(2, 2)))
        return content.getvalue()[: int(rng.integers(100, 200))]
    if kind == 6:
        # One number of a text becomes another, which keeps all around it well formed.
        found = list(re.finditer(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?", whole[:200_000]))
        if found:
            one = found[int(rng.integers(len(found)))]
            return whole[: one.start()] + NUMBERS[rng.integers(len(NUMBERS))] + whole[one.end() :]
    if kind == 7:
        # A key or word of a text becomes another.
        found = list(re.finditer(rb'"\w+"', whole[:200_000]))
        if found:
            one = found[int(rng.integers(len(found)))]
            return whole[: one.start()] + b'"x"' + whole[one.end() :]
    return whole[:place] + whole[place + int(rng.integers(1, 20)) :]
