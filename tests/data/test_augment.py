"""Flips, crops and blots: pixel by pixel against loops, and how often what happens."""

import math
import random

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from svdnet_jax.data.augment import random_crop, random_erase, random_flip

pytestmark = pytest.mark.unoptimized

N, H, W = 64, 9, 7
COLOR = np.array([-1.0, -2.0, -3.0], np.float32).reshape(1, 1, 3)
PICTURE = -1.0 - np.arange(H * W * 3, dtype=np.float32).reshape(H, W, 3)
KEYS = st.integers(0, 2**32 - 1).map(jax.random.key)

flip = jax.jit(random_flip)
crop = jax.jit(random_crop, static_argnums=2)
erase = jax.jit(random_erase, static_argnums=2)


def pictures(n=N, height=H, width=W):
    """Pixels all different and positive, fills are negative."""
    return np.arange(1, 1 + n * height * width * 3, dtype=np.float32).reshape(n, height, width, 3)


def assert_all_five_sigma(counts, chances):
    """That numbers of independent events are those expected, within five standard deviations."""
    total = np.sum(counts)
    expected, spread = total * chances, np.sqrt(total * chances * (1 - chances))
    assert (np.abs(counts - expected) < 5 * spread).all(), (counts, expected)


@given(KEYS)
@settings(deadline=None, max_examples=20)
def test_flips_mirror_or_do_nothing(key):
    images = pictures()
    flipped = np.asarray(flip(key, images))
    for before, after in zip(images, flipped, strict=True):
        assert (after == before).all() or (after == before[:, ::-1]).all()


def test_half_of_the_images_are_flipped():
    images = pictures(2000, 1, 2)
    mirrored = int((np.asarray(flip(jax.random.key(0), images)) != images).any(axis=(1, 2, 3)).sum())
    assert_all_five_sigma(np.array([mirrored, 2000 - mirrored]), np.array([0.5, 0.5]))


def test_bytes_stay_bytes():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), np.uint8))
    assert random_flip(jax.random.key(0), images).dtype == jnp.uint8


def slow_crop(image, dy, dx, fill):
    """The image seen through a window that is moved by (dy, dx)."""
    fill = np.broadcast_to(fill, image.shape)
    out = np.empty_like(image)
    for y in range(H):
        for x in range(W):
            inside = 0 <= y + dy < H and 0 <= x + dx < W
            out[y, x] = image[y + dy, x + dx] if inside else fill[y, x]
    return out


@given(KEYS, st.sampled_from([(3, COLOR), (3, PICTURE), (12, PICTURE)]))
@settings(deadline=None, max_examples=15)
def test_crops_are_windows_on_the_padded_image(key, case):
    padding, fill = case
    images = pictures()[:12]
    for before, after in zip(images, np.asarray(crop(key, images, padding, fill)), strict=True):
        # The shift that some pixel of the image tells; where none is left, any that leaves none.
        dy, dx = padding, max(padding, W)
        if (after > 0).any():
            y, x, _ = np.argwhere(after > 0)[0]
            source_y, source_x, _ = np.argwhere(before == after[y, x, 0])[0]
            dy, dx = source_y - y, source_x - x
            assert max(abs(dy), abs(dx)) <= padding
        np.testing.assert_array_equal(after, slow_crop(before, dy, dx, fill))


def test_all_places_are_equally_likely():
    images = np.zeros((4000, 3, 3, 3), np.float32)
    images[:, 1, 1] = 1.0
    cropped = np.asarray(crop(jax.random.key(0), images, 1, np.zeros((1, 1, 3), np.float32)))
    assert (cropped.sum(axis=(1, 2)) == 1).all()
    assert_all_five_sigma(cropped[..., 0].sum(axis=0).ravel(), np.full(9, 1 / 9))


def blots(before, after, fill):
    """Corners and sides (top, left, height, width) of what was changed; it must be a rectangle full of fill."""
    found = np.zeros((len(before), 4), int)
    for i in range(len(before)):
        changed = (after[i] != before[i]).any(axis=-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            np.testing.assert_array_equal(after[i][box], np.broadcast_to(fill, before[i].shape)[box])
            assert changed.sum() == changed[box].size
            found[i] = rows[0], columns[0], len(rows), len(columns)
    return found


def slow_erase(rng, height, width):
    """The strong baseline's loop: corner and sides of one rectangle, or zeros after a hundred tries."""
    for _ in range(100):
        area = rng.uniform(0.02, 0.4) * height * width
        aspect = rng.uniform(0.3, 1 / 0.3)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return 0, 0, 0, 0


@pytest.mark.parametrize("fill", [COLOR, -pictures(1, 32, 16)[0]])
def test_erased_pixels_are_one_rectangle_and_the_rest_stays(fill):
    images = pictures(2000, 32, 16)
    boxes = blots(images, np.asarray(erase(jax.random.key(0), images, 1.0, fill)), fill)
    h, w = boxes[:, 2], boxes[:, 3]
    assert (h > 0).all()
    assert (w > 0).all()
    assert (h < 32).all()
    assert (w < 16).all()
    # Rounding moves a side by half a pixel at most.
    assert ((h + 0.5) * (w + 0.5) >= 0.02 * 32 * 16).all()
    assert ((h - 0.5) * (w - 0.5) <= 0.4 * 32 * 16).all()
    assert ((h + 0.5) / (w - 0.5) >= 0.3).all()
    assert ((h - 0.5) / (w + 0.5) <= 1 / 0.3).all()


@pytest.mark.parametrize(("height", "width"), [(32, 16), (16, 48)], ids=["upright", "lying, where many draws fail"])
def test_rectangles_are_distributed_as_in_the_loop(height, width):
    n, rng = 2000, random.Random(0)
    images = pictures(n, height, width)
    ours = blots(images, np.asarray(erase(jax.random.key(1), images, 1.0, COLOR)), COLOR)
    theirs = np.array([slow_erase(rng, height, width) for _ in range(n)])
    for quantity in (*np.eye(4), [1, 0, 1, 0], [0, 1, 0, 1]):
        for power in (1, 2):
            a, b = (ours @ quantity) ** power, (theirs @ quantity) ** power
            # Five standard errors of the difference of two means.
            assert abs(a.mean() - b.mean()) < 5 * math.sqrt((a.var() + b.var()) / n)


@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_as_many_images_are_erased_as_asked(probability):
    images = pictures(2000, 32, 16)
    boxes = blots(images, np.asarray(erase(jax.random.key(0), images, probability, COLOR)), COLOR)
    erased = int((boxes[:, 2] > 0).sum())
    if probability:
        assert_all_five_sigma(np.array([erased, 2000 - erased]), np.array([0.25, 0.75]))
    else:
        assert erased == 0


def test_an_image_in_which_nothing_fits_stays_whole():
    images = pictures(20, 1, 100)
    np.testing.assert_array_equal(erase(jax.random.key(0), images, 1.0, COLOR), images)


CHANGES = {
    "flip": flip,
    "crop": lambda key, images: crop(key, images, 3, COLOR),
    "erase": lambda key, images: erase(key, images, 0.5, COLOR),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_functions_of_the_key_and_each_image_has_its_own_luck(change):
    same = np.repeat(pictures(1), N, axis=0)
    once, again, other = (np.asarray(change(jax.random.key(seed), same)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (other != once).any()
    assert once.dtype == np.float32
    outcomes = len(np.unique(once, axis=0))
    assert outcomes == 2 if change is flip else outcomes > 20
