"""What a run starts from: here what is subtracted from pixels."""

import dataclasses

import numpy as np

from svdnet_jax.training.init import initial_state


def test_a_mean_image_is_that_of_the_training_images(tiny, dataset):
    model = dataclasses.replace(tiny.model, mean_image=True, std=(50.0, 50.0, 50.0))
    _, state = initial_state(dataclasses.replace(tiny, model=model), dataset.train, None)
    # As stored, 128 x 64, the mean is over more pixels; as seen it is that image made smaller.
    assert state.pixels["mean"].shape == (32, 16, 3)
    expected = dataset.train.images.astype(np.float64).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(np.asarray(state.pixels["mean"]).mean(axis=(0, 1)), expected, rtol=0.01)
    np.testing.assert_array_equal(np.asarray(state.pixels["std"]).ravel(), [50, 50, 50])
