"""Identities of the built-in data set: build and clothes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

Color = tuple[int, int, int]
Palette = tuple[Color, ...]
Motif = Literal["plain", "horizontal", "vertical", "checks", "two-tone", "logo", "jacket"]
Rng = np.random.Generator
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


@dataclass(frozen=True)
class Identity:
    """One person: a build, and what is worn."""

    height: float  # relative to an average adult
    width: float  # of the body as a share of its height, relative to an average adult
    legs: float  # height of the hips, as a share of the height
    skin: Color
    hair: Color
    hair_style: Literal["short", "long", "bald", "cap"]
    top: Color
    accent: Color  # the pattern's second colour, the cap, the shirt under an open jacket
    pattern: Motif
    sleeves: Literal["short", "long"]
    lower: Literal["trousers", "shorts", "skirt"]
    lower_color: Color
    shoes: Color
    bag: Literal["none", "backpack", "shoulder", "hand"]
    bag_color: Color


def _pick(rng: Rng, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def near(rng: Rng, color: Color, spread: float) -> Color:
    """Returns a color like `color`; `spread` is in levels of gray."""
    shift = rng.normal(0, spread) + rng.normal(0, 0.5 * spread, 3)
    red, green, blue = (min(max(round(c + s), 6), 249) for c, s in zip(color, shift, strict=True))
    return red, green, blue


def sample_identity(rng: Rng) -> Identity:
    """Returns a random person."""
    return Identity(
        height=rng.uniform(0.88, 1.1),
        width=rng.uniform(0.8, 1.3),
        legs=rng.uniform(0.47, 0.52),
        skin=near(rng, _pick(rng, _SKINS), 5.0),
        hair=near(rng, _pick(rng, _HAIR), 5.0),
        hair_style=_pick(rng, ("short", "short", "short", "long", "long", "bald", "cap")),
        top=near(rng, _pick(rng, _CLOTHES), 15.0),
        accent=near(rng, _pick(rng, _CLOTHES), 15.0),
        pattern=_pick(rng, _PATTERNS),
        sleeves=_pick(rng, ("short", "long")),
        lower=_pick(rng, ("trousers", "trousers", "trousers", "shorts", "skirt")),
        lower_color=near(rng, _pick(rng, _LOWER), 14.0),
        shoes=near(rng, _pick(rng, _CLOTHES), 8.0),
        bag=_pick(rng, ("none", "none", "backpack", "backpack", "shoulder", "hand")),
        bag_color=near(rng, _pick(rng, _CLOTHES), 8.0),
    )


def sample_alike(model: Identity, rng: Rng) -> Identity:
    """Returns somebody else dressed nearly like `model`: two or three things differ, colours a little."""
    other = sample_identity(rng)
    differences: tuple[dict[str, Any], ...] = (
        {"bag": other.bag, "bag_color": other.bag_color},
        {"hair": other.hair, "hair_style": other.hair_style},
        {"shoes": other.shoes, "skin": other.skin},
        {"lower": other.lower, "lower_color": other.lower_color},
        {"sleeves": other.sleeves, "accent": other.accent},
    )
    alike = replace(model, height=other.height, width=other.width, top=near(rng, model.top, 6.0))
    alike = replace(alike, lower_color=near(rng, model.lower_color, 6.0))
    for number in rng.permutation(len(differences))[: int(rng.integers(2, 4))]:
        alike = replace(alike, **differences[int(number)])
    return alike
