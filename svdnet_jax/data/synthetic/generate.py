"""Draws the built-in data set in Market-1501's folders and file names.

Everything is a function of `Synthetic` alone. Each image has random numbers of its own, keyed by
what it shows, so that asking for more people or more images leaves the others as they are.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from svdnet_jax.config.schema import Synthetic
from svdnet_jax.data.synthetic.cameras import CAMERAS, sample_cameras
from svdnet_jax.data.synthetic.crops import Framing, render
from svdnet_jax.data.synthetic.identities import Identity, Rng, sample_alike, sample_identity
from svdnet_jax.safe_writing import working_folder

GENERATOR_VERSION = 2  # raise it whenever the same settings give other images: it names their folder
_FOLDERS = ("bounding_box_train", "bounding_box_test", "query")

Part = Literal["train", "test", "distractor", "junk"]


def _generator(seed: int, *key: str | int) -> Rng:
    """Returns random numbers of their own for whatever `key` names."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


def cast(seed: int, part: Part, count: int, alike: float) -> list[list[Identity]]:
    """Returns the identities of one part, in groups of people dressed alike.

    Args:
        seed: of the data set.
        part: whose identities.
        count: how many identities in all.
        alike: share of them that are in a group of two to four; the others are alone in theirs.

    Returns:
        Groups in order; a longer cast begins with a shorter one.
    """
    groups: list[list[Identity]] = []
    start = grouped = 0
    while start < count:
        rng = _generator(seed, "clothes", part, start)
        size = int(rng.integers(2, 5))
        size = 1 if grouped + size > alike * (start + size) else size
        grouped += size if size > 1 else 0
        model = sample_identity(rng)
        group = [model] + [sample_alike(model, rng) for _ in range(size - 1)]
        groups.append(group[: count - start])
        start += size
    return groups


@dataclass(frozen=True)
class _Shot:
    """One image to be made."""

    folder: str
    part: Part
    pid: int
    camera: int  # 1 to 6
    index: int  # among the images of this person by this camera
    who: Identity | None
    framing: Framing = "good"

    @property
    def path(self) -> str:
        """Where it goes below the root. Frames are 25 apart, so no two images share one."""
        pid = f"{self.pid:04d}" if self.pid >= 0 else "-1"
        sequence = 1 + (self.pid + self.camera) % 6
        frame = 1 + 25 * ((37 * abs(self.pid) + 11 * self.camera) % 400 + self.index)
        box = 0 if self.folder == "query" else 1 + self.index % 3
        return f"{self.folder}/{pid}_c{self.camera}s{sequence}_{frame:06d}_{box:02d}.jpg"


def _visits(seed: int, part: Part, number: int) -> list[int]:
    """Returns the cameras, two at least, that see an identity."""
    rng = _generator(seed, "visits", part, number)
    return [int(c) + 1 for c in rng.permutation(CAMERAS)[: int(rng.integers(2, CAMERAS + 1))]]


def _shots(spec: Synthetic) -> Iterator[_Shot]:
    train, gallery, query = _FOLDERS
    seed, alike = spec.seed, spec.alike
    for i, who in enumerate(chain(*cast(seed, "train", spec.train_identities, alike))):
        cameras = _visits(seed, "train", i)
        for j in range(spec.train_images):
            index, camera = divmod(j, len(cameras))
            yield _Shot(train, "train", 2 * i + 2, cameras[camera], index, who)
    for i, who in enumerate(chain(*cast(seed, "test", spec.test_identities, alike))):
        for camera in _visits(seed, "test", i):
            for j in range(1 + spec.gallery_images):
                yield _Shot(gallery if j else query, "test", 2 * i + 1, camera, j, who)
    for i in range(spec.distractors):
        rng = _generator(seed, "clothes", "distractor", i)
        stranger = None if rng.random() < 0.35 else sample_identity(rng)
        yield _Shot(gallery, "distractor", 0, 1 + i % CAMERAS, i // CAMERAS, stranger, "poor")
    for i, who in enumerate(chain(*cast(seed, "test", spec.junk, alike))):
        yield _Shot(gallery, "junk", -1, 1 + i % CAMERAS, i // CAMERAS, who, "bad")


def count_images(spec: Synthetic) -> int:
    """Returns how many images `write_synthetic` writes."""
    return sum(1 for _ in _shots(spec))


def fingerprint(spec: Synthetic) -> str:
    """Returns a short name for the images of `spec`, of twelve hexadecimal digits."""
    text = json.dumps([GENERATOR_VERSION, asdict(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_complete(root: Path, shots: Sequence[_Shot]) -> bool:
    names = {f"{folder}/{path.name}" for folder in _FOLDERS for path in (root / folder).glob("*.jpg")}
    wrong = {shot.path for shot in shots} ^ names
    if wrong and root.exists() and any(root.iterdir()):
        example = f"{min(wrong)} is {'not one of them' if min(wrong) in names else 'missing'}"
        raise FileExistsError(
            f"{root} holds {len(names)} images, not exactly the {len(shots)} of these settings ({example}). "
            "Delete the folder to have it made again, or name another."
        )
    return not wrong


def write_synthetic(root: Path, spec: Synthetic, advance: Callable[[int], None] = lambda n: None) -> None:
    """Writes the data set, unless it is there.

    It is made in a temporary folder beside `root` and then renamed: there is never half a data set.

    Args:
        root: folder to make; gets bounding_box_train, bounding_box_test and query.
        spec: what to make.
        advance: called with 1 after each image written; `count_images` says how often.

    Raises:
        FileExistsError: `root` holds other images.
    """
    shots = list(_shots(spec))
    if _is_complete(root, shots):
        return
    cameras = sample_cameras(_generator(spec.seed, "cameras"))
    crowd = [sample_identity(_generator(spec.seed, "crowd", i)) for i in range(40)]
    with working_folder(root) as work:
        made = work / "made"
        for folder in _FOLDERS:
            (made / folder).mkdir(parents=True)
        for shot in shots:
            rng = _generator(spec.seed, "image", shot.part, shot.pid + 1, shot.camera, shot.index)
            pixels = render(shot.who, cameras[shot.camera - 1], rng, crowd, shot.framing)
            Image.fromarray(pixels).save(made / shot.path, quality=90)
            advance(1)
        try:
            made.rename(root)
        except OSError:  # another process may have been quicker
            if not _is_complete(root, shots):
                raise


def contact_sheet(images: Sequence[UInt8[np.ndarray, "h w 3"]], columns: int) -> UInt8[np.ndarray, "H W 3"]:
    """Returns images of one size in a grid, row by row, two white pixels apart; the last may be short."""
    height, width, _ = images[0].shape
    gaps = ((0, -len(images) % columns), (0, 2), (0, 2), (0, 0))
    tiles = np.pad(np.stack(images), gaps, constant_values=255)
    rows = tiles.reshape(-1, columns, height + 2, width + 2, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * (width + 2), 3)[:-2, :-2]
