"""Checks a data set: opens every file and lists what is wrong, with the files concerned."""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from svdnet_jax.data import images
from svdnet_jax.data.index import SPLITS, DatasetIndex, ImageRecord, count_cameras, counts
from svdnet_jax.data.resizing import resize_to_bytes
from svdnet_jax.data.synthetic.generate import contact_sheet
from svdnet_jax.data.types import DISTRACTOR, JUNK
from svdnet_jax.data.unread import LINKS, UNNAMED, unread_line
from svdnet_jax.errors import DataError

USUAL = 0.9
"""If so large a share of images has one size, the others are unusual."""
SMALLEST = 16
"""Fewer pixels than these in height, or half of them in width, show nobody."""


NO_CAMERAS = (
    "there are no cameras: training needs none, and evaluation with query and gallery takes `eval.cross_camera` False"
)


class Finding(NamedTuple):
    """Something that is wrong (``error``) or that somebody should look at (``warning``)."""

    level: Literal["error", "warning"]
    text: str
    files: tuple[str, ...] = ()
    """The files it is about."""


class Row(NamedTuple):
    """One count, and what it is in the data set's description."""

    what: str
    found: int
    expected: int | None


@dataclass(frozen=True)
class Report:
    """What was found in a data set; errors come first."""

    name: str
    layout: str
    root: str
    table: tuple[Row, ...]
    sizes: Mapping[str, int]
    """Images by size (``128x64`` is height x width), the most frequent first."""
    notes: tuple[str, ...]
    """What is right and yet should be known: how images were changed, which images the data set's list leaves out."""
    findings: tuple[Finding, ...]


class Look(NamedTuple):
    """What one image is."""

    size: str = ""
    """Height x width; empty if it cannot be decoded."""
    digest: bytes = b""
    """Of the file's bytes."""
    problem: str = ""
    changed: tuple[str, ...] = ()
    """As in `images.Picture`."""
    black: bool = False
    """All over."""


def inspect(listing: DatasetIndex, advance: Callable[[int], None] = lambda n: None) -> Report:
    """Looks at all files of a data set.

    Args:
        listing: What `find_layout` found.
        advance: Called with 1 after each image.
    """
    looks: dict[str, Look] = {}
    for split, crops in listing.splits.items():
        for crop in crops:
            looks[_label(split, crop)] = _look(crop)
            advance(1)
    sizes = Counter(look.size for look in looks.values() if look.size)
    table = _table(listing)
    findings = [*_names(listing), *_unread(listing), *_counts(listing, table), *_people(listing)]
    findings += [*_undecodable(looks), *_black(looks), *_unusual(looks, sizes), *_copies(listing, looks)]
    findings.sort(key=lambda finding: finding.level)  # "error" comes before "warning", and the sort is stable
    named = listing.name, listing.layout, str(listing.root)
    return Report(*named, table, dict(sizes.most_common()), tuple(_notes(listing, looks)), tuple(findings))


def sheet(listing: DatasetIndex, people: int = 6, columns: int = 12) -> UInt8[np.ndarray, "H W 3"] | None:
    """Returns the first training images of evenly spread identities, a row each, 128 x 64; None without any."""
    train = listing.splits["train"]
    known = sorted({crop.pid for crop in train})
    chosen = {known[i] for i in np.linspace(0, len(known) - 1, min(people, len(known))).astype(int)}
    rows: dict[int, list[np.ndarray]] = {pid: [] for pid in sorted(chosen)}
    for crop in train:
        if crop.pid in rows and len(rows[crop.pid]) < columns and not _look(crop).problem:
            image = np.asarray(images.decode(crop.path, crop.name))
            rows[crop.pid].append(resize_to_bytes(image, (128, 64)))
    blank = np.full((128, 64, 3), 255, np.uint8)
    shown = [tile for row in rows.values() if row for tile in row + [blank] * (columns - len(row))]
    return contact_sheet(shown, columns) if shown else None


def _label(split: str, crop: ImageRecord) -> str:
    return f"{split}/{crop.name}"


def _look(crop: ImageRecord) -> Look:
    try:
        content = crop.path.read_bytes()
        image, changed = images.read_picture(io.BytesIO(content), crop.name)
    except DataError as error:
        return Look(problem=str(error))
    except OSError as error:
        return Look(problem=f"{crop.name}: cannot be read ({error.strerror})")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Look(f"{image.height}x{image.width}", digest, changed=changed, black=image.getbbox() is None)


def _notes(listing: DatasetIndex, looks: Mapping[str, Look]) -> Iterator[str]:
    yield from listing.notes
    if _one_camera(listing):
        yield NO_CAMERAS
    changed = Counter(change for look in looks.values() for change in look.changed)
    for change, number in changed.most_common():
        yield f"{number} images were {change}"
    if left_out := listing.unread.get(UNNAMED):
        yield unread_line({UNNAMED: left_out}, listing.root)


def _table(listing: DatasetIndex) -> tuple[Row, ...]:
    published = listing.published or {}
    return tuple(Row(what, number, published.get(what)) for what, number in counts(listing).items())


def _names(listing: DatasetIndex) -> Iterator[Finding]:
    if listing.strange:
        files = tuple(f"{path.parent.name}/{path.name}" for path in listing.strange)
        yield Finding("error", f"{len(files)} image names are not of the form {listing.example}", files)


def _unread(listing: DatasetIndex) -> Iterator[Finding]:
    """Returns what lies in the folders and is not read; what a list leaves out is left out on purpose."""
    for kind, paths in listing.unread.items():
        if kind != UNNAMED:
            files = tuple(f"{path.parent.name}/{path.name}" for path in paths)
            yield Finding("error" if kind == LINKS else "warning", f"not read: {len(paths)} {kind}", files)


def _counts(listing: DatasetIndex, table: tuple[Row, ...]) -> Iterator[Finding]:
    wrong = [row for row in table if row.expected not in (None, row.found)]
    if wrong:
        parts = ", ".join(f"{row.found} {row.what} for {row.expected}" for row in wrong)
        yield Finding(
            "error",
            f"not the published {listing.layout}: {parts}; unpack it again (other data in the same layout are fine, "
            "but their results compare with nobody's)",
        )


def _people(listing: DatasetIndex) -> Iterator[Finding]:
    train, query, gallery = (listing.splits[split] for split in SPLITS)
    for split, crops in listing.splits.items():
        if not crops:
            yield Finding("error", f"the {split} split has no images")
    nobody = tuple(_label("train", crop) for crop in train if crop.pid <= DISTRACTOR)
    if nobody:
        yield Finding("error", f"{len(nobody)} training images have identity -1 or 0", nobody)
    known = {crop.pid for crop in train} - {JUNK, DISTRACTOR}
    both = tuple(
        _label(split, crop) for split in ("query", "gallery") for crop in listing.splits[split] if crop.pid in known
    )
    if both:
        yield Finding("error", f"{len(both)} test images show identities that are in training too", both)
    answers = defaultdict(set)
    for crop in gallery:
        answers[crop.pid].add(crop.camera)
    absent = tuple(_label("query", crop) for crop in query if not answers[crop.pid])
    # Where all images have one camera nobody said which, and that is no mistake: a note tells what it means.
    judged = () if _one_camera(listing) else query
    own = tuple(_label("query", crop) for crop in judged if answers[crop.pid] == {crop.camera})
    level: Literal["error", "warning"] = "error" if len(absent) + len(own) == len(query) else "warning"
    if absent:
        yield Finding(level, f"{len(absent)} of {len(query)} queries show nobody who is in the gallery", absent)
    if own and count_cameras(listing):
        yield Finding(
            level,
            f"{len(own)} of {len(query)} queries have right answers from their own camera only; they count with "
            "`eval.cross_camera` False",
            own,
        )
    elif own:  # each image has a camera of its own
        yield Finding(level, f"{len(own)} of {len(query)} queries have no other image of their identity", own)


def _one_camera(listing: DatasetIndex) -> bool:
    return len({crop.camera for crops in listing.splits.values() for crop in crops}) == 1


def _black(looks: Mapping[str, Look]) -> Iterator[Finding]:
    black = tuple(label for label, look in looks.items() if look.black)
    if black:
        yield Finding("warning", f"{len(black)} images are black all over", black)


def _undecodable(looks: Mapping[str, Look]) -> Iterator[Finding]:
    bad = {label: look.problem for label, look in looks.items() if look.problem}
    if bad:
        yield Finding("error", f"{len(bad)} images cannot be used, first {next(iter(bad.values()))}", tuple(bad))


def _unusual(looks: Mapping[str, Look], sizes: Counter[str]) -> Iterator[Finding]:
    if not sizes:
        return
    usual, number = sizes.most_common(1)[0]
    others = tuple(label for label, look in looks.items() if look.size not in ("", usual))
    if others and number >= USUAL * sum(sizes.values()):
        yield Finding("warning", f"{len(others)} images are not {usual} (height x width) as all others are", others)
    small = {size for size in sizes if _too_small(*map(int, size.split("x")))}
    tiny = tuple(label for label, look in looks.items() if look.size in small)
    if tiny:
        yield Finding("warning", f"{len(tiny)} images are smaller than {SMALLEST} x {SMALLEST // 2}", tiny)


def _too_small(height: int, width: int) -> bool:
    return height < SMALLEST or width < SMALLEST // 2


def _copies(listing: DatasetIndex, looks: Mapping[str, Look]) -> Iterator[Finding]:
    """Returns files of equal bytes: of one identity they are waste, of two they are contradictions."""
    groups = defaultdict(list)
    # One file that is query and gallery is no copy of itself.
    places = {crop.path: (split, crop) for split, crops in listing.splits.items() for crop in crops}
    for split, crop in places.values():
        label = _label(split, crop)
        if looks[label].digest:
            groups[looks[label].digest].append((label, crop.pid))
    copies = [group for group in groups.values() if len(group) > 1]
    for people, text in ((False, "are copies of another of the same identity"), (True, "show two identities")):
        found = [group for group in copies if (len({pid for _, pid in group}) > 1) is people]
        if found:
            files = tuple(" = ".join(label for label, _ in group) for group in found)
            yield Finding("warning", f"{sum(map(len, found)) - len(found)} images {text}, byte for byte", files)
