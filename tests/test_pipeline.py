"""The stream of batches as a function of position, and what happens to images on the device."""

import itertools

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from svdnet_jax.config import Data
from svdnet_jax.data.pipeline import batches, mean_image, resize
from svdnet_jax.data.splits import Split, labels


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    pids = np.repeat([7, 3, 90], 5)
    images = rng.integers(0, 256, (15, 6, 4, 3), np.uint8)
    return Split(images, pids, np.ones(15, np.int64), np.arange(15).astype(str))


def test_a_stream_started_late_is_the_rest_of_the_stream(split):
    whole = list(itertools.islice(batches(split, Data(batch_size=4), seed=5, start=0), 9))
    rest = list(itertools.islice(batches(split, Data(batch_size=4), seed=5, start=6), 3))
    chex.assert_trees_all_equal(whole[6:], rest)


def test_labels_go_with_their_images(split):
    classes, count = labels(split.pids)
    assert count == 3
    assert classes.tolist() == [1] * 5 + [0] * 5 + [2] * 5
    batch = next(batches(split, Data(batch_size=15), seed=0, start=0))
    by_image = {image.tobytes(): label for image, label in zip(split.images, classes, strict=True)}
    found = [by_image[np.asarray(image).tobytes()] for image in batch.images]
    assert found == batch.labels.tolist()


def test_batches_of_so_many_images_an_identity(split):
    batch = next(batches(split, Data(batch_size=6, per_identity=3), seed=0, start=0))
    assert sorted(np.unique(batch.labels, return_counts=True)[1]) == [3, 3]


def test_bytes_of_the_right_size_stay_as_they_are(split):
    np.testing.assert_array_equal(resize(jnp.asarray(split.images), (6, 4)), split.images.astype(np.float32))


def test_resizing_agrees_with_pillow(split):
    """Halving with antialiasing; Pillow rounds to whole numbers of bytes, hence half a step (and its rounding)."""
    ours = resize(jnp.asarray(split.images), (3, 2))
    theirs = np.stack([np.asarray(Image.fromarray(i).resize((2, 3), Image.Resampling.BILINEAR)) for i in split.images])
    np.testing.assert_allclose(ours, theirs.astype(np.float32), atol=1.01)


@pytest.mark.parametrize("size", [(6, 4), (12, 7), (3, 2)])
def test_the_mean_image_is_the_mean_of_resized_images(split, size):
    expected = resize(jnp.asarray(split.images), size).mean(axis=0)
    # Numbers up to 255, summed in float32 in another order.
    np.testing.assert_allclose(mean_image(split.images, size, block=4), expected, atol=1e-3)
