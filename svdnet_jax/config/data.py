"""The settings of a run's data; `svdnet_jax.config.schema` holds the others."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from svdnet_jax.config.layouts import Layout, ListSplit


def place_of(entry: str) -> tuple[Path, str]:
    """Returns folder and layout of an entry of `data.more`: FOLDER or FOLDER:LAYOUT."""
    folder, _, layout = entry.rpartition(":")
    return (Path(folder), layout) if folder and layout in get_args(Layout) else (Path(entry), "auto")


@dataclass(frozen=True)
class Synthetic:
    """The built-in pedestrians, used when data.root is not given."""

    train_identities: int = 120
    """Identities to train on."""
    train_images: int = 16
    """Images per training identity."""
    test_identities: int = 500
    """Identities of query and gallery, disjoint from the training ones."""
    gallery_images: int = 2
    """Gallery images of each test identity in each camera that sees it; there is one query there too."""
    distractors: int = 120
    """Gallery images of nobody in particular (pid 0)."""
    junk: int = 60
    """Gallery images of bad detections (pid -1), left out of the evaluation."""
    alike: float = 0.5
    """Share of identities dressed nearly like another one: the non-uniform samples of the paper."""
    seed: int = 0
    """Seed of the generator; independent of the seed of training."""


@dataclass(frozen=True)
class Data:
    """What to train and test on, and how images reach the network."""

    root: Path | None = None
    """Folder of a data set (or its parent), a CSV manifest, or a prepared folder. Not given: built-in synthetic
    pedestrians."""
    layout: Layout = "auto"
    """How the folder is laid out; auto looks."""
    camera_pattern: str | None = None
    """For a folder an identity: regular expression whose first group is the camera in a file's name, as cam(\\d+)."""
    split: ListSplit | None = None
    """Split of all images of a list without a column for it; not needed where its name is train.csv, query.csv ..."""
    outside: bool = False
    """Read images that a manifest or links name outside of the data set's folder; refused otherwise, as a stranger's
    list could name any image of yours."""
    more: tuple[str, ...] = ()
    """Further data sets to train on, each FOLDER or FOLDER:LAYOUT: identities and cameras are kept apart from those of
    data.root, whose test set gives the run's numbers. The others are tested by their names."""
    combine_all: bool = False
    """Train on query and gallery of the data sets in data.more too; then they are not tested."""
    cache: Path = Path("runs/data")
    """Folder for the synthetic images and for prepared data."""
    validation: int = 0
    """Number of training identities held out as a validation query and gallery set, for choosing settings; the test
    set is not touched (100 of Market-1501's 751 is usual). 0: evaluate on the test set."""
    height: int = 64
    """Height the network sees, in pixels."""
    width: int = 32
    """Width the network sees, in pixels."""
    batch_size: int = 64
    """Images per optimizer step."""
    num_instances: int = 0
    """Images of each identity in a batch (K of PK sampling). 0: images are drawn whoever they show."""
    flip: bool = True
    """Mirror half of the training images."""
    crop_padding: int = 0
    """Training images are padded by so many pixels and cut back to their size at a random place."""
    erase_prob: float = 0.0
    """Share of training images of which a random rectangle is blotted out (random erasing)."""
    synthetic: Synthetic = field(default_factory=Synthetic)
