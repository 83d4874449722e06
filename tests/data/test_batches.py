"""The stream of batches as a function of position, and what happens to images on the device."""

from contextlib import closing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from svdnet_jax.config.schema import Compute, Config, Data, Optimizer
from svdnet_jax.data.batches import Batch, make_loader, mean_image, resize
from svdnet_jax.data.types import Split, labels
from svdnet_jax.distributed.mesh import create_mesh, fits_on_device
from svdnet_jax.errors import ConfigError


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    pids = np.repeat([7, 3, 90], 5)
    images = rng.integers(0, 256, (15, 6, 4, 3), np.uint8)
    return Split(images, pids, np.ones(15, np.int64), np.arange(15).astype(str))


ONE = create_mesh(Config(parallel="single"))


def batches(split, start=0, count=1, devices=ONE, resident=False, **settings):
    """The batches of some steps, whichever way they come."""
    made = make_loader(split, Data(**settings), 5, start, 1, devices, resident=resident)
    with closing(made.batches):
        samples = [next(made.batches) for _ in range(count)]
    if resident:
        samples = [Batch(made.device_data.images[s], made.device_data.labels[s]) for s in samples]
    return [
        Batch(*(np.asarray(rows).reshape(-1, *rows.shape[-3:] if rows.ndim > 3 else ()) for rows in s)) for s in samples
    ]


def test_a_stream_started_late_is_the_rest_of_the_stream(split):
    whole, rest = batches(split, count=9, batch_size=4), batches(split, start=6, count=3, batch_size=4)
    chex.assert_trees_all_equal(whole[6:], rest)


def test_steps_come_several_at_a_time(split):
    one = make_loader(split, Data(batch_size=4), 5, 0, 1, ONE, resident=False)
    three = make_loader(split, Data(batch_size=4), 5, 0, 3, ONE, resident=False)
    with closing(one.batches), closing(three.batches):
        together = [next(three.batches) for _ in range(2)]
        apart = [next(one.batches) for _ in range(6)]
    for number, samples in enumerate(together):
        expected = jax.tree.map(lambda *rows: jnp.concatenate(rows), *apart[3 * number : 3 * number + 3])
        chex.assert_trees_all_equal(samples, expected)


@pytest.mark.parametrize("mode", ["single", "auto", "pmap"])
@pytest.mark.parametrize("resident", [True, False])
def test_the_batch_is_the_same_wherever_images_lie_and_whoever_shares_it(split, mode, resident):
    devices = create_mesh(Config(parallel=mode))
    assert devices.count == (1 if mode == "single" else 8)
    found = batches(split, count=4, devices=devices, resident=resident, batch_size=8)
    chex.assert_trees_all_equal(found, batches(split, count=4, batch_size=8))


@pytest.mark.parametrize("mode", ["auto", "pmap"])
def test_each_device_has_its_own_part_of_the_samples(split, mode):
    devices = create_mesh(Config(parallel=mode))
    made = make_loader(split, Data(batch_size=8), 0, 0, 2, devices, resident=True)
    with closing(made.batches):
        positions = next(made.batches)
    assert {shard.data.size for shard in positions.addressable_shards} == {2}
    assert all(shard.data.shape == split.images.shape for shard in made.device_data.images.addressable_shards)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(
        ConfigError, match="`data.batch_size` 12: cannot be shared among 8 devices; give a multiple of 8"
    ):
        create_mesh(Config(data=Data(batch_size=12)))
    assert create_mesh(Config(data=Data(batch_size=12), parallel="single")).count == 1
    parts = Config(data=Data(batch_size=32, num_instances=4), optimizer=Optimizer(grad_accum_steps=2))
    with pytest.raises(ConfigError, match="in 2 parts .* give a multiple of 64"):
        create_mesh(parts)


def test_where_images_lie_is_decided_by_their_size():
    assert fits_on_device(Config().compute, 2**20)
    assert not fits_on_device(Config().compute, 2**40)
    assert not fits_on_device(Config(compute=Compute(images="host")).compute, 1)
    assert fits_on_device(Config(compute=Compute(images="device")).compute, 2**50)


def test_labels_go_with_their_images(split):
    classes, count = labels(split.pids)
    assert count == 3
    assert classes.tolist() == [1] * 5 + [0] * 5 + [2] * 5
    (batch,) = batches(split, batch_size=15)
    by_image = {image.tobytes(): label for image, label in zip(split.images, classes, strict=True)}
    found = [by_image[image.tobytes()] for image in batch.images]
    assert found == batch.labels.tolist()


def test_batches_of_so_many_images_an_identity(split):
    (batch,) = batches(split, batch_size=6, num_instances=3)
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
