"""Foreign names, layouts, biases and epsilons against networks written under those names here."""

import chex
import flax.linen as nn
import foreign_weights as foreign
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings

from svdnet_jax.errors import WeightsError
from svdnet_jax.models import resnet
from svdnet_jax.models.caffenet import CaffeNet
from svdnet_jax.models.conv_norm import batch_norm
from svdnet_jax.models.pretrained.convert import describe, from_caffe, from_keras
from svdnet_jax.models.pretrained.torch_names import from_torch

# Folding adds and takes off numbers of the size of the statistics, in float32 in the files.
FOLD = {"rtol": 1e-6, "atol": 1e-6}


class Stem(nn.Module):
    """The beginning of our networks, with their own BatchNorm."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="VALID", use_bias=False, name="stem")(x)
        return batch_norm(x, use_running_average=True, name="bn_stem")


def flat(found):
    return {f"{layer}/{name}": array for layer, weights in found.items() for name, array in weights.items()}


def assert_is_truth(weights, network, exact):
    params, stats, head = foreign.truth(network)
    check = chex.assert_trees_all_equal if exact else lambda a, b: chex.assert_trees_all_close(a, b, **FOLD)
    check(weights.params, params)
    check(weights.batch_stats, stats)
    check(weights.head, head)
    assert all(array.dtype == np.float32 for array in {**weights.params, **weights.batch_stats}.values())


def caffe_blobs(network, many):
    params, stats, head = foreign.truth(network)
    bias = foreign.biases(params)
    blobs = {"fc1000": [head["kernel"].T, head["bias"]]}
    for where in foreign.layers(network):
        conv, bn = foreign.our_names(*where[:3])
        kernel = params[f"{conv}/kernel"]
        there = foreign.caffe_names(*where[:3], many)
        # Only the first convolution has a bias in He et al.'s ResNet-50.
        extra = bias[conv] if where[0] == 0 else np.float32(0)
        kernel = kernel[:, :, ::-1] if where[0] == 0 else kernel
        blobs[there[0]] = [kernel.transpose(3, 2, 0, 1)] + ([extra] if where[0] == 0 else [])
        factor = np.float32(4)
        blobs[there[1]] = [(stats[f"{bn}/mean"] + extra) * factor, stats[f"{bn}/var"] * factor, factor[None]]
        blobs[there[2]] = [params[f"{bn}/scale"], params[f"{bn}/bias"]]
    return blobs


@pytest.mark.parametrize("network", foreign.SIZES)
def test_torchvision_names(network):
    weights = from_torch(foreign.torch_state(network))
    assert_is_truth(weights, network, exact=True)
    assert weights.layouts == ("torchvision",)
    np.testing.assert_allclose(weights.mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(weights.std, [58.395, 57.12, 57.375])


@pytest.mark.parametrize(("generation", "epsilon"), [("old", 1e-3), ("new", 1.001e-5)])
def test_keras_names_in_both_generations_with_their_default_epsilons(generation, epsilon):
    weights = from_keras(flat(foreign.keras_layers("resnet50", generation, epsilon)), {})
    assert_is_truth(weights, "resnet50", exact=False)
    assert weights.layouts == ("caffe", "keras")
    assert weights.mean == (123.68, 116.779, 103.939)
    assert weights.std == (1, 1, 1)


def test_keras_resnet101_has_names_beyond_the_alphabet():
    weights = from_keras(flat(foreign.keras_layers("resnet101", "new", 1.001e-5)), {})
    assert_is_truth(weights, "resnet101", exact=False)


@pytest.mark.parametrize(("network", "many"), [("resnet50", False), ("resnet101", True)])
def test_caffe_names_running_sums_and_one_bias(network, many):
    weights = from_caffe(caffe_blobs(network, many))
    assert_is_truth(weights, network, exact=False)
    assert weights.layouts == ("caffe", "keras")


@pytest.mark.parametrize("network", foreign.SIZES)
def test_names_and_dimensions_are_those_of_our_networks(network):
    model = getattr(resnet, network)()
    shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), shape)
    weights = from_torch(foreign.torch_state(network))
    for kind in ("params", "batch_stats"):
        ours = {name: len(leaf.shape) for name, leaf in flatten_dict(variables[kind], sep="/").items()}
        assert {name: array.ndim for name, array in getattr(weights, kind).items()} == ours
    assert describe(weights.params) == f"a {network.replace('resnet', 'ResNet-')}"


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    epsilon=st.sampled_from([1e-5, 1.001e-5, 1e-4, 1e-3, 1e-2]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
)
def test_a_biased_bgr_convolution_and_its_batch_norm_compute_the_same_in_our_form(seed, epsilon, scale):
    rng = np.random.default_rng(seed)
    kernel, bias, gamma, beta, mean = (rng.normal(size=(3, 3, 3, 4)), *rng.normal(size=(4, 4)) * scale)
    variance = rng.uniform(0.1, 2, 4) * scale**2
    bgr = rng.normal(size=(2, 5, 5, 3)) * scale
    windows = np.lib.stride_tricks.sliding_window_view(bgr, (3, 3), axis=(1, 2))
    convolved = np.einsum("nhwcyx,yxco->nhwo", windows, kernel) + bias
    expected = gamma * (convolved - mean) / np.sqrt(variance + epsilon) + beta
    arrays = {"conv1/kernel": kernel, "conv1/bias": bias}
    arrays |= {"bn_conv1/gamma": gamma, "bn_conv1/beta": beta}
    arrays |= {"bn_conv1/moving_mean": mean, "bn_conv1/moving_variance": variance}
    weights = from_keras({name: array.astype(np.float32) for name, array in arrays.items()}, {"bn_conv1": epsilon})
    assert weights.params.keys() == {"stem/kernel", "bn_stem/scale", "bn_stem/bias"}

    variables = {kind: unflatten_dict(getattr(weights, kind), sep="/") for kind in ("params", "batch_stats")}
    ours = Stem().apply(variables, jnp.asarray(bgr[..., ::-1], jnp.float32))
    # float32 against float64: sums of 27 products, then a subtraction of numbers as large.
    size = np.abs(gamma / np.sqrt(variance + epsilon)).max() * np.abs(convolved).max() + np.abs(beta).max()
    np.testing.assert_allclose(ours, expected, atol=1e-5 * size)


def test_epsilons_are_those_of_the_layer():
    found = foreign.keras_layers("resnet50", "old", 1e-3)
    plain = from_keras(flat(found), {}).batch_stats
    named = from_keras(flat(found), {"bn2a_branch2b": 2e-3, "another": 5.0}).batch_stats
    changed = {name for name in plain if not np.array_equal(plain[name], named[name])}
    assert changed == {"stage1_block1/bn2/var"}
    moved = named["stage1_block1/bn2/var"] - plain["stage1_block1/bn2/var"]
    np.testing.assert_allclose(moved, 1e-3, atol=3e-7)  # the spacing of float32 at 2


def test_caffenet_computes_what_caffe_computes_at_fc6():
    rng = np.random.default_rng(0)
    conv = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3)}
    shapes = conv | {"conv5": (256, 192, 3, 3), "fc6": (7, 9216), "fc7": (5, 7), "fc8": (3, 5)}
    blobs = {
        name: [rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[0]).astype(np.float32)]
        for name, shape in shapes.items()
    }
    weights = from_caffe(blobs)
    shape = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: CaffeNet(channels=7).init(jax.random.key(0), x, train=False), shape)
    ours = {name: leaf.shape for name, leaf in flatten_dict(variables["params"], sep="/").items()}
    assert {name: array.shape for name, array in weights.params.items()} == ours
    assert describe(weights.params) == "a CaffeNet"
    assert weights.batch_stats == {}
    assert weights.head.keys() == {"fc7/kernel", "fc7/bias", "fc8/kernel", "fc8/bias"}
    np.testing.assert_array_equal(weights.params["conv1/kernel"][2, 3, :, 5], blobs["conv1"][0][5, ::-1, 2, 3])
    np.testing.assert_array_equal(weights.params["conv2/kernel"][2, 3, :, 5], blobs["conv2"][0][5, :, 2, 3])
    np.testing.assert_array_equal(weights.params["conv2/bias"], blobs["conv2"][1])
    feature = rng.normal(size=(256, 6, 6)).astype(np.float32)
    theirs = blobs["fc6"][0] @ feature.ravel() + blobs["fc6"][1]
    here = feature.transpose(1, 2, 0).ravel() @ weights.params["fc6/kernel"] + weights.params["fc6/bias"]
    np.testing.assert_allclose(here, theirs, rtol=0, atol=1e-3)  # float32 sums of 9216 products of size 1
    old = blobs | {name: [blobs[name][0][None, None], blobs[name][1][None, None, None]] for name in ("fc6", "fc7")}
    chex.assert_trees_all_equal(from_caffe(old), weights)


@pytest.mark.parametrize(
    ("convert_it", "message"),
    [
        (lambda: from_keras({"conv2_block1_preact_bn/gamma": np.ones(3)}, {}), "ResNet V2.*not ResNet50V2"),
        (lambda: from_keras({"block1_conv1/kernel": np.ones(3)}, {}), "holds 1 weights that a Keras .*block1_conv1/ke"),
        (lambda: from_keras({"conv1/gamma": np.ones(3)}, {}), "conv1/gamma"),
        (lambda: from_keras({"bn_conv1/kernel": np.ones(3)}, {}), "bn_conv1/kernel"),
        (lambda: from_torch({"layer1.0.se.conv.weight": np.ones(3)}), "layer1.0.se.conv.weight"),
        (lambda: from_torch({"conv1.0.weight": np.ones(3)}), "conv1.0.weight"),
        (lambda: from_torch({"conv1.num_batches_tracked": np.ones(3)}), "conv1.num_batches_tracked"),
        (lambda: from_torch({f"head.{i}": np.ones(3) for i in range(9)}), "holds 9 .*head.0, .*head.3 and 5 more"),
        (lambda: from_torch({"conv1.weight": np.ones(3)}), r"\(3,\); a convolution has four"),
        (lambda: from_torch({"bn1.bias": np.array([1, np.nan])}), "bn_stem/bias must hold finite"),
        (lambda: from_torch({"bn1.bias": np.arange(3)}), "bn_stem/bias must .* found int64"),
        (lambda: from_caffe({"conv1_1": [np.ones(3)]}), "conv1_1"),
        (lambda: from_caffe({"bn_conv1": [np.ones(3)] * 2}), "bn_conv1"),
        (lambda: from_caffe({"fc6": [np.ones((4, 9)), np.ones(4)]}), "fc6 has 9 inputs"),
        (lambda: from_caffe({"fc6": [np.ones((4, 9216)), np.ones(4)], "norm": [np.ones(4)]}), "norm"),
    ],
)
def test_weights_of_other_networks_are_refused_with_their_names(convert_it, message):
    with pytest.raises(WeightsError, match=message):
        convert_it()


def test_a_bias_of_another_size_than_its_batch_norm_is_refused():
    found = foreign.keras_layers("resnet50", "old", 1e-3)
    found["conv1"]["bias"] = np.ones(1, np.float32)
    with pytest.raises(WeightsError, match=r"stem/bias has shape \(1,\)"):
        from_keras(flat(found), {})


def test_a_bias_without_a_batch_norm_is_kept_to_be_refused_later():
    found = foreign.keras_layers("resnet50", "old", 1e-3)
    del found["bn_conv1"]
    assert "stem/bias" in from_keras(flat(found), {}).params


def test_statistics_that_caffe_never_took_are_zero():
    blobs = caffe_blobs("resnet50", many=False)
    blobs["bn_conv1"][2] = np.zeros(1, np.float32)
    blobs["conv1"] = blobs["conv1"][:1]
    weights = from_caffe(blobs)
    assert not weights.batch_stats["bn_stem/mean"].any()
    assert not weights.batch_stats["bn_stem/var"].any()
