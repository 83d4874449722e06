"""The residual backbones against plain PyTorch, in every graph, with gradients; their names, sizes and number types."""

import importlib
import re
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svdnet_jax.errors import ConfigError
from svdnet_jax.models import resnet
from svdnet_jax.models.conv_norm import convolve, convolve_on_any_platform
from svdnet_jax.models.layers import caffe_max_pool, max_pool, padded_max_pool
from svdnet_jax.models.resnet import MiniResNet, ResNet
from svdnet_jax.models.svdnet import parameter_paths

pytestmark = pytest.mark.unoptimized

ONE = (1, 1, 1, 1)
# In float64, of 53 bits, rounding differs by 1e-14 at the end of these networks: seen are 1e-15 to 3e-14. Anything that
# is wrong is wrong by 1e-6 or more, be it only an epsilon.
EXACT = 1e-12


def shapes(model, size=(64, 32)):
    """Variables without numbers, for images of a size."""
    images = jnp.zeros((1, *size, 3))
    return jax.eval_shape(lambda key: model.init(key, images, train=False), jax.random.key(0))


def random_variables(model, generator):
    """Float64 variables in which nothing is zero, one or the same, and numbers keep their size through the network."""

    def fill(path, leaf):
        match path[-1].key:
            case "kernel":
                return generator.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
            case "scale" | "var":
                return generator.uniform(0.5, 1.5, leaf.shape)
            case _:
                return generator.normal(0, 0.3, leaf.shape)

    return jax.tree_util.tree_map_with_path(fill, shapes(model))


def torch_name(path, ibn=False):
    """Our path of a variable in torchvision's words."""
    *scope, leaf = path.split("/")
    stem = {"stem": "conv1", "bn_stem": "bn1", "shortcut": "downsample.0", "bn_shortcut": "downsample.1"}
    module = stem.get(scope[-1], scope[-1])
    if len(scope) == 2:
        stage, block = re.fullmatch(r"stage(\d)_block(\d+)", scope[0]).groups()
        if ibn and int(stage) < 4:
            module = {"in1": "bn1.IN", "bn1": "bn1.BN"}.get(module, module)
        module = f"layer{stage}.{int(block) - 1}.{module}"
    words = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return f"{module}.{words[leaf]}"


@pytest.fixture(scope="module")
def networks():
    return importlib.import_module("torch_networks")


def in_torch(networks, model, variables):
    """The same network and numbers in PyTorch, in the same mode of BatchNorm."""
    network = networks.ResNet(
        model.stage_sizes,
        bottleneck=model.bottleneck,
        last_stride=model.last_stride,
        ibn=model.ibn,
        **networks.GRAPHS[model.layout],
    ).double()
    leaves = parameter_paths(variables["params"]) | parameter_paths(variables["batch_stats"])
    state = {torch_name(path, model.ibn): networks.from_flax(leaf) for path, leaf in leaves.items()}
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    assert network.load_state_dict(state, strict=False).unexpected_keys == []
    assert set(network.state_dict()) == set(state) | counters
    return network.train(not model.frozen_statistics)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("sizes", "bottleneck", "layout", "last_stride", "size", "frozen"),
    [
        (ONE, True, "caffe", 2, (97, 65), True),
        (ONE, True, "caffe", 1, (64, 33), False),
        (ONE, True, "keras", 2, (64, 33), True),
        (ONE, True, "torchvision", 2, (65, 33), False),
        (ONE, True, "torchvision", 1, (64, 33), True),
        (ONE, True, "fastreid", 1, (64, 33), True),
        # With the batch's statistics the gradient of the stem's shift would be zero: without a ReLU nothing sees it.
        (ONE, True, "strongbaseline", 1, (64, 33), True),
        (ONE, True, "transreid", 1, (66, 33), True),
        (ONE, True, "torchvision ibn", 1, (64, 33), True),
        (ONE, True, "fastreid ibn", 2, (65, 33), False),
        (ONE, False, "caffe", 2, (64, 33), False),
        (ONE, False, "torchvision", 1, (65, 33), True),
        ((3, 4, 6, 3), True, "caffe", 2, (64, 33), True),
    ],
)
def test_outputs_statistics_and_gradients_are_those_of_pytorch(
    networks, sizes, bottleneck, layout, last_stride, size, frozen
):
    ibn = layout.endswith(" ibn")
    model = ResNet(sizes, bottleneck, layout.removesuffix(" ibn"), last_stride, frozen, ibn=ibn)
    generator = np.random.default_rng(0)
    variables = random_variables(model, generator)
    images = generator.normal(size=(2, *size, 3))
    network = in_torch(networks, model, variables)
    # Flax's BatchNorm cannot promote float64 in strict mode; a float32 among the numbers would show in the differences.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        run = partial(model.clone(dtype=jnp.float64).apply, train=True, mutable=["batch_stats"])
        shape = jax.eval_shape(run, variables, images)[0].shape
        weights = generator.normal(size=shape)

        def total(params, images):
            y, updates = run(variables | {"params": params}, images)
            return jnp.sum(y * weights), (y, updates["batch_stats"])

        step = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
        (_, (y, statistics)), (gradients, by_image) = jax.device_get(step(variables["params"], images))

    expected, expected_by_image = networks.differentiate(network, images, weights)
    spread = networks.spread
    assert spread(y, expected) < EXACT
    assert spread(by_image, expected_by_image) < EXACT
    parameters = dict(network.named_parameters())
    for path, leaf in parameter_paths(gradients).items():
        assert spread(networks.from_flax(leaf), parameters[torch_name(path, ibn)].grad) < EXACT, path
    buffers = dict(network.named_buffers())
    for path, leaf in parameter_paths(statistics).items():
        # PyTorch stores another estimate of the variance than it normalises with: n - 1 instead of n below it.
        if frozen or path.endswith("mean"):
            assert spread(leaf, buffers[torch_name(path, ibn)]) < EXACT, path


@pytest.mark.parametrize(("size", "padding"), [(1, 0), (3, 1), (5, 2)])
@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        *[((3, 7, 5, 8), strides) for strides in ((1, 1), (2, 2), (3, 2))],
        *[(shape, (2, 2)) for shape in ((2, 4, 2, 6), (1, 1, 1, 2))],
    ],
)
def test_convolutions_and_both_gradients_are_those_of_xla(shape, strides, size, padding):
    generator = np.random.default_rng(0)
    images, kernel = generator.normal(size=shape), generator.normal(size=(size, size, shape[-1], 5))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def run(conv, dtype):
        @jax.jit
        def both(x, k):
            y, back = jax.vjp(lambda x, k: conv(x, k, strides, [(padding, padding)] * 2, **options), x, k)
            return y, back(jnp.cos(y))

        return both(jnp.asarray(images, dtype), jnp.asarray(kernel, dtype))

    with jax.enable_x64(True):
        exact = run(jax.lax.conv_general_dilated, jnp.float64)
        # Sums of at most 200 products of numbers near one: rounding is some hundred times the 2e-16 of float64.
        chex.assert_trees_all_close(run(convolve, jnp.float64), exact, rtol=0, atol=1e-12)
        # The same with float32's 1e-7.
        single = jax.tree.map(jnp.float64, run(convolve, jnp.float32))
    chex.assert_trees_all_close(single, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_a_split_batch_stays_split_in_a_product_and_its_gradients(size):
    def loss(images, kernel):
        return jnp.sum(jnp.square(convolve(images, kernel, (2, 2), [(size // 2, size // 2)] * 2)))

    gradients = jax.grad(loss, argnums=(0, 1))
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in (("batch",), ()))
    step = jax.jit(gradients, in_shardings=(split, whole))
    images, kernel = (
        jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(4, 4, 4, 3), (size, size, 3, 5)])
    )
    by_image, by_kernel = step(images, kernel)
    # Sums of at most 27 products in float32, in another order.
    chex.assert_trees_all_close((by_image, by_kernel), gradients(images, kernel), rtol=1e-5, atol=1e-4)
    assert by_image.sharding.is_equivalent_to(split, 4)
    program = step.lower(images, kernel).compile().as_text()
    # Devices exchange the kernel's gradient alone.
    assert "all-gather" not in program
    assert program.count(" all-reduce(") == 1


@pytest.mark.parametrize("shape", [(4, 2), (8, 4)])
def test_maps_of_fewer_pixels_than_the_kernel_are_left_to_products(shape):
    def run(images, kernel, stride):
        return convolve(images, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))

    images, kernel = jnp.zeros((1, *shape, 2)), jnp.zeros((3, 3, 2, 2))
    programs = [str(jax.make_jaxpr(partial(run, stride=stride))(images, kernel)) for stride in (1, 2)]
    # An 8 x 4 map has enough pixels, and 4 x 2 after a stride of 2.
    assert ["conv_general_dilated" in program for program in programs] == [shape == (8, 4), False]


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 7), st.integers(2, 7))
def test_pooling_is_that_of_caffe(height, width):
    x = np.random.default_rng(0).normal(size=(1, height, width, 2)).astype(np.float32)
    rows, columns = (-(-(size - 3) // 2) + 1 for size in (height, width))
    expected = np.empty((1, rows, columns, 2), np.float32)
    for row in range(rows):
        for column in range(columns):
            window = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected[:, row, column] = window.max(axis=(1, 2))
    chex.assert_trees_all_equal(np.asarray(caffe_max_pool(jnp.asarray(x))), expected)
    chex.assert_trees_all_equal(np.asarray(caffe_max_pool(jnp.asarray(x), padded_max_pool)), expected)


def test_padding_first_is_the_same_pooling():
    x = jnp.asarray(np.random.default_rng(0).normal(-5, 1, size=(2, 6, 5, 3)), jnp.float32)
    for padding in (((1, 1), (1, 1)), ((0, 1), (1, 0))):
        chex.assert_trees_all_equal(padded_max_pool(x, padding), max_pool(x, padding))


@pytest.mark.parametrize(
    ("height", "width", "pairs"),
    [(7, 4, ((0, 0), (0, 1))), (8, 3, ((1, 1), (1, 1))), (2, 9, ((0, 1), (0, 0)))],
)
@pytest.mark.parametrize("whole", [True, False], ids=["ties", "no ties"])
def test_pooling_and_its_gradient_are_those_of_xla(height, width, pairs, whole):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, 3))
    x = jnp.asarray(np.maximum(np.rint(2 * x), 0) if whole else x, jnp.float32)
    expected, back = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (2, 2), pairs), x)
    found, ours = jax.vjp(lambda x: max_pool(x, pairs), x)
    chex.assert_trees_all_equal(found, expected)
    weights = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    chex.assert_trees_all_close(ours(weights), back(weights), atol=1e-6)


def test_pooling_refuses_what_caffe_cannot_pool():
    with pytest.raises(
        ConfigError, match="^`data.height`, `data.width`: too small, a feature map of 1 x 4 is left where"
    ):
        caffe_max_pool(jnp.zeros((1, 1, 4, 2)))


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    # torchvision's numbers less the classifier's: 512 or 2048 times 1000, and 1000.
    [
        ("resnet18", 512, 11_689_512 - 513_000),
        ("resnet34", 512, 21_797_672 - 513_000),
        ("resnet50", 2048, 25_557_032 - 2_049_000),
        ("resnet101", 2048, 44_549_160 - 2_049_000),
        ("resnet50_ibn_a", 2048, 25_557_032 - 2_049_000),
    ],
)
def test_networks_have_their_sizes(name, channels, parameters):
    model = getattr(resnet, name)()
    variables = shapes(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    y = jax.eval_shape(partial(model.apply, train=False), variables, jnp.zeros((2, 256, 128, 3)))
    assert y.shape == (2, 8, 4, channels)
    assert model.channels == channels


def test_variables_have_the_names_that_weights_are_stored_by():
    params, statistics = (parameter_paths(shapes(resnet.resnet50())[kind]) for kind in ("params", "batch_stats"))
    convolutions, norms = {"stem"}, {"bn_stem"}
    for stage, size in enumerate((3, 4, 6, 3), start=1):
        for block in range(1, size + 1):
            scope = f"stage{stage}_block{block}"
            convolutions |= {f"{scope}/conv{n}" for n in (1, 2, 3)} | ({f"{scope}/shortcut"} if block == 1 else set())
            norms |= {f"{scope}/bn{n}" for n in (1, 2, 3)} | ({f"{scope}/bn_shortcut"} if block == 1 else set())
    names = {f"{name}/kernel" for name in convolutions} | {f"{n}/{leaf}" for n in norms for leaf in ("scale", "bias")}
    assert set(params) == names
    assert set(statistics) == {f"{name}/{leaf}" for name in norms for leaf in ("mean", "var")}
    assert params["stem/kernel"].shape == (7, 7, 3, 64)
    assert params["stage4_block1/shortcut/kernel"].shape == (1, 1, 1024, 2048)


def test_initial_values_are_those_of_he_and_blocks_start_as_their_shortcuts():
    model = ResNet(ONE, bottleneck=True)
    init = jax.jit(lambda key: model.lazy_init(key, jnp.zeros((1, 32, 32, 3)), train=False))
    params = jax.device_get(init(jax.random.key(0, impl="rbg"))["params"])
    for path, leaf in parameter_paths(params).items():
        if path.endswith("kernel"):
            height, width, _, outputs = leaf.shape
            # Kernels have 4096 numbers or more, which tell their deviation to 1 / sqrt(8192), about one hundredth.
            assert np.std(leaf) == pytest.approx((2 / (height * width * outputs)) ** 0.5, rel=0.05), path
        else:
            expected = 1 if path.endswith("scale") and "bn3" not in path else 0
            np.testing.assert_array_equal(leaf, expected)


@pytest.mark.slow  # test_caffenet.py has the outputs
def test_bfloat16_is_close_to_float32_in_outputs_and_gradients():
    # With stored statistics: those of a small batch amplify every rounding.
    model = ResNet(ONE, bottleneck=True, frozen_statistics=True)
    generator = np.random.default_rng(0)
    variables = jax.tree.map(jnp.float32, random_variables(model, generator))
    images = jnp.asarray(generator.normal(size=(2, 64, 32, 3)), jnp.float32)

    def loss(dtype, params, images):
        y = model.clone(dtype=dtype).apply(variables | {"params": params}, images, train=True)
        return jnp.mean(jnp.square(y)), y

    def rounded(leaf):
        return leaf.astype(jnp.bfloat16).astype(jnp.float32)

    single, half = (jax.jit(jax.grad(partial(loss, dtype), has_aux=True)) for dtype in (jnp.float32, jnp.bfloat16))
    exact, found = single(variables["params"], images), half(variables["params"], images)
    chex.assert_trees_all_equal_dtypes(exact, found, jax.tree.map(jnp.float32, exact))
    # What float32 makes of weights and images that bfloat16 has rounded is the error that cannot be avoided (here 1 to
    # 3 %); rounding on the way may add twice as much.
    bound = single(jax.tree.map(rounded, variables["params"]), rounded(images))
    for a, b, c in zip(exact, found, bound, strict=True):
        a, b, c = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b, c))
        assert 0 < np.linalg.norm(b - a) < 3 * np.linalg.norm(c - a) < 0.1 * np.linalg.norm(a)


def test_bfloat16_is_used_by_convolutions_and_float32_by_statistics():
    model = ResNet(ONE, bottleneck=True, dtype=jnp.bfloat16)
    run = partial(model.apply, train=True, mutable=["batch_stats"])
    variables = shapes(model)
    images = jax.ShapeDtypeStruct((2, 256, 128, 3), jnp.float32)
    chex.assert_trees_all_equal_dtypes(variables, jax.tree.map(lambda leaf: leaf.update(dtype=jnp.float32), variables))
    program = str(jax.make_jaxpr(run)(variables, images))
    operations = ("conv_general_dilated", "dot_general", "reduce_sum")
    types = {op: re.findall(rf":(\w+)\[[\d,]*\] = {op}\[", program) for op in operations}
    # Convolutions of 1x1 are products: three of the four in each of four blocks.
    assert types == {"conv_general_dilated": ["bf16"] * 5, "dot_general": ["bf16"] * 12, "reduce_sum": ["f32"] * 34}


def test_the_small_network_is_the_one_whose_numbers_are_published():
    images = jax.random.normal(jax.random.key(1), (2, 32, 16, 3))
    model = MiniResNet(widths=(4, 8), channels=8)
    variables = jax.jit(lambda key: model.lazy_init(key, images, train=False))(jax.random.key(0))
    y, updates = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(variables, images)
    # Numbers of the first release. Blocks start as their shortcuts, so that their convolutions show in statistics only.
    variances = [updates["batch_stats"][f"stage{stage}"]["bn2"]["var"] for stage in (1, 2)]
    norms = [float(jnp.linalg.norm(leaf)) for leaf in (y, *variances)]
    # Compilers may sum in another order, which costs float32 some of its seven digits.
    assert norms == pytest.approx([16.634361, 1.9222672, 2.6735449], rel=1e-5)
    names = {path.split("/")[1] for path in parameter_paths(variables["params"]) if path.startswith("stage2/")}
    assert names == {"conv1", "bn1", "conv2", "bn2", "shortcut", "bn_shortcut"}


@pytest.mark.parametrize("ibn", [False, True])
def test_stored_statistics_within_the_kernel_give_the_same_network(monkeypatch, ibn):
    """Elsewhere than on a CPU: the same variables, outputs and gradients."""
    model = ResNet((1, 1, 0, 0), True, "caffe", 2, True, ibn=ibn)
    variables = random_variables(model, np.random.default_rng(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 17, 17, 3)), jnp.float32)

    def results():
        shapes = jax.eval_shape(partial(model.init, train=True), jax.random.key(0), x)
        total = lambda params: jnp.sum(jnp.sin(model.apply({**variables, "params": params}, x, train=True)))  # noqa: E731
        return jax.tree.map(jnp.shape, shapes), jax.jit(jax.value_and_grad(total))(variables["params"])

    shapes, expected = results()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ours, found = results()
    assert ours == shapes
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        chex.assert_trees_all_close(one, other, rtol=2e-4, atol=2e-4 * float(jnp.abs(other).max()))
    program = str(jax.make_jaxpr(partial(model.apply, train=True))(variables, x))
    # The map is multiplied nowhere: only kernels are. InstanceNorm multiplies its half of the channels in each block.
    assert len(re.findall(r"f32\[2,\d+,\d+,(?!32\]|64\])\d+\] = mul", program)) == 0
    assert bool(re.search(r"f32\[2,\d+,\d+,\d+\] = mul", program)) == ibn


def test_elsewhere_than_on_a_cpu_a_convolution_is_one(monkeypatch):
    """XLA of jax 0.11.2 aborts over the products when it compiles for an NVIDIA GPU, and needs none of them."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    conv = partial(
        convolve, window_strides=(2, 2), padding=[(0, 0), (0, 0)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    program = str(jax.make_jaxpr(conv)(jnp.zeros((1, 4, 2, 3)), jnp.zeros((1, 1, 3, 2))))
    assert "conv_general_dilated" in program
    assert "dot_general" not in program


@pytest.mark.parametrize(("platform", "convolution", "product"), [("cpu", 0, 1), ("cuda", 1, 0), ("tpu", 1, 0)])
def test_a_program_for_other_platforms_has_the_convolution_of_each(platform, convolution, product):
    settings = {"window_strides": (2, 2), "padding": [(0, 0), (0, 0)], "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    conv = jax.jit(partial(convolve_on_any_platform, **settings))
    shapes = jax.ShapeDtypeStruct((1, 4, 2, 3), jnp.float32), jax.ShapeDtypeStruct((1, 1, 3, 2), jnp.float32)
    program = conv.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert (program.count("stablehlo.convolution"), program.count("stablehlo.dot_general")) == (convolution, product)
    x, kernel = (jnp.asarray(np.random.default_rng(0).normal(size=each.shape), jnp.float32) for each in shapes)
    chex.assert_trees_all_equal(conv(x, kernel), convolve(x, kernel, **settings))
