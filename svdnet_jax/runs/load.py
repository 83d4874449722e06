"""`load_run`: a trained model read back from the folder of its run."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from svdnet_jax.config.schema import Run
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import SVDNet, build
from svdnet_jax.retrieval.embed import embed
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.restore import UNVERIFIED, RunPosition, abstract_state, read_latest, read_patiently
from svdnet_jax.training.loop import make_optimizers
from svdnet_jax.training.schedule import plan
from svdnet_jax.training.state import TrainState, create
from svdnet_jax.training.step import inputs_of, make_infer


class TrainedRun(NamedTuple):
    """The latest checkpoint of a run."""

    config: Run
    model: SVDNet
    state: TrainState
    finished: bool
    """Whether all phases were done."""
    verified: bool = True
    """Whether the numbers are known to be those that were saved."""

    def embed(
        self, images: UInt8[np.ndarray, "N h w 3"], *, name: str = "embedding", batch_size: int | None = None
    ) -> Float32[np.ndarray, "N D"]:
        """Returns the embeddings of images.

        Args:
            images: RGB of any one size; resized as in training.
            name: ``embedding``, the output of the Eigenlayer, or ``pooled``, its input.
            batch_size: Images at a time; None for the run's own setting.

        Raises:
            ValueError: Images that are not bytes (N, h, w, 3), or no such embedding.
        """
        if name not in ("embedding", "pooled"):
            raise ValueError(f"name is {name!r}; expected 'embedding' or 'pooled'")
        apply = partial(make_infer(self.model, inputs_of(self.config).size), self.state.variables)
        outputs = embed(apply, images, batch_size or self.config.eval.batch_size)
        return np.asarray(getattr(outputs, name))


def load_run(folder: Path | str, *, model: SVDNet | None = None) -> TrainedRun:
    """Reads the latest checkpoint of a run, which may be going on.

    Args:
        folder: The folder of the run.
        model: The network, where the run trained one of your own; else it is made from the settings.

    Raises:
        ConfigError: There is no checkpoint, or none that this version can read.
    """

    def network(config: Run, position: RunPosition) -> SVDNet:
        return build(config.model, position.identities) if model is None else model

    def abstract(config: Run, position: RunPosition) -> TrainState:
        size = inputs_of(config).size
        mean = np.zeros((*size, 3), np.float32) if config.model.mean_image else np.zeros(3, np.float32)
        fresh = create(network(config, position), size, config.seed, mean)
        return abstract_state(fresh, position.phase, plan(config), make_optimizers(fresh.params, config))

    restored = read_patiently(RunDir(Path(folder)), lambda saved: read_latest(saved, abstract))
    if restored is None:
        raise ConfigError(f"{folder}: the run has no complete checkpoint yet")
    config, position, state, verified = restored
    finished = position.phase >= len(plan(config))
    return TrainedRun(config, network(config, position), state, finished, verified)


def finished_note(trained: TrainedRun) -> str:
    """Says of which moment of its run a trained state is."""
    step = int(jax.device_get(trained.state.step))
    return (
        f"step {step}"
        + ("" if trained.finished else " of an unfinished run")
        + ("" if trained.verified else f" ({UNVERIFIED})")
    )
