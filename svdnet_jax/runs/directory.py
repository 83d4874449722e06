"""`RunDir`, the folder of a run: the only place that knows the names of the files in it.

    config.json        the settings
    environment.json   what trained it: versions, devices, commit
    metrics.jsonl      the log
    checkpoints/       the latest and the best states, by orbax
    eigenlayer/        W at a few borders of phases, for the figures
    embeddings/        query and gallery, by embedding; base/ has those of Step 0
    identities/        results of each phase, summed over the queries of each test identity: for intervals
    figures/           what report.html shows, and ranks.csv, the heads of all ranked lists
    tensorboard/       the numbers of the log for TensorBoard, with `log.tensorboard`
    report.html

The log alone is worth something too: somebody may have kept it and deleted the rest.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float

from svdnet_jax.arrays import read_array
from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import RESUMABLE_FIELDS, diff, to_json
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.log import refuse_to_lose
from svdnet_jax.reporting.ranks import is_ranks
from svdnet_jax.retrieval.intervals import ByIdentity
from svdnet_jax.safe_writing import is_bytes, is_figure, is_json, is_text, refuse_overwrite, write_json, write_whole

if TYPE_CHECKING:
    from svdnet_jax.retrieval.embeddings import Embeddings

BothEmbeddings = Mapping[str, "Embeddings"]
"""Embeddings of one split by name, ``embedding`` and ``pooled``."""


@dataclass(frozen=True)
class RunDir:
    """Paths in the folder of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """What trained the run."""
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        """The log."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The folder of events for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder."""
        return self.path / ".lock"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.path / "figures"

    def figure(self, name: str) -> Path:
        """Returns the path of a figure."""
        return self.figures / f"{name}.png"

    @property
    def ranks(self) -> Path:
        """The table of ranks."""
        return self.figures / "ranks.csv"

    def embeddings(self, name: str, split: Literal["query", "gallery"], *, base: bool = False) -> Path:
        """Returns the path of the embeddings of a split: the final ones, or those of Step 0."""
        folder = self.path / "embeddings"
        return (folder / "base" if base else folder) / name / f"{split}.npz"

    def identities(self, number: int, phase: str) -> Path:
        """Returns the path of the results by identity after a phase of a round."""
        return self.path / "identities" / f"{number}-{phase}.json"

    def eigenlayer(self, border: str) -> Path:
        """Returns the path of W at a border: ``base``, ``decorrelate`` (the first), ``relaxation``, ``final``."""
        return self.path / "eigenlayer" / f"{border}.npy"

    @property
    def is_run(self) -> bool:
        """Whether this is the folder of a run."""
        return self.checkpoints.is_dir()

    @property
    def checkpoint_steps(self) -> list[int]:
        """Steps of the checkpoints by their names alone, sorted; complete or not."""
        return steps_on_disk(self.checkpoints)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to go on from."""
        return bool(self.checkpoint_steps)


def steps_on_disk(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder by their names alone, sorted; complete or not."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


@contextmanager
def open_run_dir(config: Config) -> Iterator[RunDir]:
    """Makes the folder of a run, or finds it as the same settings left it, and keeps other processes out of it.

    The settings bind from the first checkpoint on: before it there is nothing to resume.

    Raises:
        ConfigError: The folder belongs to a run with other settings (named in the message), another process works in
            it, it cannot be written, or a file in it is in the way that no run has made.
        LogError: It holds a log that is worth something, and no checkpoint to go on from.
    """
    run_dir = RunDir(config.folder)
    if "\0" in str(run_dir.path):
        raise ConfigError(f"`out` {str(run_dir.path)!a}: holds a NUL byte, which no name of a file may have")
    try:
        str(run_dir.path).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"`out` {str(run_dir.path)!a}: not a name in UTF-8, which a report cannot name") from None
    with ExitStack() as stack:
        try:
            run_dir.figures.mkdir(parents=True, exist_ok=True)
            # Let go by the system however the process ends.
            stack.enter_context(FileLock(run_dir.lock, timeout=0))
            if not run_dir.has_checkpoint:
                refuse_to_lose(run_dir.log)
                _refuse_foreign(run_dir)
                write_json(run_dir.config, to_json(config))
            elif run_dir.config.exists():
                # Else the checkpoint tells its settings.
                refuse_other_settings(run_dir, read_settings(run_dir), to_json(config))
        except Timeout:
            raise ConfigError(f"`out` {run_dir.path}: another process is working in this folder") from None
        except OSError as error:
            raise ConfigError(f"`out` {run_dir.path}: cannot be used as a run folder: {error}") from None
        yield run_dir


def _refuse_foreign(run_dir: RunDir) -> None:
    """Keeps files that are no run's from being written over; raises a ConfigError that names the first of them."""
    named = {run_dir.config: is_json("preset", "rri"), run_dir.environment: is_json("python", "devices")}
    # By its beginning: the line may be cut short where a disk was full.
    named |= {run_dir.log: is_bytes(b'{"event": "start"'), run_dir.report: is_text("<title>SVDNet on")}
    for path, made in (
        named | {run_dir.ranks: is_ranks} | dict.fromkeys(run_dir.figures.glob("*.png"), is_figure)
    ).items():
        refuse_overwrite("`out`", path, made)


def read_settings(run_dir: RunDir) -> dict[str, Any]:
    """Reads the settings of a run as they were stored.

    Raises:
        ConfigError: They are missing or damaged; says how to mend it.
    """
    try:
        return _read_object(run_dir.config)
    except ValueError as error:
        raise ConfigError(
            f"{run_dir.config}: {error}; expected the settings of the run. Take the file away, if it is there, and "
            "give the command of the run again: it writes them anew, and nothing else is lost"
        ) from error


def read_environment(run_dir: RunDir) -> dict[str, Any]:
    """Reads what trained a run; where that is missing or damaged it is unknown, and costs nothing else."""
    try:
        return _read_object(run_dir.environment)
    except ValueError as error:
        return {"unknown": f"{run_dir.environment.name} {error}"}


def _read_object(path: Path) -> dict[str, Any]:
    """Reads an object of JSON.

    Raises:
        ValueError: It is missing or something else; says what.
    """
    if not path.is_file():
        raise ValueError("is missing" if not path.exists() else "is no file")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"holds {type(content).__name__} and no object of JSON")
    return content


def refuse_other_settings(run_dir: RunDir, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Keeps a run from being resumed as another one.

    Raises:
        ConfigError: The settings differ in more than where things lie and how the work is done; names the options.
    """
    changed = [line for line in diff(old, new) if not line.startswith(RESUMABLE_FIELDS)]
    if changed:
        raise ConfigError(
            f"`out` {run_dir.path}: holds a run with other settings: {'; '.join(changed)}. "
            "Give those again to resume it, or another `out` for a new run"
        )


def save_eigenlayer(run_dir: RunDir, border: str, W: Float[np.ndarray, "C D"]) -> None:
    """Keeps W at a border for the figures; the latest of a name stays."""
    path = run_dir.eigenlayer(border)
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.save(content, W)
    write_whole(path, content.getvalue())


def load_eigenlayer(run_dir: RunDir, border: str) -> Float[np.ndarray, "C D"] | None:
    """Returns what `save_eigenlayer` kept, None if there was no such border.

    Raises:
        ConfigError: The file is damaged; says how to mend it.
    """
    path = run_dir.eigenlayer(border)
    if not path.exists():
        return None
    try:
        W = read_array(path)
        if W.ndim != 2 or W.dtype.kind != "f" or not W.size or not np.isfinite(W).all():
            raise ValueError(f"{W.dtype} of shape {W.shape}, or not finite; expected W, a matrix of floats")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: is damaged ({error}). Take it away and give the command of the run again: the figure of W goes "
            "without it, and nothing else is lost"
        ) from error
    return W


def save_embeddings(run_dir: RunDir, query: BothEmbeddings, gallery: BothEmbeddings, *, base: bool = False) -> None:
    """Writes the embeddings of queries and gallery: the final ones, or those of Step 0."""
    for name in query:
        query[name].save(run_dir.embeddings(name, "query", base=base))
        gallery[name].save(run_dir.embeddings(name, "gallery", base=base))


def save_identities(run_dir: RunDir, number: int, phase: str, sums: Mapping[str, ByIdentity]) -> None:
    """Keeps the results of a phase by identity, for each embedding."""
    path = run_dir.identities(number, phase)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {name: each.to_json() for name, each in sums.items()})


def load_identities(run_dir: RunDir, number: int, phase: str) -> dict[str, ByIdentity] | None:
    """Returns what `save_identities` kept, None if there is nothing: an older version kept none.

    Raises:
        ConfigError: The file is damaged; says how to mend it.
    """
    path = run_dir.identities(number, phase)
    if not path.exists():
        return None
    try:
        stored = _read_object(path)
        if stored.keys() != {"embedding", "pooled"}:
            raise ValueError("expected results by embedding and pooled")
        return {name: ByIdentity.from_json(each) for name, each in stored.items()}
    except ValueError as error:
        raise ConfigError(
            f"{path}: is damaged ({error}). Take it away: intervals over identities are then left out, and nothing "
            "else is lost"
        ) from error
