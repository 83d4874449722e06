"""Identities that are texts on disk: pids are what is compared, and these say what to call them.

In memory they are a mapping from pid to text, of which those are left out that say no more than the number; it holds
for any choice of images. In files they are an array of one text an image, empty where the number says all.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Int64, Shaped

People = Mapping[int, str]
NUMBERS: People = MappingProxyType({})
"""No texts: all identities are called by their numbers."""


def called(people: People, pid: int) -> str:
    """Returns what an identity is called: its text, else its number."""
    return people.get(int(pid), str(pid))


def as_array(people: People, pids: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Returns the text of each image's identity, empty where there is none."""
    return np.array([people.get(pid, "") for pid in pids.tolist()], np.str_)


def from_array(texts: Shaped[np.ndarray, " n"], pids: Int64[np.ndarray, " n"]) -> People:
    """Returns what `as_array` was made from, as far as the pids go.

    Raises:
        ValueError: One pid has two texts.
    """
    people: dict[int, str] = {}
    for row, (pid, text) in enumerate(zip(pids.tolist(), texts.tolist(), strict=True)):
        known = people.setdefault(pid, text)
        if known != text:
            raise ValueError(
                f"people must be one text for each pid: row {row} calls pid {pid} {text!r}, and another {known!r}."
            )
    return {pid: text for pid, text in people.items() if text}


def refuse_other_people(query: People, gallery: People) -> None:
    """Refuses pids that stand for one person in the query and for another in the gallery.

    Raises:
        ValueError: Names the first of them.
    """
    differ = sorted(pid for pid in query.keys() & gallery.keys() if query[pid] != gallery[pid])
    if differ:
        pid = differ[0]
        raise ValueError(
            f"{len(differ)} pids mean other people in the query than in the gallery, the first is {pid}: {query[pid]} "
            f"and {gallery[pid]}. Embed both from one manifest, whose identities are numbered together."
        )
