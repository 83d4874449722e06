"""Embeddings to distances, rankings and measures. Knows nothing of networks."""

from typing import TYPE_CHECKING

from svdnet_jax.lazy import lazy_names

if TYPE_CHECKING:
    from svdnet_jax.retrieval.distances import Metric as Metric
    from svdnet_jax.retrieval.embeddings import Embeddings as Embeddings
    from svdnet_jax.retrieval.index import Index as Index
    from svdnet_jax.retrieval.index import build_index as build_index
    from svdnet_jax.retrieval.index import search as search
    from svdnet_jax.retrieval.metrics import evaluate as evaluate
    from svdnet_jax.retrieval.rerank import Rerank as Rerank
    from svdnet_jax.retrieval.results import Report as Report
    from svdnet_jax.retrieval.single_shot import evaluate_single_shot as evaluate_single_shot

_HOMES = {
    "Embeddings": "svdnet_jax.retrieval.embeddings",
    "Index": "svdnet_jax.retrieval.index",
    "Metric": "svdnet_jax.retrieval.distances",
    "Report": "svdnet_jax.retrieval.results",
    "Rerank": "svdnet_jax.retrieval.rerank",
    "build_index": "svdnet_jax.retrieval.index",
    "evaluate": "svdnet_jax.retrieval.metrics",
    "evaluate_single_shot": "svdnet_jax.retrieval.single_shot",
    "search": "svdnet_jax.retrieval.index",
}
__all__ = [*_HOMES]
__getattr__ = lazy_names(__name__, _HOMES)
