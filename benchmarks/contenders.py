"""Who takes part in benchmarks.retrieval: for each task, contenders by name.

A contender is made ready with query and gallery, which is not timed, and then called.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np

from benchmarks import peers
from svdnet_jax.retrieval.distances import prepare, prepare_query
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.index import build_index
from svdnet_jax.retrieval.index import search as look
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.neighbors import nearest
from svdnet_jax.retrieval.rerank import Rerank

Numbers = dict[str, float]
Contender = Callable[[Embeddings, Embeddings], Callable[[], Numbers]]
TOP = 50


def evaluation(compiled: Path | None) -> dict[str, Contender]:
    """Distances, CMC, both mAPs and mINP; junk left out.

    Args:
        compiled: Torchreid's Cython module, if there is one.
    """
    found: dict[str, Contender] = {
        "svdnet_jax": partial(partial, _ours),
        "the matrix product alone (jax)": partial(partial, _product_jax),
        "the matrix product alone (numpy)": partial(partial, _product_numpy),
        "Python loop, the toolkits' rule": partial(partial, _loop),
    }
    if compiled:
        found["torchreid, Cython"] = partial(partial, _torchreid, compiled)
    if find_spec("torchreid"):
        found["torchreid, Python"] = partial(partial, _torchreid, None)
    return found


def rerank(compiled: Path | None) -> dict[str, Contender]:
    """k-reciprocal re-ranking, k1 20, k2 6, lambda 0.3, and the evaluation of it; junk takes part."""
    found: dict[str, Contender] = {
        "svdnet_jax": partial(partial, _ours_reranked),
        "the neighbour search alone (svdnet_jax)": partial(partial, _neighbors),
        "dense numpy, the authors' rule": partial(partial, _dense),
    }
    if find_spec("torchreid"):
        found["torchreid"] = partial(partial, _torchreid_reranked)
    return found


def search(compiled: Path | None) -> dict[str, Contender]:
    """Exact top 50 of all queries; the gallery is made ready beforehand."""
    found: dict[str, Contender] = {"svdnet_jax": _search}
    if find_spec("faiss"):
        found["faiss flat"] = _faiss
    if find_spec("sklearn"):
        found["scikit-learn, brute force"] = _sklearn
    return found | {"numpy, product and argpartition": _argpartition}


def _ours(query: Embeddings, gallery: Embeddings) -> Numbers:
    report = evaluate(query, gallery)
    return {"rank1": report.rank(1), "mAP": report.mAP, "mINP": report.mINP}


def _product_jax(query: Embeddings, gallery: Embeddings) -> Numbers:
    jax.block_until_ready(_dot(query.features, gallery.features))
    return {}


@jax.jit
def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.numpy.dot(a, b.T, precision="highest")


def _product_numpy(query: Embeddings, gallery: Embeddings) -> Numbers:
    np.matmul(query.features, gallery.features.T)
    return {}


def _loop(query: Embeddings, gallery: Embeddings) -> Numbers:
    left = peers.without_junk(gallery)
    return peers.rank_by_loop(peers.squared_distances(query.features, left.features), query, left)


def _torchreid(compiled: Path | None, query: Embeddings, gallery: Embeddings) -> Numbers:
    left = peers.without_junk(gallery)
    distances = peers.squared_distances(query.features, left.features)
    ids = query.pids, left.pids, query.cameras, left.cameras, 50
    if compiled:
        cmc, mean = peers.module(compiled).evaluate_cy(distances, *ids)
    else:
        cmc, mean = peers.torchreid("reid/metrics/rank.py").evaluate_rank(distances, *ids, use_cython=False)
    return {"rank1": float(cmc[0]), "mAP": float(mean)}


def _ours_reranked(query: Embeddings, gallery: Embeddings) -> Numbers:
    report = evaluate(query, gallery, rerank=Rerank())
    return {"rank1": report.rank(1), "mAP": report.mAP, "mINP": report.mINP}


def _neighbors(query: Embeddings, gallery: Embeddings) -> Numbers:
    joined = (np.concatenate([getattr(query, x), getattr(gallery, x)]) for x in ("features", "pids", "cameras"))
    every = Embeddings(*joined)
    rows = np.arange(len(every.pids))
    ready = prepare(every, rows, "euclidean")
    nearest(prepare_query(every, rows, "euclidean", ready)[0], ready.features, 21)
    return {}


def _dense(query: Embeddings, gallery: Embeddings) -> Numbers:
    distances = peers.dense_rerank(query, gallery, 20, 6, 0.3)
    return peers.rank_by_loop(distances[:, gallery.pids >= 0], query, peers.without_junk(gallery))


def _torchreid_reranked(query: Embeddings, gallery: Embeddings) -> Numbers:
    pairs = (query, gallery), (query, query), (gallery, gallery)
    distances = (np.sqrt(peers.squared_distances(a.features, b.features)) for a, b in pairs)
    found = peers.torchreid("reid/utils/rerank.py").re_ranking(*distances)
    return peers.rank_by_loop(found[:, gallery.pids >= 0], query, peers.without_junk(gallery))


def _search(query: Embeddings, gallery: Embeddings) -> Callable[[], Numbers]:
    index = build_index(gallery)
    return lambda: _distances(look(index, query, TOP).distances ** 2)


def _faiss(query: Embeddings, gallery: Embeddings) -> Callable[[], Numbers]:
    import faiss

    index = faiss.IndexFlatL2(gallery.features.shape[1])
    index.add(gallery.features)
    return lambda: _distances(index.search(query.features, TOP)[0])


def _sklearn(query: Embeddings, gallery: Embeddings) -> Callable[[], Numbers]:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=TOP, algorithm="brute").fit(gallery.features)
    return lambda: _distances(index.kneighbors(query.features)[0] ** 2)


def _argpartition(query: Embeddings, gallery: Embeddings) -> Callable[[], Numbers]:
    squared = np.square(gallery.features).sum(axis=1)

    def look() -> Numbers:
        found = []
        for part in np.array_split(query.features, 8):
            offset = squared - 2 * (part @ gallery.features.T)
            best = np.take_along_axis(offset, np.argpartition(offset, TOP, axis=1)[:, :TOP], 1)
            found.append(np.sort(best, axis=1) + np.square(part).sum(axis=1)[:, None])
        return _distances(np.concatenate(found))

    return look


def _distances(squared: np.ndarray) -> Numbers:
    """Mean squared distance of the first and of the last found: equal for all who search exactly."""
    return {"first": float(squared[:, 0].mean()), "last": float(squared[:, -1].mean())}
