"""Draws one crop of the built-in data set: pose in the box, and what stands in the way.

A crop is painted on twice its final size, from back to front, and then goes through its camera.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.ImageDraw import Draw, ImageDraw

from svdnet_jax.data.synthetic.cameras import HEIGHT, WIDTH, Camera, develop
from svdnet_jax.data.synthetic.identities import Identity, Rng
from svdnet_jax.data.synthetic.pedestrians import Point, Pose, draw_person, shade

Framing = Literal["good", "poor", "bad"]

_W, _H = 2 * WIDTH, 2 * HEIGHT  # the canvas that is painted on

# The person's height in canvas heights, offset to either side in widths, offset down in heights.
_FRAMINGS: dict[Framing, tuple[Point, Point, Point]] = {
    "good": ((0.82, 0.98), (0.0, 0.06), (-0.03, 0.03)),
    "poor": ((0.6, 1.5), (0.05, 0.4), (-0.2, 0.2)),
    "bad": ((1.0, 2.4), (0.35, 0.7), (-0.7, 0.7)),
}


def _sample_pose(camera: Camera, framing: Framing, rng: Rng) -> Pose:
    size, aside, down = _FRAMINGS[framing]
    high, usual = rng.uniform(*size) * _H, rng.random() < 0.75
    return Pose(
        x=_W * (0.5 + (-1 if rng.random() < 0.5 else 1) * rng.uniform(*aside)),
        ground=0.5 * _H + 0.47 * high + _H * rng.uniform(*down),
        size=high / math.cos(camera.elevation),  # detectors fit their box to what they see
        yaw=camera.yaw + rng.normal(0, 0.4) if usual else rng.uniform(-math.pi, math.pi),
        elevation=camera.elevation,
        lean=rng.normal(0, 0.025),
        phase=rng.uniform(0, 2 * math.pi),
        stride=rng.uniform(0.05, 0.5),
    )


def _obstacle(draw: ImageDraw, rng: Rng) -> None:
    """Returns something that stands in front: a pole, a bicycle or a bush."""
    red, green, blue = (int(c) for c in rng.integers(50, 190, 3))
    color, chance = (red, green, blue), rng.random()
    if chance < 0.3:
        x, half = rng.uniform(0.15, 0.85) * _W, rng.uniform(4, 10)
        draw.rectangle((x - half, 0, x + half, _H), shade(color, 0.7))
        draw.rectangle((x - half * 0.5, 0, x, _H), shade(color, 0.9))
    elif chance < 0.6:
        x, y, r = rng.uniform(0.1, 0.6) * _W, rng.uniform(0.85, 1.0) * _H - 30, 30
        for hub in (x, x + 2.4 * r):
            draw.ellipse((hub - r, y - r, hub + r, y + r), outline=(36, 36, 38), width=4)
        seat, bars, pedal = (x + 0.8 * r, y - 1.3 * r), (x + 2 * r, y - 1.4 * r), (x + 1.2 * r, y)
        draw.line([(x, y), seat, bars, pedal, seat], color, 5)
        draw.line([(x, y), pedal, (x + 2.4 * r, y), (x + 1.9 * r, y - 1.8 * r)], color, 5)
    else:
        middle, top = rng.uniform(0, 1) * _W, rng.uniform(0.62, 0.85) * _H
        for _ in range(26):
            x, y = rng.normal(middle, 26), rng.uniform(top, _H)
            draw.ellipse((x - 12, y - 10, x + 12, y + 10), shade((66, 104, 50), rng.uniform(0.5, 1.25)))


def render(
    who: Identity | None,
    camera: Camera,
    rng: Rng,
    crowd: Sequence[Identity],
    framing: Framing = "good",
) -> UInt8[np.ndarray, "128 64 3"]:
    """Draws one crop.

    Args:
        who: the person the crop is of; None for a box with nobody in it.
        camera: the camera that takes it.
        rng: chooses the rest: pose, place, light, what stands in front and who passes by.
        crowd: at least one stranger who may pass by.
        framing: how well the box fits; "bad" shows a part of the person at most.

    Returns:
        RGB, of the size of Market-1501's crops.
    """
    zoom = rng.uniform(0.8, 1.2)
    left = rng.uniform(0, camera.scene.width - _W * zoom)
    top = rng.uniform(0.5, 1) * (camera.scene.height - _H * zoom)
    box = (left, top, left + _W * zoom, top + _H * zoom)
    image = camera.scene.resize((_W, _H), Image.Resampling.BILINEAR, box=box)
    draw = Draw(image, "RGBA")
    pose = _sample_pose(camera, framing, rng)
    aside = (-1 if rng.random() < 0.5 else 1) * rng.uniform(0.35, 0.6) * _W
    passer = replace(pose, x=pose.x + aside, yaw=rng.uniform(-math.pi, math.pi))
    stranger = crowd[int(rng.integers(len(crowd)))]
    event = rng.random()
    if event < 0.25:  # behind: smaller, and higher up on the ground
        small = rng.uniform(0.6, 0.85)
        beyond = replace(passer, size=small * pose.size, ground=pose.ground - 90 * (1 - small))
        draw_person(draw, beyond, stranger)
    if who is not None:
        draw_person(draw, pose, who)
    if 0.25 < event < 0.31:
        draw_person(draw, replace(passer, ground=pose.ground + 0.06 * _H), stranger)
    elif event > 0.86:
        _obstacle(draw, rng)
    return develop(image, camera, rng)
