"""The figure of `svdnet search`: the first queries and what was found, as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from svdnet_jax.cli.answers import PERSON, UNKNOWN, Answer
from svdnet_jax.data.found import find_images
from svdnet_jax.data.images import decode
from svdnet_jax.data.index import ImageRecord
from svdnet_jax.reporting.figures.ranked import RankedList, ranked_lists
from svdnet_jax.reporting.figures.style import save, short
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.web.pictures import Pictures, from_folder

QUERIES, IMAGES = 8, 10
"""At most so many queries are drawn, and so many images of each."""
SIZE = (96, 192)
"""Width and height of all pictures, which are brought to one shape as the network sees them in one."""


def draw_answers(
    path: Path, folder: Path, answers: Sequence[Answer], query: Embeddings, crops: Sequence[ImageRecord] = ()
) -> None:
    """Draws the head of the answers to the first queries; frames say right or wrong where both people are known.

    Args:
        path: The figure, a PNG.
        folder: Where the images lie: by their names as paths there, or by the last part of these if one file has it.
        answers: To all queries.
        query: The queries.
        crops: Their files; not given where they are in the folder too.

    Raises:
        DataError: A picture is not there, leads out of the folder or cannot be decoded.
        ValueError: There are no queries.
    """
    shown = answers[:QUERIES]
    found = [image for answer in shown for image in answer["nearest"][:IMAGES]]
    files = {record.name: record.path for record in find_images(folder).crops}
    pictures, _ = from_folder(folder, files, [_as_there(image["name"], files) for image in found])
    asked, _ = from_folder(folder, files, [_as_there(name, files) for name in query.names[:QUERIES].tolist()])
    rows, row = [], 0
    for number, answer in enumerate(shown):
        near = answer["nearest"][:IMAGES]
        pid, camera = int(query.pids[number]), int(query.cameras[number])
        own = decode(crops[number].path, str(crops[number].path)) if crops else asked(number)
        rows.append(
            RankedList(
                query=_of_one_size(own),
                query_caption=_caption(short(query.people, pid) if pid >= 0 else UNKNOWN, camera),
                gallery=_read(pictures, row, len(near)),
                # Nobody in particular (pid 0) is neither right nor wrong.
                right=[image["pid"] == pid if pid > 0 and image["pid"] is not None else None for image in near],
                captions=[f"{_caption(_who(image), image['camera'])}  {image['distance']:.2f}" for image in near],
                average_precision=None,
                query_name=str(answer["query"]),
                names=[image["name"] for image in near],
            )
        )
        row += len(near)
    which = f"The first {len(shown)} of {len(answers)} queries: u" if len(shown) < len(answers) else "U"
    title = f"{which}nder each image its pid, camera and distance"
    save(ranked_lists({"Query, and the nearest": rows}, title), path)


def _as_there(name: str, files: Mapping[str, Path]) -> str:
    """Returns the name, or its last part where it is a path of another machine."""
    return name if name in files else name.replace("\\", "/").rpartition("/")[2]


def _who(image: dict[str, Any]) -> str:
    pid = image["pid"]
    return UNKNOWN if pid is None else short({pid: image[PERSON]} if PERSON in image else {}, pid)


def _caption(who: str, camera: int) -> str:
    return who if who == UNKNOWN else f"{who} c{camera}"


def _read(pictures: Pictures, start: int, count: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    return [_of_one_size(pictures(row)) for row in range(start, start + count)]


def _of_one_size(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(picture.convert("RGB").resize(SIZE))
