"""One image to another size: the interpolation of the compiled network, and nothing but rounding beside it."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from svdnet_jax.data.batches import resize
from svdnet_jax.data.resizing import resize_image, resize_to_bytes

SIDE = st.integers(1, 40)


def drawn(h, w):
    return np.random.default_rng(100 * h + w).integers(0, 256, (h, w, 3), np.uint8)


@settings(max_examples=8, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE)
def test_it_is_what_the_compiled_network_does(h, w, height, width):
    image = drawn(h, w)
    inside = resize(jnp.asarray(image)[None], (height, width))[0]
    np.testing.assert_allclose(resize_image(image, (height, width)), inside, rtol=0, atol=1e-3)  # of 255


@given(SIDE, SIDE, st.integers(0, 255))
def test_one_color_stays_that_color(h, w, value):
    image = np.full((h, w, 3), value, np.uint8)
    assert (resize_to_bytes(image, (17, 9)) == value).all()


def test_the_same_size_is_left_alone_and_pillow_agrees_to_its_rounding():
    image = drawn(30, 20)
    np.testing.assert_array_equal(resize_to_bytes(image, (30, 20)), image)
    theirs = np.asarray(Image.fromarray(image).resize((9, 17), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_allclose(resize_image(image, (17, 9)), theirs, atol=1.01)  # it rounds after each direction
