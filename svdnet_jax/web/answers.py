"""What the page asks, as plain values for JSON; nothing here knows of HTTP."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from svdnet_jax.config.schema import input_size
from svdnet_jax.data.images import decode
from svdnet_jax.data.resizing import resize_image
from svdnet_jax.errors import DataError
from svdnet_jax.reporting.terminal import printable
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs.inference import Embedder
from svdnet_jax.web.load import Served, Source
from svdnet_jax.web.panel import Panel, allowed_for, levels, nearest, rates_at
from svdnet_jax.web.pictures import refuse_large
from svdnet_jax.web.questions import MOST_SHOWN, Asked, Order

YOURS = "your image"
"""What an image from elsewhere is called in messages."""
GRID = 10_000
"""Steps of a map's axes in JSON."""


class NotThere(ValueError):
    """Something asked for that there is not; the message says what there is."""


def source_of(served: Served, key: str) -> Source:
    """Returns an embedding by its id.

    Raises:
        NotThere: No such id.
    """
    if key not in served.sources:
        raise NotThere(f"no embedding {printable(key)!r}; there are {', '.join(served.sources)}")
    return served.sources[key]


def about(served: Served) -> dict[str, Any]:
    """Returns what the page needs to begin: what can be chosen."""
    keys = list(served.sources)
    return {
        "title": printable(served.title),
        "sources": [
            {"id": key, "title": printable(source.title), "upload": bool(source.network)}
            for key, source in served.sources.items()
        ],
        "left": keys[0],
        "right": served.beside,
        "most_shown": MOST_SHOWN,
    }


def describe(source: Source) -> dict[str, Any]:
    """Returns what is known of an embedding: its results, its cameras, the levels of the slider."""
    panel = source.panel()
    report, distributions = panel.report, panel.distributions
    return {
        "metric": panel.index.metric,
        "queries": len(panel.query.pids),
        "gallery": len(panel.gallery.pids),
        "cameras": np.unique(panel.gallery.cameras).tolist(),
        "results": {} if report is None else {"rank-1": report.rank(1), "mAP": report.mAP},
        "levels": [] if distributions is None else levels(distributions),
        "negatives": 0 if distributions is None else int(distributions.negatives.sum()),
        "positives": 0 if distributions is None else int(distributions.positives.sum()),
        "note": printable(panel.note),
    }


def queries(served: Served, key: str, beside: str, order: Order, text: str, start: int, count: int) -> dict[str, Any]:
    """Returns a stretch of the list of queries; of the gallery, where nobody's queries are known.

    Args:
        served: What there is.
        key: The embedding that sorts.
        beside: The one beside it; empty for none.
        order: How to sort. Queries that do not count come last, and `gain` and `loss` need an embedding beside.
        text: Only those with this in their name or in what their identity is called; empty for all.
        start: Entries to pass over.
        count: Entries at most.

    Raises:
        NotThere: No such embedding.
        ValueError: A gain without an embedding beside.
    """
    panel = source_of(served, key).panel()
    other = source_of(served, beside).panel() if beside else None
    listed, kind = (panel.query, "query") if len(panel.query.pids) else (panel.gallery, "gallery")
    rows = np.arange(len(listed.pids))
    if text:
        low = text.lower()
        people = [printable(listed.people.get(pid, "")).lower() for pid in listed.pids.tolist()]
        rows = rows[[low in name.lower() or low in people[row] for row, name in enumerate(listed.names.tolist())]]
    precisions = [each.report.ap if each and each.report else None for each in (panel, other)]
    rows = rows[_sorted(order, [None if ap is None else ap[rows] for ap in precisions], listed.names[rows])]
    shown = rows[start : start + count]
    entries = [
        _image(listed, int(row)) | {"ap": [_number(ap[row]) for ap in precisions if ap is not None]} for row in shown
    ]
    return {"set": kind, "total": len(rows), "start": start, "entries": entries}


def _sorted(order: Order, precisions: list[np.ndarray | None], names: np.ndarray) -> Int[np.ndarray, " n"]:
    own, other = precisions
    if order in ("gain", "loss"):
        if own is None or other is None:
            raise ValueError("queries are sorted by gain or loss where two embeddings are side by side")
        by = (own - other) if order == "gain" else (other - own)
    elif order == "name" or own is None:
        return np.argsort(names, kind="stable")
    else:
        by = own if order == "worst" else -own
    return np.argsort(by, kind="stable")  # NaN comes last


def search(served: Served, asked: Asked) -> dict[str, Any]:
    """Returns the nearest gallery images with distance and how sure that is.

    Raises:
        NotThere: No such embedding or row.
        ValueError: What `retrieval.search` refuses, such as features of another length.
    """
    source = source_of(served, asked.source)
    panel = source.panel()
    image = _asked_image(served, source, panel, asked)
    cameras = None if asked.cameras is None else np.array(asked.cameras, np.int64)
    allowed = allowed_for(panel, asked.kind, asked.row, cameras, asked.everything)
    near = nearest(panel, image, allowed, asked.k)
    rates = rates_at(panel.distributions, near.distances) if panel.distributions else None
    pid = int(image.pids[0])
    results = []
    for place, (row, distance) in enumerate(zip(near.rows.tolist(), near.distances.tolist(), strict=True)):
        entry = _image(panel.gallery, row) | {"distance": _number(distance)}
        # Whether it is right is known for people with a number: pid 0 is nobody in particular, and -1 nobody at all.
        entry["right"] = entry["pid"] == pid if pid > 0 and entry["pid"] >= 0 else None
        if rates:
            entry |= {"false": float(rates.false[place]), "true": float(rates.true[place])}
            entry["measured"] = bool(rates.measured[place])
        results.append(entry)
    positives = int((allowed & (panel.gallery.pids == pid)).sum()) if pid > 0 else None
    ap = _number(panel.report.ap[asked.row]) if asked.kind == "query" and panel.report else None
    return {"results": results, "shown_of": int(allowed.sum()), "positives": positives, "ap": ap}


def _asked_image(served: Served, source: Source, panel: Panel, asked: Asked) -> Embeddings:
    """Returns the image that is searched for, one row."""
    if asked.kind == "image":
        if not source.network:
            raise ValueError("the weights of this embedding are not kept, so nothing new can be searched for by it")
        model = served.networks[source.network]().models[source.kind]
        features = np.array([asked.features], np.float32)
        return Embeddings(features, np.array([-1]), np.array([0]), np.array([YOURS]), model)
    held = panel.query if asked.kind == "query" else panel.gallery
    if not 0 <= asked.row < len(held.pids):
        raise NotThere(f"no {asked.kind} image {asked.row}; there are {len(held.pids)}")
    part = slice(asked.row, asked.row + 1)
    return Embeddings(held.features[part], held.pids[part], held.cameras[part], held.names[part], held.model)


def embed_image(served: Served, content: bytes) -> dict[str, Any]:
    """Returns the features of an image from elsewhere, by the id of each embedding that can be made of it.

    Args:
        served: The networks.
        content: Of an image file.

    Raises:
        DataError: It is no image, too large, or of a kind that is refused.
        ValueError: No network can embed it.
    """
    needed = {source.network for source in served.sources.values()} - {""}
    if not needed:
        raise ValueError("no network is there to embed it: the run has no checkpoint that can be read")
    if not content:
        raise DataError(f"{YOURS}: is empty")
    refuse_large(io.BytesIO(content), YOURS)
    pixels = np.asarray(decode(io.BytesIO(content), YOURS))
    by_network = {key: _embedded(served.networks[key](), pixels) for key in sorted(needed)}
    features = {
        key: by_network[source.network][source.kind] for key, source in served.sources.items() if source.network
    }
    return {"features": features, "width": pixels.shape[1], "height": pixels.shape[0]}


def _embedded(network: Embedder, pixels: np.ndarray) -> Mapping[str, list[float]]:
    """Returns the features of one image, by embedding."""
    outputs = network.apply_resized(resize_image(pixels, input_size(network.config.data))[None])
    return {kind: np.asarray(getattr(outputs, kind), np.float64)[0].tolist() for kind in network.kinds}


def map_points(source: Source) -> dict[str, Any]:
    """Returns the map of an embedding, column by column, its axes in whole steps of one length."""
    panel, found = source.panel(), source.map()
    low = found.xy.min(axis=0)
    span = max(float((found.xy.max(axis=0) - low).max()), np.finfo(np.float32).tiny)
    steps = np.rint((found.xy - low) / span * GRID).astype(int)
    sides = [(panel.query, np.arange(found.queries)), (panel.gallery, found.rows)]
    pids, cameras = (
        np.concatenate([getattr(held, name)[rows] for held, rows in sides]) for name in ("pids", "cameras")
    )
    return {
        "queries": found.queries,
        "rows": np.concatenate([np.arange(found.queries), found.rows]).tolist(),
        "x": steps[:, 0].tolist(),
        "y": steps[:, 1].tolist(),
        "pids": pids.tolist(),
        "people": {pid: printable(text) for held, _ in sides for pid, text in held.people.items()},
        "cameras": cameras.tolist(),
        "share": found.share.tolist(),
        "grid": GRID,
    }


def _image(held: Embeddings, row: int) -> dict[str, Any]:
    name, pid = printable(str(held.names[row])), int(held.pids[row])
    called = {"person": printable(held.people[pid])} if pid in held.people else {}
    return {"row": row, "name": name, "pid": pid, "camera": int(held.cameras[row])} | called


def _number(value: float) -> float | None:
    """Returns a number as JSON has it; None for NaN."""
    return float(value) if np.isfinite(value) else None
