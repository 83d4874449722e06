"""Synthetic embeddings of Market-1501's size and structure, for benchmarks: no photographs, no network.

750 identities seen by 6 cameras; 3 368 queries, one an identity and camera; 19 732 gallery images, of which 13 115
show those identities, and the others are distractors (pid 0, nobody in particular) and junk (pid -1). An image is its
identity's point in a latent space of 48 dimensions, moved by its camera and by noise, and carried into D dimensions
by a random matrix whose rows fade, as the spectra of trained layers do. The noise is set so that rank-1 is about 0.8.
"""

import numpy as np

from svdnet_jax.retrieval.embeddings import Embeddings

PEOPLE, QUERIES, GALLERY = 750, 3368, 19732
KNOWN, JUNK = 13115 / 19732, 3819 / (3819 + 2798)
CAMERAS, LATENT = 6, 48
NOISE, CAMERA = 0.68, 0.5


def market_sized(
    queries: int = QUERIES, gallery: int = GALLERY, people: int = PEOPLE, dimensions: int = 1024, seed: int = 0
) -> tuple[Embeddings, Embeddings]:
    """Query and gallery; a gallery beyond Market-1501's for its people has more distractors and junk.

    Args:
        queries: At most people x 6 cameras.
        gallery: Images in the gallery.
        people: Identities.
        dimensions: D.
        seed: Of the generator; equal seeds give equal arrays.
    """
    random = np.random.default_rng(seed)
    centers = random.normal(size=(people + 1, LATENT)).astype(np.float32)
    cameras = CAMERA * random.normal(size=(CAMERAS, LATENT)).astype(np.float32)
    spread = (np.arange(1, LATENT + 1) ** -0.25)[:, None] * random.normal(size=(LATENT, dimensions))
    carry = spread.astype(np.float32)

    def images(pids: np.ndarray, seen_by: np.ndarray, what: str) -> Embeddings:
        # A distractor or a piece of junk is like no other image.
        own = random.normal(size=(len(pids), LATENT)).astype(np.float32)
        center = np.where((pids > 0)[:, None], centers[pids.clip(0)], own)
        latent = center + cameras[seen_by] + NOISE * random.normal(size=own.shape).astype(np.float32)
        return Embeddings(latent @ carry, pids, seen_by + 1, np.array([f"{what}{i}" for i in range(len(pids))]))

    pairs = random.permutation(people * CAMERAS)[:queries]
    query = images(pairs // CAMERAS + 1, pairs % CAMERAS, "query")
    known = min(round(KNOWN * gallery), round(KNOWN * GALLERY / PEOPLE * people))
    seen = pairs[random.integers(len(pairs), size=known)]
    nobody = np.where(np.arange(gallery - known) < round(JUNK * (gallery - known)), -1, 0)
    order = random.permutation(gallery)
    pids = np.concatenate([seen // CAMERAS + 1, nobody])[order]
    seen_by = np.concatenate([seen % CAMERAS, random.integers(CAMERAS, size=len(nobody))])[order]
    return query, images(pids, seen_by, "gallery")
