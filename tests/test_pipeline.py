"""The stream of batches as a function of position, and what happens to images on the device."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from svdnet_jax.data.pipeline import batches, normalise, random_flip, sample_order
from svdnet_jax.data.splits import Split, labels

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    pids = np.repeat([7, 3, 90], 5)
    images = rng.integers(0, 256, (15, 6, 4, 3), np.uint8)
    return Split(images, pids, np.ones(15, np.int64), np.arange(15).astype(str))


def test_every_image_comes_once_an_epoch_in_a_new_order():
    order = sample_order(15, 4, seed=1)
    drawn = np.concatenate([order[step] for step in range(15)])  # four epochs of 15 in batches of 4
    epochs = drawn.reshape(4, 15)
    for epoch in epochs:
        assert sorted(epoch) == list(range(15))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_order_depends_on_the_seed_only():
    first = np.stack([sample_order(15, 4, seed=1)[step] for step in range(5)])
    again = np.stack([sample_order(15, 4, seed=1)[step] for step in range(5)])
    other = np.stack([sample_order(15, 4, seed=2)[step] for step in range(5)])
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_stream_started_late_is_the_rest_of_the_stream(split):
    whole = list(itertools.islice(batches(split, 4, seed=5, start=0), 9))
    rest = list(itertools.islice(batches(split, 4, seed=5, start=6), 3))
    chex.assert_trees_all_equal(whole[6:], rest)


def test_labels_go_with_their_images(split):
    classes, count = labels(split.pids)
    assert count == 3
    assert classes.tolist() == [1] * 5 + [0] * 5 + [2] * 5
    batch = next(batches(split, 15, seed=0, start=0))
    by_image = {image.tobytes(): label for image, label in zip(split.images, classes, strict=True)}
    found = [by_image[np.asarray(image).tobytes()] for image in batch.images]
    assert found == batch.labels.tolist()


def test_normalise_by_hand():
    images = jnp.full((1, 2, 2, 3), 50, jnp.uint8)
    expected = jnp.broadcast_to(jnp.array([20.0, 7.5, 2.5]), (1, 2, 2, 3))
    chex.assert_trees_all_close(normalise(images, (2, 2), MEAN, STD), expected, rtol=1e-6)


def test_resizing_agrees_with_pillow(split):
    """Halving with antialiasing; Pillow rounds to whole numbers of bytes, hence half a step (and its rounding)."""
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    ours = normalise(jnp.asarray(split.images), (3, 2), zero, one)
    theirs = np.stack([np.asarray(Image.fromarray(i).resize((2, 3), Image.Resampling.BILINEAR)) for i in split.images])
    np.testing.assert_allclose(ours, theirs.astype(np.float32), atol=1.01)


def test_flip_mirrors_about_half_of_the_images_and_nothing_else():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (200, 3, 4, 3), np.uint8))
    flipped = random_flip(jax.random.key(0), images)
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert bool((same ^ mirrored).all())
    # Binomial(200, 1/2): six standard deviations are 43.
    assert 57 < int(mirrored.sum()) < 143
