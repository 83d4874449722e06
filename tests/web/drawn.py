"""A page of a few drawn images, whose network is the mean color of a picture's four quarters."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs.inference import Embedder
from svdnet_jax.web.load import Once, Served, Source
from svdnet_jax.web.panel import evaluated_panel
from svdnet_jax.web.pictures import from_arrays
from svdnet_jax.web.projection import project

TINY = PRESETS["tiny"]
SIZE = TINY.data.height, TINY.data.width
PEOPLE, CAMERAS = 10, 3


def quarters(pixels):
    """The features of pictures (N, H, W, 3): 12 numbers."""
    h, w = pixels.shape[1] // 2, pixels.shape[2] // 2
    parts = [pixels[:, y : y + h, x : x + w] for y in (0, h) for x in (0, w)]
    return np.concatenate([part.mean(axis=(1, 2), dtype=np.float64) for part in parts], axis=1).astype(np.float32)


def quarter_maps(pixels):
    """The features of the four pixels of a map: each has those of its own quarter, and their mean is `quarters`."""
    maps = np.zeros((len(pixels), 4, 12), np.float32)
    for quarter in range(4):
        own = slice(3 * quarter, 3 * quarter + 3)
        maps[:, quarter, own] = 4 * quarters(pixels)[:, own]
    return {"embedding": maps.reshape(-1, 2, 2, 12)}


def drawn(random, people, cameras):
    """Pictures of people: each has four colors, and each camera its own light and noise."""
    colors = np.random.default_rng(1).integers(0, 200, (PEOPLE + 2, 2, 2, 3))[people]
    blocks = colors.repeat(SIZE[0] // 2, axis=1).repeat(SIZE[1] // 2, axis=2)
    light = (10 * cameras)[:, None, None, None]
    return np.uint8(np.clip(blocks + light + random.integers(0, 40, blocks.shape), 0, 255))


def page_of(random, queries, gallery, hostile="<img src=x onerror=alert(1)>.jpg"):
    """Two embeddings of the same images; the second is a worse one, whose weights are not kept."""
    sides = {}
    for kind, (pids, cameras) in {"query": queries, "gallery": gallery}.items():
        images = drawn(random, pids, cameras)
        whose = enumerate(zip(pids, cameras, strict=True))
        names = np.array([f"{pid:04d}_c{camera}_{row:06d}.jpg" for row, (pid, camera) in whose], "<U40")
        sides[kind] = images, pids, cameras, names
    sides["gallery"][3][0] = hostile

    def embeddings(kind, model, noise):
        images, pids, cameras, names = sides[kind]
        features = quarters(images) + noise * np.random.default_rng(3).normal(size=(len(images), 12))
        return Embeddings(features.astype(np.float32), pids, cameras, names, model, {4: "<b>zoé\x1b"})

    sources = {}
    for key, noise, network in (("good", 0, "0"), ("bad", 90, "")):
        pair = [embeddings(kind, f"{key}-embedding", noise) for kind in ("query", "gallery")]
        panel = Once(partial(evaluated_panel, *pair, "euclidean", True))
        sources[key] = Source(f"the {key} one", panel, Once(lambda panel=panel: project(panel())), network, "embedding")

    def apply_resized(pixels):
        return SimpleNamespace(embedding=quarters(pixels))

    network = Embedder(None, apply_resized, quarter_maps, ("embedding",), TINY, None, {"embedding": "good-embedding"})
    pictures = {
        kind: from_arrays(images, names.tolist(), names.tolist()) for kind, (images, *_, names) in sides.items()
    }
    counts = {kind: len(images) for kind, (images, *_) in sides.items()}
    return Served("drawn people", sources, "", {"0": Once(lambda: network)}, pictures, counts)


def drawn_page():
    """10 people by 3 cameras: a query by each of two cameras, 4 gallery images each by each; distractors and junk."""
    people, cameras = (each.ravel() for each in np.meshgrid(np.arange(1, PEOPLE + 1), np.arange(1, CAMERAS + 1)))
    gallery = np.repeat(people, 4), np.repeat(cameras, 4)
    nobody = np.repeat([0, -1], 6), np.tile([1, 2, 3], 4)
    queries = people[cameras < 3], cameras[cameras < 3]
    together = [np.concatenate(each) for each in zip(nobody, gallery, strict=True)]
    return page_of(np.random.default_rng(0), queries, together)
