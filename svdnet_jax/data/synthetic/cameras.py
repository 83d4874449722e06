"""Cameras of the built-in data set: background, and what optics and sensor do to an image.

A place is a picture, higher and wider than a crop. What a camera does to an image (light, colours,
sharpness, noise) is applied once everything in it has been painted.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.ImageDraw import Draw, ImageDraw

from svdnet_jax.data.synthetic.identities import Color, Rng, near

CAMERAS = 6
WIDTH, HEIGHT = 64, 128  # Market-1501's crops
_SCENE_WIDTH, _SCENE_HEIGHT = 900, 400  # of a place, in the pixels that crops are painted with

# Backdrop and its colour, ground and its colour.
_PLACES: tuple[tuple[str, Color, str, Color], ...] = (
    ("bricks", (150, 100, 84), "slabs", (150, 150, 146)),
    ("foliage", (64, 92, 56), "slabs", (172, 166, 156)),
    ("foliage", (124, 140, 122), "grass", (98, 128, 70)),
    ("fronts", (196, 190, 180), "tiles", (184, 170, 152)),
    ("fronts", (92, 98, 106), "slabs", (132, 130, 130)),
    ("cars", (158, 166, 174), "road", (96, 98, 102)),
)


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera: where it looks, and what it does to an image."""

    scene: Image.Image  # the place, wider and higher than a crop
    yaw: float  # radians that people mostly turn from facing it: 0 shows faces, pi shows backs
    elevation: float  # radians above the horizontal
    mix: tuple[float, ...]  # 3 x 4 colour matrix, row by row
    gamma: float
    contrast: float
    lines: float  # rows of its sensor that a crop covers, at most HEIGHT
    lights: Float32[np.ndarray, "L 128 64 1"]  # factors: sun and shade
    grain: Float32[np.ndarray, "256 128 3"]  # noise, in grey levels


def _backdrop(draw: ImageDraw, motif: str, color: Color, bottom: int, rng: Rng) -> None:
    draw.rectangle((0, 0, _SCENE_WIDTH, bottom), color)
    if motif == "bricks":
        for row, y in enumerate(range(-2, bottom, 11)):
            for x in range(-(row % 2) * 14, _SCENE_WIDTH, 28):
                draw.rectangle((x, y, x + 25, min(y + 8, bottom)), near(rng, color, 9.0))
    elif motif == "foliage":
        for x in range(40, _SCENE_WIDTH, 120):
            draw.rectangle((x, 0, x + 12, bottom), (84, 66, 50))
        for _ in range(420):
            x, y = int(rng.integers(_SCENE_WIDTH)), int(rng.integers(bottom))
            draw.ellipse((x - 14, y - 10, x + 14, min(y + 10, bottom)), near(rng, (62, 96, 48), 18.0))
    elif motif == "fronts":
        for x in range(10, _SCENE_WIDTH, 96):
            draw.rectangle((x, bottom - 150, x + 74, bottom - 14), near(rng, (84, 100, 112), 16.0))
            draw.rectangle((x + 5, bottom - 90, x + 34, bottom - 20), near(rng, (150, 140, 120), 30.0))
            draw.rectangle((x + 42, bottom - 70, x + 70, bottom - 20), near(rng, (130, 120, 130), 30.0))
            draw.rectangle((x - 4, bottom - 172, x + 78, bottom - 148), near(rng, (140, 100, 84), 30.0))
    elif motif == "cars":
        for x in range(-30, _SCENE_WIDTH, 190):
            draw.rounded_rectangle((x + 28, bottom - 74, x + 128, bottom - 30), 18, (52, 58, 66))
            draw.rounded_rectangle((x, bottom - 48, x + 164, bottom - 8), 12, near(rng, (140, 140, 146), 40.0))
            for wheel in (x + 18, x + 116):
                draw.ellipse((wheel, bottom - 26, wheel + 28, bottom + 2), (30, 30, 32))


def _ground(draw: ImageDraw, motif: str, color: Color, top: int, rng: Rng) -> None:
    draw.rectangle((0, top, _SCENE_WIDTH, _SCENE_HEIGHT), color)
    if motif in ("slabs", "tiles"):
        lines = [top + (_SCENE_HEIGHT - top) * (i / 9) ** 1.6 for i in range(10)]
        for row in range(9):
            ends = [(y, 40 + 80 * (y - top) / (_SCENE_HEIGHT - top)) for y in lines[row : row + 2]]
            for i in range(-12, 12):
                corners = [(_SCENE_WIDTH / 2 + i * step, y) for y, step in ends]
                corners += [(_SCENE_WIDTH / 2 + (i + 1) * step, y) for y, step in reversed(ends)]
                dark = motif == "tiles" and (i + row) % 2
                draw.polygon(corners, near(rng, (160, 120, 104) if dark else color, 4.0), (120, 116, 112))
    elif motif == "grass":
        for _ in range(2500):
            x, y = int(rng.integers(_SCENE_WIDTH)), int(rng.integers(top + 7, _SCENE_HEIGHT))
            draw.line((x, y, x + rng.normal(0, 2), y - 7), near(rng, color, 16.0), 2)
    elif motif == "road":
        draw.rectangle((0, top, _SCENE_WIDTH, top + 22), (166, 164, 160))
        for x in range(0, _SCENE_WIDTH, 150):
            draw.polygon([(x, 330), (x + 80, 330), (x + 66, 344), (x - 18, 344)], (214, 214, 206))


def _scene(place: int, elevation: float, rng: Rng) -> Image.Image:
    backdrop, wall, ground, floor = _PLACES[place]
    image = Image.new("RGB", (_SCENE_WIDTH, _SCENE_HEIGHT))
    draw, horizon = Draw(image), int(250 - 280 * elevation)
    _ground(draw, ground, near(rng, floor, 6.0), horizon, rng)
    _backdrop(draw, backdrop, near(rng, wall, 6.0), horizon, rng)
    return image


def _lights(rng: Rng) -> Float32[np.ndarray, "8 128 64 1"]:
    """Returns soft light and shade, falling off to one end."""
    coarse = rng.normal(1, 0.08, (8, 5, 3)).astype(np.float32)
    coarse *= np.linspace(rng.uniform(0.8, 1.15), 1, 5, dtype=np.float32)[:, None]
    return np.stack([np.asarray(Image.fromarray(c).resize((WIDTH, HEIGHT))) for c in coarse])[..., None]


def sample_cameras(rng: Rng) -> tuple[Camera, ...]:
    """Returns the cameras. Each property is spread evenly over them, in random order, so any two differ."""

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


def develop(image: Image.Image, camera: Camera, rng: Rng) -> UInt8[np.ndarray, "128 64 3"]:
    """Returns what optics, sensor and light of a camera make of an image.

    Args:
        image: RGB, of the shape of a crop and of any size.
        camera: the camera.
        rng: chooses the rest: sharpness, exposure, light and noise.

    Returns:
        RGB, of the size of Market-1501's crops.
    """
    rows = round(camera.lines * rng.uniform(0.85, 1.0))
    image = image.resize((rows // 2, rows), Image.Resampling.BOX).convert("RGB", camera.mix)
    levels = np.linspace(0, 1, 256) ** (camera.gamma * rng.uniform(0.92, 1.08))
    levels = 255 * ((levels - 0.45) * camera.contrast + 0.45) * rng.uniform(0.92, 1.08)
    table = levels.clip(0, 255).astype(np.uint8).tolist() * 3
    image = image.point(table).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    y, x = int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))
    pixels = np.asarray(image) * rng.choice(camera.lights) + camera.grain[y : y + HEIGHT, x : x + WIDTH]
    return pixels.clip(0, 255).astype(np.uint8)
