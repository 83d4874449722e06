"""Embeds the test set of a run, to be evaluated and kept."""

from dataclasses import replace
from functools import partial

from svdnet_jax.config.schema import Config, Eval
from svdnet_jax.data.types import Dataset
from svdnet_jax.distributed.mesh import MeshContext
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.training.eval_fn import EvalFn
from svdnet_jax.training.evaluation import embed_split
from svdnet_jax.training.fingerprint import fingerprints
from svdnet_jax.training.state import TrainState


def embed_test(
    state: TrainState, *, config: Config, dataset: Dataset, infer: EvalFn, devices: MeshContext
) -> tuple[dict[str, Embeddings], dict[str, Embeddings]]:
    """Returns both embeddings of queries and gallery, with the fingerprint of the model, to be kept."""
    apply, models = partial(infer, state.variables), fingerprints(state.variables, config)
    settings = divisible_batches(config.eval, devices)
    query = embed_split(apply, dataset.query, settings=settings, models=models)
    return query, embed_split(apply, dataset.gallery, settings=settings, models=models)


def divisible_batches(settings: Eval, devices: MeshContext) -> Eval:
    """Returns the settings with a batch size that the devices divide; images beyond the last one are not counted."""
    return replace(settings, batch_size=-(-settings.batch_size // devices.count) * devices.count)
