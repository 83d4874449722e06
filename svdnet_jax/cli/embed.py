"""Embeds images: of a folder, a list or a manifest, for searches among them.

    svdnet embed --images my_photos --run runs/synthetic --out mine.npz
    svdnet embed --images my_photos --weights resnet50.h5 --out mine.npz   ImageNet weights as they are
    svdnet embed --images mine.csv --split query --run runs/synthetic --out q.npz
    svdnet search --gallery mine.npz --index mine.index.npz                then search among them
    svdnet search --index mine.index.npz --query other.npz

Each image is to be a crop of one person, as a detector makes it. Images are found in the folder and in the folders in
it (bmp, gif, jpg, jpeg, png, tif, tiff, webp) and named by their paths there; what is not read is counted. A single
image will do, or a list (.txt, a path a line, relative to it). Whom they show is not known, so their pids are -1 and
their cameras 0. A manifest (CSV path,identity,camera,split) says it; identities that are names are numbered over the
whole of it, so its splits go together, and those of two manifests do not. Each is resized by itself, so its embedding
does not depend on what lies beside it. The file says by which network and which embedding it was made, and only files
of one network and embedding are compared. A thousand images take about 80 seconds with a ResNet-50 (preset
paper-resnet50) on two CPU cores. For data sets with known identities: svdnet evaluate --save.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from svdnet_jax.cli.exits import fail, fail_on
from svdnet_jax.config.flags import Flag
from svdnet_jax.data.types import DISTRACTOR, JUNK
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.terminal import say, terminal


@dataclass(frozen=True)
class Options:
    """What to embed, and by which network."""

    images: Path
    """Folder of images, one image, a list of paths (.txt) or a manifest (path,identity,camera,split)."""
    out: Path
    """File for the embeddings (.npz). An older one is replaced; any other file stays, and the command stops."""
    run: Path | None = None
    """Folder of a run: the network of its latest checkpoint."""
    weights: str | None = None
    """Weights of a backbone: its pooled feature."""
    preset: str = "paper-resnet50"
    """Network and input size of --weights."""
    size: tuple[int, int] | None = None
    """Height and width that --weights sees, if not the preset's."""
    kind: Literal["embedding", "pooled"] | None = None
    """The Eigenlayer's output or its input. Not given: the output, which --weights does not have."""
    split: Literal["train", "query", "gallery"] | None = None
    """Of a manifest. Not given: all of it."""
    outside: Flag = False
    """Read images that a list or a manifest names outside of its folder."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet embed") -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    try:
        _embed(options, terminal())
    except (OSError, ValueError, MemoryError) as error:
        return fail_on(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    return 0


def _embed(options: Options, console: Console) -> None:
    # Flax and all that belongs to training, which --help can do without.
    from svdnet_jax.data.found import find_images
    from svdnet_jax.retrieval.embeddings import IS_EMBEDDINGS
    from svdnet_jax.runs import inference
    from svdnet_jax.safe_writing import refuse_overwrite

    if (options.run is None) == (options.weights is None):
        raise ConfigError("give --run or --weights")
    refuse_overwrite("--out", options.out, IS_EMBEDDINGS, [options.weights, options.images])
    config = inference.preset(options.preset, options.size)  # refused before any work
    found = find_images(options.images, options.split, outside=options.outside)
    embedder = inference.from_run(options.run) if options.run else inference.from_weights(options.weights or "", config)
    for line in found.remarks():
        say(console, line)
    if embedder.weights.note:
        say(console, f"{embedder.weights.source}: {embedder.weights.note}")
    embeddings = inference.embed_images(embedder, found.crops, options.kind, console, found.people)
    embeddings.save(options.out)
    n, d = embeddings.features.shape
    people = len({*embeddings.pids.tolist()} - {JUNK, DISTRACTOR})
    known = f" of {people} people" if people else ""
    line = f"{options.out}: {n} images{known}, {d} dimensions, of {embedder.weights.source} (model {embeddings.model})"
    say(console, line)
