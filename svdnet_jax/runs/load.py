"""`load_run`: a trained model read back from the folder of its run."""

from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from svdnet_jax.config.schema import Config, input_size
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.svdnet import SVDNet, create_model
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.runs.restore import UNVERIFIED, RunPosition, abstract_state, on_device, read_latest, read_patiently
from svdnet_jax.training.embedding import embed
from svdnet_jax.training.loop import make_optimizers, optimizer_at
from svdnet_jax.training.schedule import build_schedule
from svdnet_jax.training.state import TrainState, init_state


class TrainedRun(NamedTuple):
    """The latest checkpoint of a run."""

    config: Config
    """Settings of the run."""
    model: SVDNet
    """Its network."""
    state: TrainState
    """Weights, statistics, optimizer and position."""
    finished: bool
    """Whether all phases were done."""
    verified: bool = True
    """Whether the numbers are known to be those that were saved."""

    def embed(
        self,
        images: UInt8[np.ndarray, "N h w 3"],
        *,
        name: Literal["embedding", "pooled"] = "embedding",
        batch_size: int | None = None,
    ) -> Float32[np.ndarray, "N D"]:
        """Returns the embeddings of images.

        Args:
            images: RGB of any one size; resized as in training.
            name: ``embedding``, the output of the Eigenlayer, or ``pooled``, its input.
            batch_size: Images at a time; None for the run's own setting.

        Raises:
            ValueError: Images that are not bytes (N, h, w, 3), or no such embedding.
        """
        size, batch = input_size(self.config.data), batch_size or self.config.eval.batch_size
        return embed(self.model, self.state, images, size, name=name, batch_size=batch)


def load_run(folder: Path | str, *, model: SVDNet | None = None) -> TrainedRun:
    """Reads the latest checkpoint of a run, which may be going on.

    Args:
        folder: The folder of the run.
        model: The network, where the run trained one of your own; else it is made from the settings.

    Raises:
        ConfigError: There is no checkpoint, or none that this version can read.
    """

    def network(config: Config, position: RunPosition) -> SVDNet:
        return create_model(config.model, position.identities) if model is None else model

    def abstract(config: Config, position: RunPosition) -> TrainState:
        size = input_size(config.data)
        mean = np.zeros((*size, 3), np.float32) if config.model.mean_image else np.zeros(3, np.float32)
        shapes = jax.eval_shape(lambda: init_state(network(config, position), size, config.seed, mean))
        fresh = on_device(shapes, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
        optimizers = make_optimizers(fresh.params, config)
        return abstract_state(fresh, optimizer_at(position.phase, build_schedule(config), optimizers))

    restored = read_patiently(RunDir(Path(folder)), lambda saved: read_latest(saved, abstract))
    if restored is None:
        raise ConfigError(f"{folder}: the run has no complete checkpoint yet")
    config, position, state, verified = restored
    finished = position.phase >= len(build_schedule(config))
    return TrainedRun(config, network(config, position), state, finished, verified)


def finished_note(trained: TrainedRun) -> str:
    """Says of which moment of its run a trained state is."""
    step = int(jax.device_get(trained.state.step))
    return (
        f"step {step}"
        + ("" if trained.finished else " of an unfinished run")
        + ("" if trained.verified else f" ({UNVERIFIED})")
    )
