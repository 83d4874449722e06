"""A made-up data set in Market-1501's folders and file names: who appears where.

Everything is a function of `Synthetic` alone. Each image has random numbers of its own, keyed by
what it shows, so that asking for more people or more images leaves the others as they are.
"""

import hashlib
import json
import math
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.ImageDraw import Draw, ImageDraw

from svdnet_jax.config import Synthetic
from svdnet_jax.data.pedestrians import HEIGHT, WIDTH, Camera, Colour, Framing, Identity, Motif, Rng, render

GENERATOR_VERSION = 2  # raise it whenever the same settings give other images: it names their folder
CAMERAS = 6
_FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
_SCENE_WIDTH, _SCENE_HEIGHT = 900, 400  # of a place, in the pixels that crops are painted with

Part = Literal["train", "test", "distractor", "junk"]
Palette = tuple[Colour, ...]
T = TypeVar("T")

# What is frequent stands twice.
_PATTERNS: tuple[Motif, ...] = (
    "plain", "plain", "jacket", "horizontal", "vertical", "checks", "two-tone", "logo",
)  # fmt: skip
_CLOTHES: Palette = (
    (30, 30, 34), (30, 30, 34), (64, 66, 72), (130, 132, 136), (188, 190, 192), (234, 234, 230),
    (234, 234, 230), (36, 44, 86), (50, 86, 164), (96, 128, 180), (132, 172, 216), (186, 42, 46),
    (112, 30, 46), (224, 144, 166), (224, 190, 62), (58, 124, 74), (100, 104, 60), (204, 182, 148),
    (106, 76, 54), (106, 68, 136), (220, 118, 50), (42, 122, 130),
)  # fmt: skip
_LOWER: Palette = (
    (28, 28, 32), (60, 62, 68), (40, 50, 86), (70, 96, 140), (120, 146, 180), (122, 122, 122),
    (196, 178, 148), (98, 78, 60), (224, 222, 214), (92, 96, 64), (110, 34, 50),
)  # fmt: skip
_SKINS: Palette = ((236, 200, 174), (224, 182, 150), (204, 158, 122), (168, 120, 86), (120, 82, 60))
_HAIR: Palette = ((24, 20, 20), (44, 32, 26), (44, 32, 26), (86, 58, 36), (178, 142, 84), (136, 134, 132))
# Backdrop and its colour, ground and its colour.
_PLACES: tuple[tuple[str, Colour, str, Colour], ...] = (
    ("bricks", (150, 100, 84), "slabs", (150, 150, 146)),
    ("foliage", (64, 92, 56), "slabs", (172, 166, 156)),
    ("foliage", (124, 140, 122), "grass", (98, 128, 70)),
    ("fronts", (196, 190, 180), "tiles", (184, 170, 152)),
    ("fronts", (92, 98, 106), "slabs", (132, 130, 130)),
    ("cars", (158, 166, 174), "road", (96, 98, 102)),
)


def _generator(seed: int, *key: str | int) -> Rng:
    """Random numbers of their own for whatever `key` names."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([seed, *words])


def _pick(rng: Rng, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _near(rng: Rng, colour: Colour, spread: float) -> Colour:
    shift = rng.normal(0, spread) + rng.normal(0, 0.5 * spread, 3)
    red, green, blue = (min(max(round(c + s), 6), 249) for c, s in zip(colour, shift, strict=True))
    return red, green, blue


def sample_identity(rng: Rng) -> Identity:
    """A random person."""
    return Identity(
        height=rng.uniform(0.88, 1.1),
        width=rng.uniform(0.8, 1.3),
        legs=rng.uniform(0.47, 0.52),
        skin=_near(rng, _pick(rng, _SKINS), 5.0),
        hair=_near(rng, _pick(rng, _HAIR), 5.0),
        hair_style=_pick(rng, ("short", "short", "short", "long", "long", "bald", "cap")),
        top=_near(rng, _pick(rng, _CLOTHES), 15.0),
        accent=_near(rng, _pick(rng, _CLOTHES), 15.0),
        pattern=_pick(rng, _PATTERNS),
        sleeves=_pick(rng, ("short", "long")),
        lower=_pick(rng, ("trousers", "trousers", "trousers", "shorts", "skirt")),
        lower_colour=_near(rng, _pick(rng, _LOWER), 14.0),
        shoes=_near(rng, _pick(rng, _CLOTHES), 8.0),
        bag=_pick(rng, ("none", "none", "backpack", "backpack", "shoulder", "hand")),
        bag_colour=_near(rng, _pick(rng, _CLOTHES), 8.0),
    )


def sample_alike(model: Identity, rng: Rng) -> Identity:
    """Somebody else dressed nearly like `model`: two or three things differ, colours a little."""
    other = sample_identity(rng)
    differences: tuple[dict[str, Any], ...] = (
        {"bag": other.bag, "bag_colour": other.bag_colour},
        {"hair": other.hair, "hair_style": other.hair_style},
        {"shoes": other.shoes, "skin": other.skin},
        {"lower": other.lower, "lower_colour": other.lower_colour},
        {"sleeves": other.sleeves, "accent": other.accent},
    )
    alike = replace(model, height=other.height, width=other.width, top=_near(rng, model.top, 6.0))
    alike = replace(alike, lower_colour=_near(rng, model.lower_colour, 6.0))
    for number in rng.permutation(len(differences))[: int(rng.integers(2, 4))]:
        alike = replace(alike, **differences[int(number)])
    return alike


def cast(seed: int, part: Part, count: int, alike: float) -> list[list[Identity]]:
    """The identities of one part, in groups of people dressed alike.

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


def _backdrop(draw: ImageDraw, motif: str, colour: Colour, bottom: int, rng: Rng) -> None:
    draw.rectangle((0, 0, _SCENE_WIDTH, bottom), colour)
    if motif == "bricks":
        for row, y in enumerate(range(-2, bottom, 11)):
            for x in range(-(row % 2) * 14, _SCENE_WIDTH, 28):
                draw.rectangle((x, y, x + 25, min(y + 8, bottom)), _near(rng, colour, 9.0))
    elif motif == "foliage":
        for x in range(40, _SCENE_WIDTH, 120):
            draw.rectangle((x, 0, x + 12, bottom), (84, 66, 50))
        for _ in range(420):
            x, y = int(rng.integers(_SCENE_WIDTH)), int(rng.integers(bottom))
            draw.ellipse((x - 14, y - 10, x + 14, min(y + 10, bottom)), _near(rng, (62, 96, 48), 18.0))
    elif motif == "fronts":
        for x in range(10, _SCENE_WIDTH, 96):
            draw.rectangle((x, bottom - 150, x + 74, bottom - 14), _near(rng, (84, 100, 112), 16.0))
            draw.rectangle((x + 5, bottom - 90, x + 34, bottom - 20), _near(rng, (150, 140, 120), 30.0))
            draw.rectangle((x + 42, bottom - 70, x + 70, bottom - 20), _near(rng, (130, 120, 130), 30.0))
            draw.rectangle((x - 4, bottom - 172, x + 78, bottom - 148), _near(rng, (140, 100, 84), 30.0))
    elif motif == "cars":
        for x in range(-30, _SCENE_WIDTH, 190):
            draw.rounded_rectangle((x + 28, bottom - 74, x + 128, bottom - 30), 18, (52, 58, 66))
            draw.rounded_rectangle((x, bottom - 48, x + 164, bottom - 8), 12, _near(rng, (140, 140, 146), 40.0))
            for wheel in (x + 18, x + 116):
                draw.ellipse((wheel, bottom - 26, wheel + 28, bottom + 2), (30, 30, 32))


def _ground(draw: ImageDraw, motif: str, colour: Colour, top: int, rng: Rng) -> None:
    draw.rectangle((0, top, _SCENE_WIDTH, _SCENE_HEIGHT), colour)
    if motif in ("slabs", "tiles"):
        lines = [top + (_SCENE_HEIGHT - top) * (i / 9) ** 1.6 for i in range(10)]
        for row in range(9):
            ends = [(y, 40 + 80 * (y - top) / (_SCENE_HEIGHT - top)) for y in lines[row : row + 2]]
            for i in range(-12, 12):
                corners = [(_SCENE_WIDTH / 2 + i * step, y) for y, step in ends]
                corners += [(_SCENE_WIDTH / 2 + (i + 1) * step, y) for y, step in reversed(ends)]
                dark = motif == "tiles" and (i + row) % 2
                draw.polygon(corners, _near(rng, (160, 120, 104) if dark else colour, 4.0), (120, 116, 112))
    elif motif == "grass":
        for _ in range(2500):
            x, y = int(rng.integers(_SCENE_WIDTH)), int(rng.integers(top + 7, _SCENE_HEIGHT))
            draw.line((x, y, x + rng.normal(0, 2), y - 7), _near(rng, colour, 16.0), 2)
    elif motif == "road":
        draw.rectangle((0, top, _SCENE_WIDTH, top + 22), (166, 164, 160))
        for x in range(0, _SCENE_WIDTH, 150):
            draw.polygon([(x, 330), (x + 80, 330), (x + 66, 344), (x - 18, 344)], (214, 214, 206))


def _scene(place: int, elevation: float, rng: Rng) -> Image.Image:
    backdrop, wall, ground, floor = _PLACES[place]
    image = Image.new("RGB", (_SCENE_WIDTH, _SCENE_HEIGHT))
    draw, horizon = Draw(image), int(250 - 280 * elevation)
    _ground(draw, ground, _near(rng, floor, 6.0), horizon, rng)
    _backdrop(draw, backdrop, _near(rng, wall, 6.0), horizon, rng)
    return image


def _lights(rng: Rng) -> Float32[np.ndarray, "8 128 64 1"]:
    """Soft light and shade, falling off to one end."""
    coarse = rng.normal(1, 0.08, (8, 5, 3)).astype(np.float32)
    coarse *= np.linspace(rng.uniform(0.8, 1.15), 1, 5, dtype=np.float32)[:, None]
    return np.stack([np.asarray(Image.fromarray(c).resize((WIDTH, HEIGHT))) for c in coarse])[..., None]


def sample_cameras(rng: Rng) -> tuple[Camera, ...]:
    """The cameras. Each property is spread evenly over them, in random order, so any two differ."""

    def spread(low: float, high: float) -> list[float]:
        steps = (rng.permutation(CAMERAS) + rng.random(CAMERAS)) / CAMERAS
        return [float(low + (high - low) * s) for s in steps]

    hues, casts = spread(0.0, 2 * math.pi), spread(0.05, 0.12)
    gains, saturations = spread(0.85, 1.08), spread(0.55, 1.0)
    gammas, contrasts = spread(0.8, 1.3), spread(0.75, 1.1)
    yaws, elevations = spread(-math.pi, math.pi), spread(0.06, 0.42)
    lines, noises, places = spread(56.0, 128.0), spread(2.0, 9.0), rng.permutation(CAMERAS)
    cameras = []
    for i in range(CAMERAS):
        tint = 1 + casts[i] * np.cos(hues[i] + np.arange(3) * 2 * math.pi / 3)
        mix = gains[i] * tint[:, None] * ((1 - saturations[i]) / 3 + saturations[i] * np.eye(3))
        cameras.append(
            Camera(
                scene=_scene(int(places[i]), elevations[i], rng),
                yaw=yaws[i],
                elevation=elevations[i],
                mix=tuple(float(v) for row in mix for v in (*row, 0)),
                gamma=gammas[i],
                contrast=contrasts[i],
                lines=lines[i],
                lights=_lights(rng),
                grain=rng.normal(0, noises[i], (2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32),
            )
        )
    return tuple(cameras)


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
    """The cameras, two at least, that see an identity."""
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
    """How many images `write_synthetic` writes."""
    return sum(1 for _ in _shots(spec))


def fingerprint(spec: Synthetic) -> str:
    """A short name for the images of `spec`, of twelve hexadecimal digits."""
    text = json.dumps([GENERATOR_VERSION, asdict(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_complete(root: Path, shots: Sequence[_Shot]) -> bool:
    found = {f"{folder}/{path.name}" for folder in _FOLDERS for path in (root / folder).glob("*.jpg")}
    wrong = {shot.path for shot in shots} ^ found
    if wrong and root.exists() and any(root.iterdir()):
        example = f"{min(wrong)} is {'not one of them' if min(wrong) in found else 'missing'}"
        raise FileExistsError(
            f"{root} holds {len(found)} images, not exactly the {len(shots)} of these settings ({example}). "
            "Delete the folder to have it made again, or name another."
        )
    return not wrong


def write_synthetic(root: Path, spec: Synthetic, advance: Callable[[int], None] = lambda n: None) -> None:
    """Write the data set, unless it is there.

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
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as work:
        made = Path(work, "made")
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
    """Images of one size in a grid, row by row, two white pixels apart; the last may be short."""
    height, width, _ = images[0].shape
    gaps = ((0, -len(images) % columns), (0, 2), (0, 2), (0, 0))
    tiles = np.pad(np.stack(images), gaps, constant_values=255)
    rows = tiles.reshape(-1, columns, height + 2, width + 2, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * (width + 2), 3)[:-2, :-2]
