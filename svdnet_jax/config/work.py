"""Settings of how the work is done and told of: a run may go on with other ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Compute:
    """How the work is done. It changes nothing but rounding, so that a run may go on with other values."""

    images: Literal["auto", "device", "host"] = "auto"
    """Where the decoded training images lie: all of them on every device, or in host memory, from where batches are
    sent ahead. auto: on the devices if they take a quarter of one's memory at most."""
    steps_per_call: int = 0
    """Optimizer steps that one call of the compiled program takes, at most: the largest number up to this that divides
    --log-every, --checkpoint-every and the steps of all phases. 0: 1 on a CPU, else 10."""
    cache: Path | None = Path("runs/compiled")
    """Folder for compiled programs, which later runs use again; None keeps none."""


@dataclass(frozen=True)
class Machines:
    """Several processes that train together, one a machine or one a device; each is started with the same command."""

    coordinator: str | None = None
    """Where process 0 listens, host:port; or auto, where SLURM, Open MPI, Kubernetes or a TPU pod say who is there. Not
    given: this process works by itself."""
    processes: int = 1
    """How many there are (not with auto)."""
    process: int = 0
    """Which one this is, from 0 (not with auto)."""
    timeout: int = 60
    """Seconds without a sign of life after which a process counts as dead and the others end too."""


@dataclass(frozen=True)
class Log:
    """Where the log is written beside metrics.jsonl."""

    tensorboard: bool = False
    """Write its numbers for TensorBoard too, into the run's folder tensorboard/ (needs the extra tensorboard)."""
