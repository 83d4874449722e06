"""Finds what a page shows: the embeddings that runs keep, their networks and their images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from rich.console import Console

from svdnet_jax.config.layouts import Layout
from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import from_json
from svdnet_jax.data.found import find_images
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.reporting.terminal import say
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs.dataset import load_test_dataset
from svdnet_jax.runs.directory import RunDir, read_settings
from svdnet_jax.runs.inference import Embedder, from_run
from svdnet_jax.web.panel import Panel, evaluated_panel, own_panel
from svdnet_jax.web.pictures import Pictures, from_arrays, from_folder
from svdnet_jax.web.projection import Map, project

KINDS = {"embedding": "Eigenlayer's output", "pooled": "Eigenlayer's input"}
T = TypeVar("T")


class Once(Generic[T]):
    """Makes a value when it is first asked for: once, whoever asks at the same time. A failure is not kept."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        """Returns the value."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


class Source(NamedTuple):
    """An embedding that the page can show: read when it is first chosen."""

    title: str
    panel: Once[Panel]
    map: Once[Map]
    network: str
    """Key of the network that makes it, for images from elsewhere; empty where there is none."""
    kind: str
    """``embedding`` or ``pooled``."""


@dataclass(frozen=True, eq=False)
class Served:
    """All that a page shows."""

    title: str
    sources: Mapping[str, Source]
    """By their ids, the one to begin with first."""
    beside: str
    """Id of the one to begin with on the right; empty for none."""
    networks: Mapping[str, Once[Embedder]]
    """By the run's number; each is read with the first image from elsewhere, as that takes seconds."""
    pictures: Mapping[str, Pictures]
    """Of ``query`` and ``gallery``."""
    counts: Mapping[str, int]
    """How many they are."""


@dataclass(frozen=True)
class Images:
    """Where the pictures are."""

    folder: Path | None = None
    """A folder of image files; None for the data set of the run."""
    root: Path | None = None
    """The data set, if it is not where the run had it."""
    layout: Layout = "auto"
    outside: bool = False
    cache: Path | None = None
    """Folder of prepared data, if it is not where the run had it."""


def load_served(run: Path, beside: Path | None, gallery: Path | None, images: Images, console: Console) -> Served:
    """Reads what a page begins with; the rest is read when somebody chooses it.

    Args:
        run: Folder of a run.
        beside: Folder of another run on the same data.
        gallery: Embeddings of somebody's own images by the run's network; None for the run's own test set.
        images: Where the pictures are.
        console: Where to say what is missing, and what takes long.

    Raises:
        ConfigError: A folder is no run or keeps no embeddings, or the options do not go together.
        DataError: There are no images, or of other data.
        ValueError: A file of embeddings that cannot be used.
    """
    if beside and gallery:
        raise ConfigError(
            "`beside` and `gallery` do not go together: a gallery is of one network; leave one of them out"
        )
    if gallery and not images.folder:
        raise ConfigError("`gallery` needs `images`, the folder that its images are in")
    networks: dict[str, Once[Embedder]] = {}
    sources: dict[str, Source] = {}
    settings, right = [], ""
    for number, folder in enumerate([run, beside] if beside else [run]):
        network = _network(folder, console)
        networks |= {str(number): network} if network else {}
        settings.append(from_json(read_settings(RunDir(folder))))
        name = f"{folder.resolve().name}: " if beside else ""
        found = _sources(folder, str(number), name, settings[-1], embeds=network is not None)
        right = next(iter(found)) if sources else ""
        sources |= found
    if gallery:
        sources = {"own": _own(gallery, sources)}
    first = next(iter(sources.values())).panel()
    if right:
        _check_same_images(first, sources[right].panel(), str(beside))
    title, pictures = _pictures(settings[0], images, first, gallery, console)
    counts = {"query": len(first.query.pids), "gallery": len(first.gallery.pids)}
    return Served(f"{run.resolve().name} on {title}", sources, right, networks, pictures, counts)


def _network(folder: Path, console: Console) -> Once[Embedder] | None:
    """Returns a run's network, read when it is needed; None, with a note, where there is no checkpoint.

    Raises:
        ConfigError: The folder is that of no run.
    """
    run_dir = RunDir(folder)
    if not run_dir.is_run and not run_dir.embeddings("embedding", "query").parent.is_dir():
        raise ConfigError(f"`run` {folder}: is not the folder of a run; give the one that training left")
    if run_dir.has_checkpoint:
        return Once(partial(from_run, folder))
    say(console, f"note: {folder} has no checkpoint, so pictures from elsewhere cannot be searched for", "yellow")
    return None


def _sources(folder: Path, number: str, name: str, settings: Config, embeds: bool) -> dict[str, Source]:
    """Returns the embeddings that a run keeps, the last ones of its Eigenlayer first.

    Raises:
        ConfigError: It keeps none yet.
    """
    run_dir = RunDir(folder)
    found = {}
    for kind, title in KINDS.items():
        for base in (False, True):
            files = [run_dir.embeddings(kind, split, base=base) for split in ("query", "gallery")]
            if not all(file.is_file() for file in files):
                continue
            after = "Step 0" if base else "the last round" if settings.rri.rounds else "training"
            panel = Once(partial(_read, files, settings))
            # Weights of Step 0 are not kept, so nothing new can be embedded by them.
            found[f"{number}-{kind}-{'base' if base else 'last'}"] = Source(
                f"{name}After {after}, {title}",
                panel,
                _map_of(panel),
                number if embeds and not base else "",
                kind,
            )
    if not found:
        raise ConfigError(
            f"`run` {folder}: keeps no embeddings yet; they are written when the run ends. Give its command again to "
            "let it go on"
        )
    return dict(sorted(found.items(), key=lambda item: ("embedding" not in item[0], "base" in item[0])))


def _map_of(panel: Once[Panel]) -> Once[Map]:
    return Once(lambda: project(panel()))


def _read(files: list[Path], settings: Config) -> Panel:
    query, gallery = map(Embeddings.load, files)
    return evaluated_panel(query, gallery, settings.eval.metric, settings.eval.cross_camera)


def _own(file: Path, sources: Mapping[str, Source]) -> Source:
    """Returns somebody's own gallery, beside the run's test set of the same embedding.

    Raises:
        ConfigError: It is not of the run's network.
    """
    gallery, models = Embeddings.load(file), []
    for source in sources.values():
        test = source.panel()
        if gallery.model and gallery.model == test.gallery.model:
            panel = Once(partial(own_panel, gallery, test))
            return source._replace(title=f"{file.name}: {source.title}", panel=panel, map=_map_of(panel))
        models.append(test.gallery.model)
    raise ConfigError(
        f"`gallery` {file}: is of the model {gallery.model or 'that nobody wrote down'}, and those of the run are "
        f"{', '.join(models)}; embed the images with the run (svdnet embed does)"
    )


def _check_same_images(first: Panel, other: Panel, where: str) -> None:
    for split in ("query", "gallery"):
        ours, theirs = (getattr(panel, split).names for panel in (first, other))
        if not np.array_equal(ours, theirs):
            raise DataError(
                f"`beside` {where}: its {split} has {len(theirs)} images and that of the run {len(ours)}, or they have "
                "other names; side by side are runs that were tested on the same images"
            )


def _pictures(
    config: Config, images: Images, panel: Panel, gallery: Path | None, console: Console
) -> tuple[str, dict[str, Pictures]]:
    """Returns what the images are called, and where they are read.

    Raises:
        DataError: There are none.
    """
    sets = {"query": panel.query.names.tolist(), "gallery": panel.gallery.names.tolist()}
    if images.folder:
        files = {record.name: record.path for record in find_images(images.folder).crops}
        found = {kind: from_folder(images.folder, files, names) for kind, names in sets.items()}
        missing = sum(count for _, count in found.values())
        total = sum(map(len, sets.values()))
        if missing == total:
            raise DataError(f"`images` {images.folder}: none of the {total} images is there, by path or by name")
        if missing:
            say(
                console,
                f"note: {missing} of {total} images are not in {images.folder}; they are shown without a picture",
            )
        return str(gallery or images.folder), {kind: pictures for kind, (pictures, _) in found.items()}
    data = replace(config.data, cache=images.cache or config.data.cache)
    if images.root:
        data = replace(data, root=images.root, layout=images.layout, outside=images.outside)
    dataset = load_test_dataset(replace(config, data=data), console)
    splits = {"query": dataset.query, "gallery": dataset.gallery}
    pictures = {}
    for kind, names in sets.items():
        held = splits[kind].names.tolist()
        if not {*held} & {*names}:
            raise DataError(
                f"{dataset.name}: has none of the images of the run's {kind}; give `images` or `data.root`, where they "
                "are now"
            )
        pictures[kind] = from_arrays(splits[kind].images, held, names)
    return dataset.name, pictures
