"""The embeddings of a run's test set, to be kept: those that were evaluated, with the fingerprint of the model."""

from dataclasses import replace

from svdnet_jax.config.schema import Config, Eval
from svdnet_jax.distributed.mesh import MeshContext
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.training.evaluation import Features
from svdnet_jax.training.fingerprint import fingerprints
from svdnet_jax.training.state import TrainState


def with_fingerprints(
    features: Features, state: TrainState, config: Config
) -> tuple[dict[str, Embeddings], dict[str, Embeddings]]:
    """Returns both embeddings of queries and gallery, with the fingerprint of the model that they are of."""
    models = fingerprints(state.variables, config)
    query, gallery = (
        {name: replace(side, model=models[name]) for name, side in sides.items()}
        for sides in (features.query, features.gallery)
    )
    return query, gallery


def divisible_batches(settings: Eval, devices: MeshContext) -> Eval:
    """Returns the settings with a batch size that the devices divide; images beyond the last one are not counted."""
    return replace(settings, batch_size=-(-settings.batch_size // devices.count) * devices.count)
