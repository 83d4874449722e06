"""The data set that a network is tried on: options that commands share."""

from dataclasses import dataclass, replace
from pathlib import Path

from svdnet_jax.config.data import place_of
from svdnet_jax.config.flags import Flag
from svdnet_jax.config.layouts import Layout, ListSplit
from svdnet_jax.config.schema import Config
from svdnet_jax.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """The data set that a network is tried on."""

    root: Path | None = None
    """Folder of a data set, a CSV manifest or a prepared folder. Not given: what the run was trained on; for --weights
    the built-in synthetic pedestrians."""
    layout: Layout = "auto"
    """How it is laid out; auto looks."""
    camera_pattern: str | None = None
    """For a folder an identity: regular expression whose first group is the camera in a file's name, as cam(\\d+)."""
    split: ListSplit | None = None
    """Split of all images of a list without a column for it; not needed where its name is train.csv, query.csv ..."""
    outside: Flag = False
    """Read images that a manifest or links name outside of the data set's folder."""
    cache: Path = Path("runs/data")
    """Folder for prepared data."""
    validation: int = 0
    """So many training identities as query and gallery instead of the test set: those that the run held out, if it had
    the same number."""


def with_source(config: Config, source: Source, *, replaced: bool) -> Config:
    """Returns the settings of a network with a folder for prepared data and, if replaced, with other data."""
    data = replace(config.data, cache=source.cache)
    if replaced:
        _refuse_trained_on(config, source)
        data = replace(data, more=(), combine_all=False)
        data = replace(data, root=source.root, layout=source.layout, validation=source.validation)
        data = replace(data, outside=source.outside, camera_pattern=source.camera_pattern, split=source.split)
    return replace(config, data=data)


def _refuse_trained_on(config: Config, source: Source) -> None:
    """Refuses a test set that a run was trained on.

    Raises:
        ConfigError: Names it.
    """
    if source.root is None or not config.data.combine_all:
        return
    if source.root.resolve() in {place_of(each)[0].resolve() for each in config.data.more}:
        raise ConfigError(
            f"`data.root` {source.root}: the run was trained on its query and gallery too (`data.combine_all`), so "
            "nothing can be measured on it; give another data set"
        )
