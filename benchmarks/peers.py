"""What re-ID toolkits compute, by their published rules, written anew here with numpy; and theirs where installed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from svdnet_jax.retrieval.embeddings import Embeddings


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By the rule |a|^2 + |b|^2 - 2 a.b, all at once, as the toolkits do."""
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(squared, 0)


def without_junk(gallery: Embeddings) -> Embeddings:
    """What a toolkit's loader leaves of a gallery."""
    kept = gallery.pids >= 0
    return Embeddings(gallery.features[kept], gallery.pids[kept], gallery.cameras[kept], gallery.names[kept])


def rank_by_loop(distances: np.ndarray, query: Embeddings, gallery: Embeddings) -> dict[str, float]:
    """Rank-1, plain mAP and mINP: a full argsort, then a Python loop over queries."""
    order = np.argsort(distances, axis=1)
    matches = gallery.pids[order] == query.pids[:, None]
    first, aps, inps = [], [], []
    for i in range(len(query.pids)):
        ranked = order[i]
        kept = ~((gallery.pids[ranked] == query.pids[i]) & (gallery.cameras[ranked] == query.cameras[i]))
        hits = matches[i][kept]
        if not hits.any():
            continue
        found = hits.cumsum()
        precision = found / np.arange(1, len(hits) + 1)
        aps.append((precision * hits).sum() / hits.sum())
        inps.append(hits.sum() / (np.flatnonzero(hits)[-1] + 1))
        first.append(hits[0])
    return {"rank1": float(np.mean(first)), "mAP": float(np.mean(aps)), "mINP": float(np.mean(inps))}


def dense_rerank(query: Embeddings, gallery: Embeddings, k1: int, k2: int, weight: float) -> np.ndarray:
    """k-reciprocal re-ranking with N x N matrices and a loop over images, as the authors' numpy code goes about it."""
    q = len(query.pids)
    features = np.concatenate([query.features, gallery.features])
    original = squared_distances(features, features)
    original = np.transpose(original / original.max(axis=0))
    ranking = np.argsort(original).astype(np.int32)
    n, half = len(features), int(np.around(k1 / 2))
    vectors = np.zeros((n, n), np.float32)
    for i in range(n):
        near = _mutual(ranking, i, k1)
        expanded = near
        for candidate in near:
            further = _mutual(ranking, candidate, half)
            if len(np.intersect1d(further, near)) > 2 / 3 * len(further):
                expanded = np.append(expanded, further)
        expanded = np.unique(expanded)
        weights = np.exp(-original[i, expanded])
        vectors[i, expanded] = weights / weights.sum()
    original = original[:q]
    if k2 > 1:
        vectors = np.stack([vectors[ranking[i, :k2]].mean(axis=0) for i in range(n)])
    holders = [np.flatnonzero(vectors[:, i]) for i in range(n)]
    jaccard = np.zeros_like(original)
    for i in range(q):
        shared = np.zeros(n, np.float32)
        for j in np.flatnonzero(vectors[i]):
            shared[holders[j]] += np.minimum(vectors[i, j], vectors[holders[j], j])
        jaccard[i] = 1 - shared / (2 - shared)
    return (jaccard * (1 - weight) + original * weight)[:, q:]


def _mutual(ranking: np.ndarray, i: int, k: int) -> np.ndarray:
    forward = ranking[i, : k + 1]
    return forward[np.any(ranking[forward, : k + 1] == i, axis=1)]


def torchreid(part: str) -> ModuleType:
    """A module file of the installed torchreid, without importing all of it (which needs torchvision).

    Args:
        part: Its path in the package, such as "reid/utils/rerank.py".

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    found = importlib.util.find_spec("torchreid")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("torchreid is not installed")
    return module(Path(found.origin).parent / part)


def module(path: Path) -> ModuleType:
    """A module from its file, plain or compiled."""
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: no module")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
