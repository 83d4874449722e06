"""Several data sets joined for training: identities and cameras of each are kept apart from those of the others.

The first keeps its numbers; those of the others follow behind. The joined training images lie in the cache as prepared
data of their own, named by the content of all sets, as together they may not fit into memory.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from svdnet_jax.data.cache import Rows, reuse_prepared, write_rows
from svdnet_jax.data.resizing import resize_to_bytes
from svdnet_jax.data.types import DISTRACTOR, Dataset, Split, fingerprint
from svdnet_jax.errors import DataError

FARTHEST = 2**62
"""Numbers of the first set from which on there is no room behind them."""
_NOBODY = Rows((1, 1), (), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.str_))


class _Part(NamedTuple):
    """Rows of a split that are trained on."""

    split: Split
    rows: Int[np.ndarray, " n"]


def join(
    first: Dataset,
    more: Sequence[Dataset],
    cache: Path,
    size: tuple[int, int],
    say: Callable[[str], None],
    *,
    combine_all: bool = False,
) -> Dataset:
    """Joins the training images of data sets; query and gallery stay those of the first.

    Args:
        first: The set that is evaluated on first.
        more: The others; they stay what they are, as `Dataset.others`, where they have a test set.
        cache: Where the joined images go.
        size: Height and width that images get where those of the sets differ.
        say: Gets a line where that takes long, and of each set that has no test set.
        combine_all: Train on query and gallery of the others too, but for junk and distractors; then they are no test
            sets any more.

    Raises:
        DataError: A set is given twice, has nobody to train on, or numbers beyond all bounds.
    """
    others = _renamed(first, more)
    content = [fingerprint(each) for each in (first, *others)]
    for number, other in enumerate(others, start=1):
        if content[number] in content[:number]:
            raise DataError(f"`data.more` {other.name}: is trained on already; leave it out")
        if not len(other.train) and not combine_all:
            raise DataError(f"`data.more` {other.name}: the train split has no images")
    sets = [[_Part(first.train, np.arange(len(first.train)))]]
    sets += [_parts(other, combine_all) for other in others]
    sizes = {part.split.images.shape[1:3] for parts in sets for part in parts if len(part.rows)}
    if not sizes:
        raise DataError(f"{first.name}: none of the data sets has training images")
    wanted = size if len(sizes) > 1 else None
    said = repr([content, [other.name for other in others], wanted, combine_all])
    folder = cache / f"joined-{hashlib.blake2b(said.encode(), digest_size=6).hexdigest()}"
    name = " + ".join([first.name, *(other.name for other in others)])
    rows, people = _joined(first, others, sets, wanted or next(iter(sizes)))
    joined = reuse_prepared(folder, say)
    if joined is None:
        say(f"{name}: joining {len(rows.pids)} training images in {folder}, once")
        splits = [("train", rows), ("query", _NOBODY), ("gallery", _NOBODY)]
        write_rows(name, splits, folder)
        joined = reuse_prepared(folder, say)
        if joined is None:
            raise DataError(f"{folder}: was written and cannot be read; start the command again")
    tested = () if combine_all else tuple(other for other in others if len(other.query) and len(other.gallery))
    if not combine_all:
        for other in others:
            if other not in tested:
                say(f"note: {other.name}: has no queries, or no gallery. It is trained on and not tested.")
    return Dataset(name, joined.train, first.query, first.gallery, people, tested)


def _renamed(first: Dataset, more: Sequence[Dataset]) -> list[Dataset]:
    """Returns data sets under names that tell them apart."""
    taken, renamed = {first.name}, []
    for each in more:
        names = (f"{each.name}{tail}" for tail in ("", *(f" ({number})" for number in range(2, len(more) + 3))))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        renamed.append(Dataset(name, each.train, each.query, each.gallery, each.people))
    return renamed


def _parts(dataset: Dataset, combine_all: bool) -> list[_Part]:
    """Returns what is trained on; of an image that is query and gallery one."""
    parts = [_Part(dataset.train, np.arange(len(dataset.train)))]
    if not combine_all:
        return parts
    seen: set[tuple[int, int, str]] = set()
    for split in (dataset.query, dataset.gallery):
        images = list(zip(split.pids.tolist(), split.cameras.tolist(), split.names.tolist(), strict=True))
        fresh = [image[0] > DISTRACTOR and image not in seen for image in images]
        parts.append(_Part(split, np.flatnonzero(fresh)))
        seen.update(images)
    return parts


def _joined(
    first: Dataset, others: Sequence[Dataset], sets: Sequence[Sequence[_Part]], size: tuple[int, int]
) -> tuple[Rows, dict[int, str]]:
    """Returns the joined training images, and what identities are called whose numbers say nothing any more."""
    every = (first.train, first.query, first.gallery)
    last = [max([0, *(int(split.pids.max()) for split in every if len(split))])]
    last += [max([0, *(int(split.cameras.max()) for split in every if len(split))])]
    if max(last) >= FARTHEST:
        raise DataError(f"{first.name}: has identities or cameras numbered up to {max(last)}; number them anew to join")
    pids, cameras, names = [first.train.pids], [first.train.cameras], [first.train.names]
    people = dict(first.people)
    for other, parts in zip(others, sets[1:], strict=True):
        own, seen_by = (
            np.concatenate([getattr(part.split, array)[part.rows] for part in parts]) for array in ("pids", "cameras")
        )
        if (own <= DISTRACTOR).any():
            raise DataError(f"{other.name}: {int((own <= 0).sum())} training images have pid -1 or 0")
        for place, (numbers, joined) in enumerate(((own, pids), (seen_by, cameras))):
            known, rank = np.unique(numbers, return_inverse=True)
            joined.append(last[place] + 1 + rank)
            if place == 0:
                called = [f"{other.name}/{other.people.get(pid, pid)}" for pid in known.tolist()]
                people |= dict(enumerate(called, start=last[0] + 1))
            last[place] += len(known)
        names += [np.array([f"{other.name}/{name}" for part in parts for name in part.split.names[part.rows]], np.str_)]
    images = _images([part for parts in sets for part in parts], size)
    return Rows(size, images, np.concatenate(pids), np.concatenate(cameras), np.concatenate(names)), people


def _images(parts: Sequence[_Part], size: tuple[int, int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for part in parts:
        for row in part.rows:
            image = part.split.images[row]
            yield image if image.shape[:2] == size else resize_to_bytes(image, size)
