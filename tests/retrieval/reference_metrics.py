"""Retrieval metrics written down a second time, slowly: one query after the other over its sorted gallery.

`market` follows the text of Market-1501's Matlab code (compute_AP.m), which skips junk while walking the
whole ranking; `plain` is the loop of today's toolkits, which filters first. Nothing here is svdnet_jax's.
"""

import numpy as np


def distances(query, gallery, metric):
    q, g = query.astype(np.float64), gallery.astype(np.float64)
    out = np.empty((len(q), len(g)))
    for i in range(len(q)):
        for j in range(len(g)):
            if metric == "euclidean":
                out[i, j] = np.sqrt(np.sum((q[i] - g[j]) ** 2))
            else:
                out[i, j] = 1 - np.sum(q[i] * g[j]) / np.sqrt(np.sum(q[i] ** 2) * np.sum(g[j] ** 2))
    return out


def market(good, junk, ranking):
    """AP of one query by the trapezoid rule; good and junk are sets of gallery rows."""
    old_recall, old_precision, ap = 0.0, 1.0, 0.0
    intersect_size, j = 0, 0
    for row in ranking:
        if row in junk:
            continue
        if row in good:
            intersect_size += 1
        recall = intersect_size / len(good)
        precision = intersect_size / (j + 1)
        ap += (recall - old_recall) * ((old_precision + precision) / 2)
        old_recall, old_precision = recall, precision
        j += 1
    return ap


def plain(right):
    """CMC, AP and INP of one query from its filtered ranking, True where an image is right."""
    cmc = np.minimum(np.cumsum(right), 1)
    precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right)) if right[i]]
    last = max(i for i in range(len(right)) if right[i]) + 1
    return cmc, sum(precision) / len(precision), sum(right) / last


def evaluate(query, gallery, metric="euclidean", cross_camera=True):
    """Metrics by name; `ap` and `first_hit` hold one entry per query that counts, None for others."""
    matrix = distances(query.features, gallery.features, metric)
    kept = sum(1 for pid in gallery.pids if pid >= 0)
    cmc, ap, ap_market, inp, first = [], [], [], [], []
    for i, (pid, camera) in enumerate(zip(query.pids, query.cameras, strict=True)):
        ranking = sorted(range(len(gallery.pids)), key=lambda j: (matrix[i, j], j))
        same = {j for j in ranking if gallery.pids[j] == pid and pid >= 0}
        own = {j for j in same if gallery.cameras[j] == camera and cross_camera}
        good = same - own
        junk = {j for j in ranking if gallery.pids[j] < 0} | own
        if not good:
            ap.append(None), first.append(None)
            continue
        curve, average, negative = plain([j in good for j in ranking if j not in junk])
        # Rankings shortened by the camera rule: beyond their end the query has been hit.
        cmc.append(np.concatenate([curve, np.ones(kept - len(curve))]))
        ap.append(average), first.append(int(np.argmax(curve)) + 1)
        ap_market.append(market(good, junk, ranking)), inp.append(negative)
    return {
        "cmc": np.mean(cmc, axis=0),
        "mAP": np.mean([x for x in ap if x is not None]),
        "mAP_market": np.mean(ap_market),
        "mINP": np.mean(inp),
        "ap": ap,
        "first_hit": first,
        "valid_queries": len(cmc),
    }


def camera_pairs(query, gallery, metric="euclidean", cross_camera=True):
    """(rank-1, AP, trapezoid AP, INP) of each query that has an answer, in a list by (query camera, gallery camera)."""
    matrix = distances(query.features, gallery.features, metric)
    found = {}
    for i, (pid, camera) in enumerate(zip(query.pids, query.cameras, strict=True)):
        ranking = sorted(range(len(gallery.pids)), key=lambda j: (matrix[i, j], j))
        for there in sorted(set(gallery.cameras)):
            same = {j for j in ranking if gallery.pids[j] == pid and pid >= 0}
            good = {j for j in same if gallery.cameras[j] == there and not (cross_camera and there == camera)}
            junk = {j for j in ranking if gallery.pids[j] < 0} | (same - good)
            if good:
                curve, average, negative = plain([j in good for j in ranking if j not in junk])
                found.setdefault((int(camera), int(there)), []).append(
                    (int(curve[0]), average, market(good, junk, ranking), negative)
                )
    return found


def single_shot(query, gallery, orders, metric="euclidean", cross_camera=True):
    """Rank of each query's right answer, a row per order of the gallery's rows that are not junk; 0 if it has none."""
    matrix = distances(query.features, gallery.features, metric)
    kept = [j for j in range(len(gallery.pids)) if gallery.pids[j] >= 0]
    ranks = np.zeros((len(orders), len(query.pids)), int)
    for r, order in enumerate(orders):
        for i, (pid, camera) in enumerate(zip(query.pids, query.cameras, strict=True)):
            answer, images = None, {}
            for j in (kept[position] for position in order):
                if gallery.pids[j] == pid:
                    if answer is None and not (cross_camera and gallery.cameras[j] == camera):
                        answer = j
                elif gallery.pids[j] == 0:
                    images[0, j] = j  # each distractor is somebody else
                else:
                    images.setdefault(gallery.pids[j], j)
            if pid >= 0 and answer is not None:
                ahead = [j for j in images.values() if (matrix[i, j], j) < (matrix[i, answer], answer)]
                ranks[r, i] = 1 + len(ahead)
    return ranks
