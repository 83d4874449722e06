"""Synthetic embeddings of Market-1501's size and structure, for benchmarks: no photographs, no network.

750 identities seen by 6 cameras; 3 368 queries, one an identity and camera; 19 732 gallery images, of which 2 798 are
distractors (pid 0, nobody in particular) and 3 819 junk (pid -1). An image is its identity's point in a latent space
of 48 dimensions, moved by its camera and by noise, and carried into D dimensions by a random matrix whose columns
fade, as the spectra of trained layers do. The noise is set so that rank-1 is about 0.8.
"""

import numpy as np

from svdnet_jax.retrieval.embeddings import Embeddings

IDENTITIES, CAMERAS, LATENT = 750, 6, 48
QUERIES, GALLERY, DISTRACTORS, JUNK = 3368, 19732, 2798, 3819
NOISE, CAMERA = 0.68, 0.5


def market_sized(seed: int = 0, dimensions: int = 1024, gallery: int = GALLERY) -> tuple[Embeddings, Embeddings]:
    """Query and gallery; a larger gallery has more distractors.

    Args:
        seed: Of the generator; equal seeds give equal arrays.
        dimensions: D.
        gallery: Images in the gallery, at least Market-1501's.
    """
    random = np.random.default_rng(seed)
    people = random.normal(size=(IDENTITIES + 1, LATENT)).astype(np.float32)
    cameras = CAMERA * random.normal(size=(CAMERAS, LATENT)).astype(np.float32)
    spread = (np.arange(1, LATENT + 1) ** -0.25)[:, None] * random.normal(size=(LATENT, dimensions))
    carry = spread.astype(np.float32)

    def images(pids: np.ndarray, seen_by: np.ndarray, what: str) -> Embeddings:
        # A distractor and a piece of junk is like no other image.
        own = random.normal(size=(len(pids), LATENT)).astype(np.float32)
        centre = np.where((pids > 0)[:, None], people[pids.clip(0)], own)
        latent = centre + cameras[seen_by] + NOISE * random.normal(size=own.shape).astype(np.float32)
        return Embeddings(latent @ carry, pids, seen_by + 1, np.array([f"{what}{i}" for i in range(len(pids))]))

    pairs = random.permutation(IDENTITIES * CAMERAS)[:QUERIES]
    query = images(pairs // CAMERAS + 1, pairs % CAMERAS, "query")
    real = GALLERY - DISTRACTORS - JUNK
    seen = pairs[random.integers(QUERIES, size=real)]
    nobody = np.where(np.arange(gallery - real) < JUNK, -1, 0)
    order = random.permutation(gallery)
    pids = np.concatenate([seen // CAMERAS + 1, nobody])[order]
    seen_by = np.concatenate([seen % CAMERAS, random.integers(CAMERAS, size=gallery - real)])[order]
    return query, images(pids, seen_by, "gallery")
