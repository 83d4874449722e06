"""k-reciprocal re-ranking by dense matrices and loops, from the paper and its conventions. Slow on purpose."""

import numpy as np


def squared_distances(x):
    x = np.asarray(x, np.float64)
    return ((x[:, None] - x[None]) ** 2).sum(-1)


def mutual(ranking, i, k):
    """Those of the first k + 1 of i's ranking that have i among their first k + 1."""
    return [j for j in ranking[i, : k + 1] if i in ranking[j, : k + 1]]


def final_distances(query, gallery, k1, k2, weight):
    """d* of every query to every gallery image, float64 (Q, G)."""
    squared = squared_distances(np.concatenate([query, gallery]))
    n, q = len(squared), len(query)
    original = squared / squared.max(axis=1, keepdims=True)
    ranking = np.argsort(squared, axis=1, kind="stable")
    vectors = np.zeros((n, n))
    for i in range(n):
        near = mutual(ranking, i, k1)
        expanded = set(near)
        for candidate in near:
            further = mutual(ranking, candidate, int(np.around(k1 / 2)))
            if len(set(further) & set(near)) > 2 / 3 * len(further):
                expanded |= set(further)
        expanded = sorted(expanded)
        weights = np.exp(-original[i, expanded])
        vectors[i, expanded] = weights / weights.sum()
    if k2 > 1:
        vectors = np.stack([vectors[ranking[i, :k2]].mean(axis=0) for i in range(n)])
    jaccard = np.empty((q, n))
    for i in range(q):
        shared = np.minimum(vectors[i], vectors).sum(axis=1)
        jaccard[i] = 1 - shared / (2 - shared)
    return ((1 - weight) * jaccard + weight * original[:q])[:, q:]
