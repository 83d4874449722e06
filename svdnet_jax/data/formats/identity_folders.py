"""One folder an identity, as torchvision's ImageFolder reads them: ``train/anna/1.jpg``.

``train``, ``query`` and ``gallery`` lie above the identities, or ``train`` and ``test``, whose images are query and
gallery at once; ``train_all`` (layumi's ``pytorch/train_all/0002/0002_c1s1_000451_03.jpg``) is taken before ``train``.
Without any of these all images are for training, and the layout must be asked for: any folder of folders looks so.
Names of folders are identities by the rules of `texts`. Cameras are in the names of files, by a pattern that is given
or, where all names have the form of one published data set, by that; else all images are camera 1's.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from svdnet_jax.data.formats import known, texts
from svdnet_jax.data.formats.market_style import SplitFiles, entries
from svdnet_jax.data.formats.one_set import is_one_set, with_own_cameras
from svdnet_jax.data.index import SHOWN, SPLITS, ImageRecord
from svdnet_jax.data.unread import IMAGES, by_kind
from svdnet_jax.errors import ConfigError, DataError

SIGN = (
    "a folder for each identity in train (or train_all), query and gallery, or in train and test; without these ask "
    "for it by `data.layout`"
)
_TRAIN = ("train_all", "train")


def has_splits(folder: Path) -> bool:
    """Returns whether the identities lie below folders of the splits."""
    return bool(_places(folder))


def lacking(folder: Path) -> str:
    """Returns what keeps ``folder`` from being such a data set; empty if nothing does."""
    if not folder.is_dir():
        return "no folder"
    for place in dict.fromkeys(_places(folder).values()) or ["."]:
        # Of a folder of thousands the first few will do.
        inner = (kind for inside, _, kind in islice(entries(folder, f"{place}/*", IMAGES), 1000) if inside)
        if None not in inner:
            return f"no folders with images in {folder / place}"
    return ""


def read(folder: Path, camera: str | None = None) -> SplitFiles:
    r"""Lists the images.

    Args:
        folder: Where `lacking` finds nothing missing.
        camera: A regular expression that finds the camera in a file's name: its first group, as in ``cam(\d+)``.

    Raises:
        ConfigError: It is none, or has no group.
        DataError: Two folders may be meant as one identity, or a file's name has no camera; names it.
    """
    pattern = _compiled(camera)
    places = _places(folder) or {"train": "."}
    unread: list[tuple[str, Path]] = []
    found: dict[str, list[tuple[str, Path, str]]] = {split: [] for split in SPLITS}
    for split, place in places.items():
        for inner, entry, kind in entries(folder, f"{place}/*", IMAGES):
            if kind is None and inner:
                found[split].append((inner[:-1], Path(entry.path), f"{place}/{inner}{entry.name}".removeprefix("./")))
            elif place != "." or inner:  # else the files beside the identities are nobody's images
                unread.append((kind or "", Path(entry.path)))
    people = {name for images in found.values() for name, _, _ in images}
    _refuse_doubts(folder, people)
    pids = texts.numbers({texts.spelled(name) for name in people})
    cameras = _cameras([path for images in found.values() for _, path, _ in sorted(images)], camera, pattern)
    splits = {
        split: tuple(
            sorted(
                (ImageRecord(path, pids[texts.spelled(name)], cameras[path], label) for name, path, label in images),
                key=lambda crop: crop.name,
            )
        )
        for split, images in found.items()
    }
    notes = []
    if not any(cameras.values()):
        splits = {split: tuple(crop._replace(camera=1) for crop in crops) for split, crops in splits.items()}
        if is_one_set(splits):
            splits, note = with_own_cameras(splits)
            notes.append(note)
    kinds = dict.fromkeys((kind, path) for kind, path in unread if kind)
    return SplitFiles(splits, unread=by_kind(kinds), people=texts.names_of(pids), notes=tuple(notes))


def _places(folder: Path) -> dict[str, str]:
    """Returns the folder of each split; none where identities lie in the folder itself."""
    train = next((name for name in _TRAIN if (folder / name).is_dir()), "")
    if (folder / "query").is_dir() and (folder / "gallery").is_dir():
        return ({"train": train} if train else {}) | {"query": "query", "gallery": "gallery"}
    return {"train": train, "query": "test", "gallery": "test"} if train and (folder / "test").is_dir() else {}


def _compiled(camera: str | None) -> re.Pattern[str] | None:
    if camera is None:
        return None
    try:
        pattern = re.compile(camera)
    except re.error as error:
        raise ConfigError(f"`data.camera_pattern` {camera}: is no regular expression ({error})") from error
    if not pattern.groups:
        raise ConfigError(f"`data.camera_pattern` {camera}: has no group; put the camera into brackets, cam(\\d+)")
    return pattern


def _cameras(paths: list[Path], camera: str | None, given: re.Pattern[str] | None) -> Mapping[Path, int]:
    """Returns the camera of each image; 0 for all of them where nobody says it."""
    if given:
        matches = {path: given.search(path.name) for path in paths}
        without = [path for path, match in matches.items() if not (match and match[1])]
        if without:
            raise DataError(
                f"{len(without)} of {len(paths)} images have no camera by `data.camera_pattern` {camera}, the first is "
                f"{without[0]}; give another pattern, or none"
            )
        found = {path: match[1] for path, match in matches.items() if match}
        numbered = texts.numbers(set(found.values()), ())
        return {path: numbered[text] for path, text in found.items()}
    for naming in _published_names():
        named = {path: naming.match(path.name) for path in paths}
        if all(named.values()):
            return {path: int(match["camera"]) for path, match in named.items() if match}
    return dict.fromkeys(paths, 0)


def _published_names() -> Iterator[re.Pattern[str]]:
    for layout in (*known.IN_FOLDERS.values(), *known.CUHK03_IN_FOLDERS.values()):
        if "camera" in layout.naming.pattern.groupindex:
            yield layout.naming.pattern


def _refuse_doubts(folder: Path, people: set[str]) -> None:
    """Refuses names of folders of which nobody knows whom they mean, as in a manifest."""
    problems: list[str] = []
    seen: dict[str, str] = {}
    for name in sorted(people):
        spelled = texts.spelled(name)
        if doubt := texts.doubt(spelled):
            problems.append(f"found the identity {name!r}, {doubt}")
        other = seen.setdefault(texts.meant(spelled), name)
        if texts.spelled(other) != spelled:
            problems.append(f"found the identities {other!r} and {name!r}; if they are one, give them one name")
        if texts.INTEGER.fullmatch(spelled) and int(spelled) < -1:
            problems.append(f"found the identity {name}, expected -1 (junk), 0 (distractor) or more")
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{folder}: {'; '.join(problems[:SHOWN])}{more}")
