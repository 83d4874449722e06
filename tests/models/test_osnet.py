"""OSNet against plain PyTorch: features by weights in torchreid's names, gradients, sizes, both ways to compute it."""

import importlib
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from svdnet_jax.errors import ConfigError, WeightsError
from svdnet_jax.models import osnet
from svdnet_jax.models.conv_norm import ConvNorm, convolve
from svdnet_jax.models.osnet import OSBlock, OSNet
from svdnet_jax.models.pretrained.load import load_pretrained
from svdnet_jax.models.pretrained.torch_names import from_torch
from svdnet_jax.models.svdnet import create_backbone

pytestmark = pytest.mark.unoptimized

SMALL = (16, 64, 96, 128)


@pytest.fixture(scope="module")
def networks():
    return importlib.import_module("torch_networks")


def in_torch(networks, widths, seed=0):
    """The network in PyTorch, in which nothing is zero, one or the same."""
    return filled(networks.torch, networks.OSNet(widths), seed)


def filled(torch, network, seed=0):
    torch.manual_seed(seed)
    for name, array in network.state_dict().items():
        if array.ndim == 1:
            array.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else array.normal_(0, 0.3)
        elif array.ndim == 4:
            array.normal_(0, (2 / array[0].numel()) ** 0.5)
    return network.eval()


def ours(weights):
    return {kind: unflatten_dict(getattr(weights, kind), sep="/") for kind in ("params", "batch_stats")}


def shapes(model, size=(32, 16)):
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, *size, 3)))
    return {
        kind: {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
        for kind, tree in variables.items()
    }


def numpy_state(network):
    return {name: array.numpy() for name, array in network.state_dict().items()}


@pytest.mark.torch
@pytest.mark.parametrize("name", ["osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25"])
def test_torchreids_names_and_sizes_are_read(networks, name):
    model = getattr(osnet, name)()
    weights = from_torch(numpy_state(networks.OSNet(model.widths)))
    assert shapes(model) == {
        kind: {path: array.shape for path, array in getattr(weights, kind).items()}
        for kind in ("params", "batch_stats")
    }


@pytest.mark.torch
@pytest.mark.parametrize(("widths", "size"), [(SMALL, (64, 32)), ((32, 128, 192, 256), (61, 37))])
def test_features_of_a_checkpoint_are_those_of_pytorch(networks, tmp_path, widths, size):
    torch, network = networks.torch, in_torch(networks, widths)
    head = torch.nn.ModuleDict({"fc": torch.nn.Sequential(torch.nn.Linear(widths[-1], 512), torch.nn.BatchNorm1d(512))})
    head["classifier"] = torch.nn.Linear(512, 7)
    path = tmp_path / "model.pth.tar-60"
    torch.save({"state_dict": in_front(network.state_dict() | head.state_dict()), "epoch": 60}, path)
    weights = load_pretrained(str(path))
    assert weights.note == "'module.' taken off the names; left out: module.classifier (2), module.fc (7)"
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).permute(0, 2, 3, 1).numpy()
    found = jax.jit(partial(OSNet(widths).apply, train=False))(ours(weights), jnp.asarray(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def in_front(state):
    return {f"module.{name}": array for name, array in state.items()}


def block(frozen, train, dtype=jnp.float32):
    """One block by itself: all that OSNet has and a ResNet has not."""
    return OSBlock(64, ConvNorm(dtype, frozen, frozen or not train, None, convolve))


@pytest.mark.torch
@pytest.mark.parametrize("frozen", [True, False])
def test_outputs_and_gradients_of_a_block_are_those_of_pytorch(networks, frozen):
    network = filled(networks.torch, networks.OmniScale(32, 64)).train(not frozen)

    def in_our_names(arrays):
        named = {f"conv2.0.{name}": array.numpy() for name, array in arrays.items()}
        weights = from_torch(named | {"conv1.conv.weight": np.ones((1, 3, 7, 7), np.float32)})
        part = "stage1_block1/"
        return {
            kind: {path.removeprefix(part): array for path, array in leaves.items() if path.startswith(part)}
            for kind, leaves in (("params", weights.params), ("batch_stats", weights.batch_stats))
        }

    leaves = in_our_names(network.state_dict())
    generator = np.random.default_rng(0)
    images, factors = generator.normal(size=(2, 7, 5, 32)), generator.normal(size=(2, 7, 5, 64))
    expected, _ = networks.differentiate(network.double(), images, factors)
    # Flax's BatchNorm cannot promote float64 in strict mode.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        run = partial(block(frozen, True, jnp.float64).apply, mutable=["batch_stats"])
        variables = {
            kind: unflatten_dict({path: jnp.asarray(a, jnp.float64) for path, a in part.items()}, sep="/")
            for kind, part in leaves.items()
        }

        def total(params, x):
            y, _ = run({**variables, "params": params}, x)
            return jnp.sum(y * factors), y

        gradients, y = jax.device_get(jax.jit(jax.grad(total, has_aux=True))(variables["params"], jnp.asarray(images)))
    # In float64, as in test_resnet.py.
    assert networks.spread(y, expected) < 1e-12
    theirs = in_our_names({name: p.grad for name, p in network.named_parameters()})["params"]
    found = flatten_dict(gradients, sep="/")
    assert found.keys() == theirs.keys()
    for path, leaf in found.items():
        # Names are converted in float32, whose rounding is 6e-8; a gradient of nothing but rounding has no digits.
        size = max(np.abs(theirs[path]).max(), 1e-6)
        np.testing.assert_allclose(leaf, theirs[path], rtol=0, atol=1e-6 * size, err_msg=path)


def test_stored_statistics_within_the_kernels_give_the_same_network(monkeypatch):
    """Elsewhere than on a CPU: the same variables, outputs and gradients, and no map multiplied but by gates."""
    model, generator = block(frozen=True, train=True), np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, 7, 5, 32)), jnp.float32)
    draw = lambda leaf: jnp.asarray(generator.uniform(0.2, 1.0, leaf.shape) / leaf.size**0.3, jnp.float32)  # noqa: E731
    variables = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0), x))

    def results():
        total = lambda params: jnp.sum(jnp.sin(model.apply({**variables, "params": params}, x)))  # noqa: E731
        shapes = jax.tree.map(jnp.shape, jax.eval_shape(model.init, jax.random.key(0), x))
        return shapes, jax.jit(jax.value_and_grad(total))(variables["params"])

    plain, expected = results()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    folded, found = results()
    assert folded == plain
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        chex.assert_trees_all_close(one, other, rtol=2e-4, atol=2e-4 * float(jnp.abs(other).max()))
    program = str(jax.make_jaxpr(model.apply)(variables, x))
    assert len(re.findall(r"f32\[2,\d+,\d+,\d+\] = mul", program)) == 4


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("shape", [(2, 7, 5, 4), (1, 2, 1, 3)])
def test_depthwise_and_grouped_convolutions_are_those_of_xla(shape, strides):
    generator, channels = np.random.default_rng(0), shape[-1]
    x = jnp.asarray(generator.normal(size=shape), jnp.float32)
    settings = {"window_strides": strides, "padding": [(1, 1), (1, 1)], "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    groups = {channels: (3, 3, 1, channels)} | ({2: (3, 3, 2, 6)} if channels == 4 else {channels: (3, 3, 1, 6)})
    for count, size in groups.items():
        kernel = jnp.asarray(generator.normal(size=size), jnp.float32)
        runs = [
            partial(each, feature_group_count=count, **settings) for each in (convolve, jax.lax.conv_general_dilated)
        ]
        (y, back), (expected, theirs) = (jax.vjp(run, x, kernel) for run in runs)
        chex.assert_trees_all_close((y, back(jnp.cos(y))), (expected, theirs(jnp.cos(y))), rtol=1e-5, atol=1e-5)


def test_images_that_vanish_are_refused():
    model = create_backbone("osnet_x0_25")
    init = lambda size: jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, *size, 3)))  # noqa: E731
    init((13, 13))
    with pytest.raises(ConfigError, match="too small for OSNet, which needs 13 x 13"):
        init((12, 40))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv1.conv.weight": (4, 3, 7, 7), "conv2.0.IN.weight": (4,)}, "an OSNet of torchreid .*: conv2.0.IN.weight"),
        ({"conv1.conv.weight": (4, 3, 7, 7), "conv2.0.conv2.0.layers.0.bn.bias": (4,)}, "not AIN.*layers.0.bn.bias"),
        ({"conv1.conv.weight": (4, 3, 7)}, "a convolution has four"),
    ],
)
def test_other_networks_in_its_names_are_refused(state, message):
    with pytest.raises(WeightsError, match=message):
        from_torch({name: np.ones(shape, np.float32) for name, shape in state.items()})
