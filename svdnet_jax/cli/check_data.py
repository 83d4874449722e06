"""Is a data set complete and sound? Counts, names, identities, and every image decoded.

    svdnet check-data --data.root Market-1501-v15.09.15
    svdnet check-data --data.root my_crops/manifest.csv --out check
    svdnet check-data --data.root Market-1501-v15.09.15 --prepare market-prepared
    svdnet check-data --data.root my_folders --data.layout identity-folders --write-manifest mine.csv

Prints what was found beside what the authors published, then errors and warnings with the files they are about; with
--out also all of it as report.json, and contact_sheet.png. With --prepare the images are decoded into a folder that can
be trained from (--data.root market-prepared) where tensorflow-datasets is not installed. A prepared folder can be
checked too. With --write-manifest what was read becomes a CSV file, to edit and to read in its place. Exits with 0 if
nothing was found, 1 if something was, 2 if there is no data set. Market-1501 takes about 10 seconds on two CPU cores.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich import box
from rich.console import Console
from rich.table import Table

from svdnet_jax.cli.exits import fail, fail_on
from svdnet_jax.cli.manifest import HEAD, HEAD_WITHOUT, write_manifest
from svdnet_jax.config.flags import Flag
from svdnet_jax.config.layouts import Layout, ListSplit
from svdnet_jax.config.validate import MOST_PIXELS
from svdnet_jax.data.cache import is_prepared, read_prepared
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.index import SHOWN, SPLITS, DatasetIndex
from svdnet_jax.data.inspect import Report, inspect, sheet
from svdnet_jax.data.reading import prepare
from svdnet_jax.data.types import check_identities
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.reporting.progress import counting
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.safe_writing import is_csv, is_figure, is_json, refuse_overwrite, write_json, write_whole


@dataclass(frozen=True)
class Source:
    """Which data."""

    root: Path
    """Folder of a data set (or its parent), a CSV manifest, or a prepared folder."""
    layout: Layout = "auto"
    """How the folder is laid out; auto looks."""
    camera_pattern: str | None = None
    """For a folder an identity: regular expression whose first group is the camera in a file's name, as cam(\\d+)."""
    split: ListSplit | None = None
    """Split of all images of a list without a column for it; not needed where its name is train.csv, query.csv ..."""
    outside: Flag = False
    """Read images that a manifest or links name outside of the data set's folder."""
    cache: Path = Path("runs/data")
    """Folder for what is unpacked on the way."""
    height: int = 256
    """With --prepare: height that images get if they differ in size. Give that of the preset that will train (224 for
    paper-resnet50), as resizing twice costs detail."""
    width: int = 128
    """With --prepare: width that images get if they differ in size. Give that of the preset, likewise (224 for
    paper-resnet50)."""


@dataclass(frozen=True)
class Options:
    """What to check, and what to leave behind."""

    data: Source
    out: Path | None = None
    """Folder for report.json and contact_sheet.png."""
    prepare: Path | None = None
    """New folder for the decoded images."""
    write_manifest: Path | None = None
    """File for a CSV manifest of the images, to edit and to read in their place."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet check-data") -> int:
    """Runs the command line; 0 if nothing was found, 1 if something was, 2 if there is no data set."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    console = terminal()
    try:
        if is_prepared(options.data.root):
            return _check_prepared(options, console)
        return _check(options, console)
    except (ConfigError, DataError, OSError, MemoryError) as error:
        return fail_on(error)
    except KeyboardInterrupt:
        return fail("stopped", 130)


def _check(options: Options, console: Console) -> int:
    data = options.data
    for name, side in (("height", data.height), ("width", data.width)):
        if not 8 <= side <= MOST_PIXELS:
            raise ConfigError(f"--data.{name} {side}: must be from 8 to {MOST_PIXELS} pixels")
    if options.out:
        refuse_overwrite("--out", options.out / "report.json", is_json("table", "findings"), [data.root])
        refuse_overwrite("--out", options.out / "contact_sheet.png", is_figure)
    given = {"camera": data.camera_pattern, "split": data.split}
    listing = find_layout(data.root, data.cache, data.layout, outside=data.outside, **given)
    if options.write_manifest:
        refuse_overwrite("--write-manifest", options.write_manifest, _is_manifest, [data.root])
        for line in write_manifest(listing, options.write_manifest):
            say(console, line)
    with counting("Looking at images", sum(map(len, listing.splits.values())), console) as advance:
        report = inspect(listing, advance)
    _print(report, console)
    if options.out:
        _write(options.out, report, listing)
    if options.prepare:
        prepare(listing, data.cache, (data.height, data.width), options.prepare, partial(say, console))
    return 1 if report.findings else 0


def _is_manifest(path: Path) -> bool:
    return is_csv(HEAD)(path) or is_csv(HEAD_WITHOUT)(path)


def _check_prepared(options: Options, console: Console) -> int:
    root = options.data.root
    if options.prepare or options.out or options.write_manifest:
        raise DataError(
            f"--data.root {root}: is prepared already; --out, --prepare and --write-manifest are for what it was made "
            "from"
        )
    dataset = read_prepared(root, options.data.layout)
    check_identities(dataset)
    for split in SPLITS:
        part = getattr(dataset, split)
        size = "x".join(map(str, part.images.shape[1:3]))
        people = len(np.unique(part.pids[part.pids > 0]))
        say(console, f"{dataset.name}, {split}: {len(part)} images of {people} identities, {size}")
    say(console, "prepared data, unchanged since they were written")
    return 0


def _print(report: Report, console: Console) -> None:
    say(console, f"{report.name}: {report.layout}")
    table = Table("", box=box.SIMPLE_HEAD)
    for head in ("found", "published"):
        table.add_column(head, justify="right")
    table.add_column("")
    for row in report.table:
        mark = "" if row.expected is None else "ok" if row.found == row.expected else "differs"
        expected = "" if row.expected is None else str(row.expected)
        found = "none" if (row.what, row.found) == ("cameras", 0) else str(row.found)
        table.add_row(row.what, found, expected, mark, style="red" if mark == "differs" else None)
    console.print(table)
    sizes = [f"{size}: {number}" for size, number in report.sizes.items()]
    more = f" and {len(sizes) - SHOWN} other sizes" if len(sizes) > SHOWN else ""
    say(console, f"Sizes (height x width: images): {', '.join(sizes[:SHOWN])}{more}")
    for note in report.notes:
        say(console, note)
    for level, text, files in report.findings:
        say(console, f"{level}: {text}", "red" if level == "error" else "yellow")
        for file in files[:SHOWN]:
            say(console, f"    {file}")
        if len(files) > SHOWN:
            say(console, f"    and {len(files) - SHOWN} more; all are in report.json with --out FOLDER")
    errors = sum(finding.level == "error" for finding in report.findings)
    say(console, f"{errors} errors, {len(report.findings) - errors} warnings")


def _write(folder: Path, report: Report, listing: DatasetIndex) -> None:
    content = dataclasses.asdict(report)
    content["table"] = [row._asdict() for row in report.table]
    content["findings"] = [finding._asdict() for finding in report.findings]
    write_json(folder / "report.json", content)
    picture = sheet(listing)
    if picture is not None:
        png, about = BytesIO(), PngInfo()
        about.add_text("Software", "svdnet_jax")
        Image.fromarray(picture).save(png, "png", pnginfo=about)
        write_whole(folder / "contact_sheet.png", png.getvalue())
