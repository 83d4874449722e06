"""What the page may ask: read from what a browser sends, none of which is trusted."""

import json
from dataclasses import dataclass
from typing import Literal, TypeGuard, cast, get_args

Order = Literal["worst", "best", "gain", "loss", "name"]
"""Of queries: by average precision, by what the other side has more or less of it, or as they come."""
MOST_SHOWN = 200
"""Images or queries in one answer."""


@dataclass(frozen=True)
class Asked:
    """What to search for, and what to show."""

    source: str
    kind: str
    """``query``, ``gallery`` or ``image``."""
    row: int
    features: list[float]
    """Of an image from elsewhere."""
    cameras: list[int] | None
    """Those to show; None for all."""
    k: int
    everything: bool


def parse_asked(body: bytes) -> Asked:
    """Reads what the page sends, and trusts none of it.

    Raises:
        ValueError: It is no JSON, or holds something else; says what was expected.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected an object of JSON; {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected an object of JSON; found {type(found).__name__}")
    kind, cameras, features = found.get("kind"), found.get("cameras"), found.get("features", [])
    if kind not in ("query", "gallery", "image"):
        raise ValueError("kind must be query, gallery or image")
    if not isinstance(features, list) or not all(type(x) in (int, float) and abs(x) < 1e30 for x in features):
        raise ValueError("features must be a list of finite numbers")
    if cameras is not None and not (isinstance(cameras, list) and all(_is_int(camera) for camera in cameras)):
        raise ValueError("cameras must be a list of whole numbers, or null for all")
    if not isinstance(found.get("source"), str) or type(found.get("everything", False)) is not bool:
        raise ValueError("source must be a text, and everything true or false")
    row, k = found.get("row", 0), found.get("k")
    if not _is_int(row) or not _is_int(k) or not 1 <= k <= MOST_SHOWN:
        raise ValueError(f"row must be a whole number, and k one from 1 to {MOST_SHOWN}")
    return Asked(found["source"], kind, row, features, cameras, k, found.get("everything", False))


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) < 2**63


def parse_order(text: str) -> Order:
    """Returns an order by its name.

    Raises:
        ValueError: There is no such order.
    """
    if text not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}")
    return cast(Order, text)
