"""Paints a pedestrian of the built-in data set.

People are jointed figures in three dimensions, in units of their own height (x to their left, y up,
z ahead), turned by a yaw, seen from a little above, and painted far parts first.
"""

import math
from dataclasses import dataclass
from functools import partial

from PIL.ImageDraw import ImageDraw

from svdnet_jax.data.synthetic.identities import Color, Identity

Paint = tuple[int, ...]  # a colour, or one with its opacity
Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Where somebody stands and how; lengths in canvas pixels, angles in radians."""

    x: float
    ground: float
    size: float
    yaw: float
    elevation: float
    lean: float
    phase: float
    stride: float

    def at(self, x: float, y: float, z: float) -> Point:
        """Returns the place on the canvas of a point of the body."""
        across = x * math.cos(self.yaw) + z * math.sin(self.yaw)
        towards = z * math.cos(self.yaw) - x * math.sin(self.yaw)
        up = y * math.cos(self.elevation) - towards * math.sin(self.elevation)
        return self.x + self.size * (across + self.lean * y), self.ground - self.size * up

    def extent(self, wide: float, deep: float) -> float:
        """Returns the half the width on the canvas of an ellipse seen from the side."""
        return self.size * math.hypot(wide * math.cos(self.yaw), deep * math.sin(self.yaw))

    def span(self, center: float, half: float) -> Point | None:
        """Returns what is seen of an arc around the body, as a range of [-1, 1] across it; 0 is ahead."""
        turn = math.remainder(center + self.yaw, 2 * math.pi)
        low, high = max(turn - half, -math.pi / 2), min(turn + half, math.pi / 2)
        return (math.sin(low), math.sin(high)) if low < high else None

    @property
    def far(self) -> int:
        """Whether the left (1) or the right (-1) limbs are further away."""
        return 1 if math.sin(self.yaw) > 0 else -1

    def swing(self, side: int) -> Point:
        """Returns the angle of that leg at the hip, and how far its knee is bent."""
        phase = self.phase + (math.pi if side < 0 else 0)
        return self.stride * math.sin(phase), self.stride * 0.9 * max(0.0, math.cos(phase))


def shade(color: Color, factor: float) -> Color:
    """Returns the colour, lighter or darker by a factor."""
    red, green, blue = (min(int(c * factor), 255) for c in color)
    return red, green, blue


def _limb(draw: ImageDraw, a: Point, b: Point, at_a: float, at_b: float, color: Color) -> None:
    """Returns a rounded, tapered bar from a to b; at_a and at_b are half widths."""
    (ax, ay), (bx, by) = a, b
    length = math.hypot(bx - ax, by - ay) or 1.0
    nx, ny = (ay - by) / length, (bx - ax) / length
    outline = [(ax + nx * at_a, ay + ny * at_a), (bx + nx * at_b, by + ny * at_b)]
    outline += [(bx - nx * at_b, by - ny * at_b), (ax - nx * at_a, ay - ny * at_a)]
    draw.polygon(outline, color)
    draw.ellipse((ax - at_a, ay - at_a, ax + at_a, ay + at_a), color)
    draw.ellipse((bx - at_b, by - at_b, bx + at_b, by + at_b), color)


def _row(pose: Pose, who: Identity, v: float) -> tuple[float, float, float]:
    """Returns centre, line and half width on the canvas of the trunk; v is 0 at shoulders, 1 at hem."""
    x, y = pose.at(0.0, 0.805 * (1 - v) + (who.legs - 0.035) * v, 0.0)
    wide = 0.1 - 0.014 * v - 0.01 * math.sin(math.pi * v)
    return x, y, pose.extent(wide * who.width, (0.062 + 0.012 * v) * who.width)


def _patch(draw: ImageDraw, pose: Pose, who: Identity, u: Point, v: Point, color: Paint) -> None:
    """Paints a part of the trunk: a range u across in [-1, 1], and v down; 1 is the hem."""
    rows = [_row(pose, who, v[0] + (v[1] - v[0]) * i / 4) for i in range(5)]
    left = [(x + u[0] * half, y) for x, y, half in rows]
    draw.polygon(left + [(x + u[1] * half, y) for x, y, half in reversed(rows)], color)


def _trunk(draw: ImageDraw, pose: Pose, who: Identity) -> None:
    paint = partial(_patch, draw, pose, who)
    x, y, half = _row(pose, who, 0.0)
    draw.ellipse((x - half, y - 0.03 * pose.size, x + half, y + 0.05 * pose.size), who.top)
    paint((-1.0, 1.0), (0.0, 1.0), who.top)
    if who.pattern in ("horizontal", "checks"):
        for i in range(5):
            paint((-1.0, 1.0), (0.08 + 0.19 * i, 0.17 + 0.19 * i), who.accent)
    if who.pattern in ("vertical", "checks"):
        for i in range(4):
            paint((-0.9 + 0.5 * i, -0.66 + 0.5 * i), (0.0, 1.0), who.accent)
    if who.pattern == "two-tone":
        paint((-1.0, 1.0), (0.42, 1.0), who.accent)
    if who.pattern in ("logo", "jacket") and (ahead := pose.span(0.0, 0.52)):
        paint(ahead, (0.16, 0.48) if who.pattern == "logo" else (0.0, 1.0), who.accent)
    paint((0.35, 1.0), (0.0, 1.0), (0, 0, 0, 38))  # the side away from the light


def _leg(draw: ImageDraw, pose: Pose, who: Identity, side: int) -> None:
    forward, bend = pose.swing(side)
    x, thigh, shin, low = 0.05 * side * who.width, 0.5 * who.legs, 0.45 * who.legs, forward - bend
    knee = (x, who.legs - thigh * math.cos(forward), thigh * math.sin(forward))
    ankle = (x, knee[1] - shin * math.cos(low), knee[2] + shin * math.sin(low))
    dim, slim = 0.82 if side == pose.far else 1.0, pose.size * who.width
    cloth, skin = shade(who.lower_color, dim), shade(who.skin, dim)
    hip, joint, foot = pose.at(x, who.legs, 0.0), pose.at(*knee), pose.at(*ankle)
    toe = pose.at(x * 1.3, ankle[1] - 0.025, ankle[2] + 0.07)
    _limb(draw, foot, toe, 0.024 * pose.size, 0.019 * pose.size, shade(who.shoes, dim))
    slack, cover = (1.25, cloth) if who.lower == "trousers" else (0.9, skin)
    _limb(draw, joint, foot, 0.03 * slack * slim, 0.023 * slack * slim, cover)
    slack, cover = (0.85, skin) if who.lower == "skirt" else (1.05, cloth)
    _limb(draw, hip, joint, 0.05 * slack * slim, 0.035 * slack * slim, cover)


def _arm(draw: ImageDraw, pose: Pose, who: Identity, side: int) -> None:
    swing = -0.8 * pose.swing(side)[0]
    x, fore = 0.098 * side * who.width, swing + 0.3  # elbows stay a little bent
    elbow = (x * 1.2, 0.78 - 0.165 * math.cos(swing), 0.165 * math.sin(swing))
    wrist = (x * 1.17, elbow[1] - 0.15 * math.cos(fore), elbow[2] + 0.15 * math.sin(fore))
    dim, slim, s = 0.86 if side == pose.far else 0.95, pose.size * who.width, pose.size
    sleeve, skin = shade(who.top, dim), shade(who.skin, dim)
    joint, (hx, hy) = pose.at(*elbow), pose.at(*wrist)
    _limb(draw, joint, (hx, hy), 0.022 * slim, 0.019 * slim, sleeve if who.sleeves == "long" else skin)
    draw.ellipse((hx - 0.017 * s, hy - 0.017 * s, hx + 0.017 * s, hy + 0.017 * s), skin)
    _limb(draw, pose.at(x, 0.775, 0.0), joint, 0.034 * slim, 0.026 * slim, sleeve)
    if who.bag == "hand" and side > 0:
        draw.line((hx - 0.03 * s, hy + 0.05 * s, hx, hy, hx + 0.03 * s, hy + 0.05 * s), who.bag_color, 2)
        draw.rectangle((hx - 0.05 * s, hy + 0.04 * s, hx + 0.05 * s, hy + 0.13 * s), who.bag_color)


def _head(draw: ImageDraw, pose: Pose, who: Identity) -> None:
    s = pose.size / who.height  # heads grow less than bodies
    (x, y), neck = pose.at(0.0, 0.925, 0.012), pose.at(0.0, 0.83, 0.0)
    rx, ry = 0.05 * s, 0.064 * s
    if who.hair_style == "long":
        fall = neck[1] + 0.055 * pose.size
        draw.rounded_rectangle((x - 1.18 * rx, y - ry, x + 1.18 * rx, fall), 1.1 * rx, who.hair)
    if who.hair_style != "long" or math.cos(pose.yaw) > 0:
        _limb(draw, neck, (x, y), 0.03 * s, 0.028 * s, shade(who.skin, 0.85))
    cover = who.skin if who.hair_style == "bald" else who.hair
    draw.ellipse((x - 1.06 * rx, y - 1.12 * ry, x + 1.06 * rx, y + 0.9 * ry), cover)
    if face := pose.span(0.0, 1.2):
        draw.ellipse((x + face[0] * rx, y - 0.5 * ry, x + face[1] * rx, y + ry), who.skin)
    if who.hair_style == "cap":
        draw.pieslice((x - 1.1 * rx, y - 1.2 * ry, x + 1.1 * rx, y + 0.7 * ry), 180, 360, who.accent)
        if math.cos(pose.yaw) > -0.5:
            peak = x + 1.2 * rx * math.sin(pose.yaw)
            draw.ellipse((peak - rx, y - 0.36 * ry, peak + rx, y - 0.1 * ry), shade(who.accent, 0.7))


def _backpack(draw: ImageDraw, pose: Pose, who: Identity) -> None:
    s, (x, y) = pose.size, pose.at(0.0, 0.69, -0.085 * who.width)
    half, color = pose.extent(0.083, 0.05), who.bag_color
    draw.rounded_rectangle((x - half, y - 0.11 * s, x + half, y + 0.115 * s), 0.04 * s, color)
    if math.cos(pose.yaw) < 0:
        pocket = (x - 0.7 * half, y + 0.02 * s, x + 0.7 * half, y + 0.09 * s)
        draw.rounded_rectangle(pocket, 0.02 * s, shade(color, 0.75))


def _shoulder_bag(draw: ImageDraw, pose: Pose, who: Identity) -> None:
    s, (x, y), half = pose.size, pose.at(0.115 * who.width, 0.5, 0.0), pose.extent(0.035, 0.075)
    draw.rounded_rectangle((x - half, y - 0.03 * s, x + half, y + 0.085 * s), 0.02 * s, who.bag_color)


def _straps(draw: ImageDraw, pose: Pose, who: Identity) -> None:
    if who.bag == "backpack":
        for seen in filter(None, (pose.span(side, 0.16) for side in (-0.62, 0.62))):
            _patch(draw, pose, who, seen, (0.0, 0.5), who.bag_color)
    elif who.bag == "shoulder":
        x, y, half = _row(pose, who, 0.0)
        over = x - math.copysign(0.6 * half, math.cos(pose.yaw))
        draw.line((over, y, *pose.at(0.115 * who.width, 0.5, 0.0)), who.bag_color, 5)


def draw_person(draw: ImageDraw, pose: Pose, who: Identity) -> None:
    """Paints a person and the shadow; `draw` is in mode RGBA, which blends."""
    for wide, high in ((0.2, 0.045), (0.16, 0.035), (0.12, 0.025)):  # rings make the shadow soft
        x, a, b = pose.x + 0.08 * pose.size, wide * pose.size, high * pose.size
        draw.ellipse((x - a, pose.ground - b, x + a, pose.ground + b), (0, 0, 0, 26))
    bag = {"backpack": _backpack, "shoulder": _shoulder_bag}.get(who.bag)
    beyond = math.cos(pose.yaw) > 0 if who.bag == "backpack" else pose.far == 1
    _arm(draw, pose, who, pose.far)
    if bag and beyond:
        bag(draw, pose, who)
    _leg(draw, pose, who, pose.far)
    _leg(draw, pose, who, -pose.far)
    if who.lower == "skirt":
        _patch(draw, pose, who, (-1.15, 1.15), (0.92, 1.55), who.lower_color)
    _trunk(draw, pose, who)
    _straps(draw, pose, who)
    if bag and not beyond:
        bag(draw, pose, who)
    _head(draw, pose, who)
    _arm(draw, pose, who, -pose.far)
