"""Identities and cameras that are texts: how they are read, what is doubtful in them, and their numbers.

Two Unicode forms of one text (NFC, NFD) are one. If all are whole numbers they stay what they are, else they are
numbered from 1 in sorted order; in both cases -1 is a gallery's junk and 0 its distractors, as in Market-1501.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping

from svdnet_jax.data.types import DISTRACTOR, JUNK

INTEGER = re.compile(r"-?[0-9]{1,18}")
_FLOAT = re.compile(r"(-?[0-9]{1,15})\.0+")  # as pandas writes whole numbers, if one is missing in their column
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_MISSING = ("nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "nat", "none", "null")  # in small letters


def spelled(text: str) -> str:
    """Returns the text in one of its Unicode forms, a whole number without what pandas adds."""
    whole = _FLOAT.fullmatch(text)
    return whole[1] if whole else unicodedata.normalize("NFC", text)


def doubt(text: str) -> str:
    """Returns why it is not certain what the text means, and what to do; empty if it is."""
    if text.lower() in _MISSING:
        return "which is how a missing one is written; take the row away, or give a name (-1 for a gallery's junk)"
    if _NUMBER.fullmatch(text) and not INTEGER.fullmatch(text) and not text.isdecimal():
        return "a number that is not written as a whole one; write it out (1000 for 1e3) or as text (cam-1.5)"
    if not text.isprintable():
        return "which holds characters that are not seen; take them out"
    return ""


def meant(text: str) -> str:
    """Returns what two texts have in common that somebody may have meant as one."""
    if INTEGER.fullmatch(text):
        return str(int(text))
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def numbers(names: Collection[str], reserved: tuple[int, ...] = (JUNK, DISTRACTOR)) -> Mapping[str, int]:
    """Returns each name's number: its own if all are integers or it is reserved, else from 1 in sorted order."""
    integers = {name: int(name) for name in names if INTEGER.fullmatch(name)}
    if len(integers) == len(names):
        return integers
    kept = {name: number for name, number in integers.items() if number in reserved}
    return {name: n for n, name in enumerate(sorted(names - kept.keys()), start=1)} | kept


def names_of(numbered: Mapping[str, int]) -> Mapping[int, str]:
    """Returns the texts that numbers stand for; those that say more than the number."""
    return {number: text for text, number in numbered.items() if not INTEGER.fullmatch(text)}
