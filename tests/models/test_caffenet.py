"""CaffeNet against plain PyTorch with gradients; its first values, sizes, dropout and number types."""

import importlib
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax.errors import ConfigError
from svdnet_jax.models.caffenet import CaffeNet, local_response_norm
from svdnet_jax.models.svdnet import parameter_paths

pytestmark = pytest.mark.unoptimized

SIZE = (75, 64)
# Of float64's 16 digits; seen are 1e-15 to 1e-14.
EXACT = 1e-12


def shapes(model, size):
    """Parameters without numbers, for images of a size."""
    images = jnp.zeros((1, *size, 3))
    return jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))["params"]


def random_parameters(model, size, generator):
    """Float64 parameters that keep the size of numbers through the network, and biases that matter."""

    def fill(leaf):
        if leaf.ndim == 1:
            return generator.normal(0, 10, leaf.shape)
        return generator.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))

    return jax.tree.map(fill, shapes(model, size))


def as_caffe_flattens(kernel, rows, columns):
    """Rows of fc6's kernel in the order channel, row, column."""
    return kernel.reshape(rows, columns, 256, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)


# Sizes of the last feature map by hand: a convolution rounds down, a pooling up.
@pytest.mark.torch
@pytest.mark.parametrize(("size", "last"), [((227, 227), (6, 6)), (SIZE, (2, 1)), ((99, 80), (2, 2))])
def test_outputs_and_gradients_are_those_of_pytorch(size, last):
    networks = importlib.import_module("torch_networks")
    # Few outputs, as the 37 million weights of the real fc6 say no more.
    model = CaffeNet(channels=32, dtype=jnp.float64)
    generator = np.random.default_rng(0)
    params = random_parameters(model.clone(dtype=jnp.float32), size, generator)
    # Pixels of usual size, at which the normalisation over channels counts.
    images = generator.normal(0, 70, size=(1, *size, 3))
    weights = generator.normal(size=(1, 1, 1, 32))
    network = networks.CaffeNet(last[0] * last[1], 32).double()

    def in_torch(path, leaf):
        return networks.from_flax(as_caffe_flattens(leaf, *last) if path == "fc6/kernel" else leaf)

    def name(path):
        return path.replace("/kernel", ".weight").replace("/bias", ".bias")

    network.load_state_dict({name(path): in_torch(path, leaf) for path, leaf in parameter_paths(params).items()})
    with jax.enable_x64(True):

        def total(params, images):
            y = model.apply({"params": params}, images, train=False)
            return jnp.sum(y * weights), y

        step = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
        (_, y), (gradients, by_image) = jax.device_get(step(params, images))

    expected, expected_by_image = networks.differentiate(network, images, weights)
    assert 4 < np.count_nonzero(expected) < 32
    spread = networks.spread
    assert spread(y, expected) < EXACT
    assert spread(by_image, expected_by_image) < EXACT
    parameters = dict(network.named_parameters())
    for path, leaf in parameter_paths(gradients).items():
        assert spread(in_torch(path, leaf), parameters[name(path)].grad) < EXACT, path


def test_normalization_over_channels_is_the_formula():
    x = np.random.default_rng(0).normal(0, 200, (2, 1, 3, 7))
    expected = np.empty_like(x)
    for channel in range(7):
        window = x[..., max(0, channel - 2) : channel + 3]
        expected[..., channel] = x[..., channel] / (1 + 1e-4 / 5 * (window**2).sum(-1)) ** 0.75
    found = local_response_norm(jnp.asarray(x, jnp.float32))
    # Six roundings of float32, each at most 6e-8.
    chex.assert_trees_all_close(np.asarray(found), expected.astype(np.float32), rtol=5e-7)


def test_parameters_are_those_of_the_release():
    sizes = {path: leaf.shape for path, leaf in parameter_paths(shapes(CaffeNet(), (227, 227))).items()}
    assert sizes == {
        "conv1/kernel": (11, 11, 3, 96),
        "conv1/bias": (96,),
        "conv2/kernel": (5, 5, 48, 256),
        "conv2/bias": (256,),
        "conv3/kernel": (3, 3, 256, 384),
        "conv3/bias": (384,),
        "conv4/kernel": (3, 3, 192, 384),
        "conv4/bias": (384,),
        "conv5/kernel": (3, 3, 192, 256),
        "conv5/bias": (256,),
        "fc6/kernel": (9216, 4096),
        "fc6/bias": (4096,),
    }


@pytest.fixture(scope="module")
def small():
    """A CaffeNet for small images with its first values, and images."""
    images = jax.random.normal(jax.random.key(1), (2, *SIZE, 3))
    init = jax.jit(lambda key: CaffeNet().lazy_init(key, images, train=False))
    return init(jax.random.key(0, impl="rbg")), images


def test_initial_values_are_those_of_the_release(small):
    variables, _ = small
    for path, leaf in parameter_paths(jax.device_get(variables["params"])).items():
        layer = path.split("/")[0]
        if path.endswith("kernel"):
            # The smallest kernel has 34 848 numbers, which tell their deviation to 0.004 of it.
            assert np.std(leaf) == pytest.approx(0.005 if layer == "fc6" else 0.01, rel=0.02), path
            assert abs(np.mean(leaf)) < 0.0003, path
        else:
            expected = 0 if layer in ("conv1", "conv3") else 1
            np.testing.assert_array_equal(leaf, expected)


def test_dropout_works_in_training_only_on_half_of_the_outputs(small):
    variables, images = small
    y = CaffeNet().apply(variables, images, train=False)
    trained = CaffeNet().apply(variables, images, train=True, rngs={"dropout": jax.random.key(0)})
    chex.assert_shape(y, (2, 1, 1, CaffeNet().channels))
    assert float(y.min()) > 0
    kept = np.asarray(trained > 0)
    # Of 8192 coins, half show heads to within 0.0055; this is five times that.
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    chex.assert_trees_all_close(np.asarray(trained)[kept], 2 * np.asarray(y)[kept], rtol=1e-6)
    undropped = CaffeNet(dropout=0.0).apply(variables, images, train=True)
    chex.assert_trees_all_close(undropped, y, rtol=1e-6)


def test_bfloat16_is_close_to_float32_and_its_parameters_stay():
    model = CaffeNet(channels=32)
    generator = np.random.default_rng(0)
    params = jax.tree.map(jnp.float32, random_parameters(model, SIZE, generator))
    images = jnp.asarray(generator.normal(0, 70, (2, *SIZE, 3)), jnp.float32)

    def loss(dtype, params, images):
        y = model.clone(dtype=dtype).apply({"params": params}, images, train=False)
        return jnp.mean(jnp.square(y)), y

    def rounded(leaf):
        return leaf.astype(jnp.bfloat16).astype(jnp.float32)

    single, half = (jax.jit(jax.grad(partial(loss, dtype), has_aux=True)) for dtype in (jnp.float32, jnp.bfloat16))
    exact, found = single(params, images), half(params, images)
    chex.assert_trees_all_equal_dtypes(exact, found, jax.tree.map(jnp.float32, exact))
    # What float32 makes of weights and images that bfloat16 has rounded is the error that cannot be avoided: for
    # gradients 7 %, as some maxima go to another pixel and some ReLUs shut. Rounding on the way may add twice as much.
    bound = single(jax.tree.map(rounded, params), rounded(images))
    for a, b, c in zip(exact, found, bound, strict=True):
        a, b, c = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b, c))
        assert 0 < np.linalg.norm(b - a) < 3 * np.linalg.norm(c - a) < 0.3 * np.linalg.norm(a)


def test_bfloat16_is_used_by_every_layer():
    model = CaffeNet(dtype=jnp.bfloat16)
    variables, images = {"params": shapes(model, SIZE)}, jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    program = str(jax.make_jaxpr(partial(model.apply, train=False))(variables, images))
    types = re.findall(r":(\w+)\[[\d,]*\] = (?:conv_general_dilated|dot_general)\[", program)
    assert types == ["bf16"] * 6


def test_images_that_vanish_are_refused_with_the_size_that_works():
    assert shapes(CaffeNet(), (39, 39))["fc6"]["kernel"].shape == (256, 4096)
    said = "^`data.height` 64, `data.width` 32: too small for CaffeNet, which needs 39 x 39 or more; the release"
    with pytest.raises(ConfigError, match=said):
        shapes(CaffeNet(), (64, 32))
