"""Weights out of files of every kind, into variables, and what is said of files that are damaged or do not fit."""

import functools
import json
from unittest import mock

import chex
import foreign_weights as foreign
import huggingface_hub.constants
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from huggingface_hub.errors import RemoteEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from svdnet_jax.errors import ConfigError, WeightsError
from svdnet_jax.models.pretrained.convert import IMAGENET_MEAN, IMAGENET_STD
from svdnet_jax.models.pretrained.load import Pretrained, load_pretrained, with_pretrained, write_pretrained

# See test_convert.py.
FOLD = {"rtol": 1e-6, "atol": 1e-6}
# PyTorch's weights in files that are read without it and in its own.
TORCH_FILES = ["a.safetensors", pytest.param("a.pth", marks=pytest.mark.torch)]
KERAS_1 = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@functools.cache
def truth(network="resnet50"):
    params, stats, head = foreign.truth(network)
    return Pretrained(params, stats, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), head, "made here", ("caffe", "keras"))


def variables(network="resnet50"):
    """Of an SVDNet with such a backbone, all zeros."""
    zeros = {
        kind: unflatten_dict({k: jnp.zeros(v.shape) for k, v in getattr(truth(network), kind).items()}, sep="/")
        for kind in ("params", "batch_stats")
    }
    rest = {"eigenlayer": {"kernel": jnp.ones((2, 2))}}
    return {"params": {"backbone": zeros["params"], **rest}, "batch_stats": {"backbone": zeros["batch_stats"]}}


def write_torch(path):
    """A ResNet-50 in torchvision's names."""
    state = foreign.torch_state("resnet50")
    if path.suffix == ".safetensors":
        return foreign.write_safetensors(path, state, {"format": "pt"})
    import torch

    torch.save(foreign.tensors(state), path)
    return path


def assert_is_truth(weights, **tolerance):
    for kind in ("params", "batch_stats", "head"):
        expected, found = getattr(truth(), kind), getattr(weights, kind)
        chex.assert_trees_all_close(found, expected, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize(("generation", "epsilon"), [("old", 1e-3), ("new", 1.001e-5), ("old", 1e-4)])
def test_tfjs_shards(tmp_path, generation, epsilon):
    found = foreign.keras(generation, epsilon)
    path = foreign.write_tfjs(tmp_path / "model", found, foreign.keras_topology(found, epsilon))
    weights = load_pretrained(str(path))
    assert_is_truth(weights, **FOLD)
    assert weights.source.startswith("model.json ")
    assert weights.layouts == ("caffe", "keras")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"topology": 1e-4, "group": "model_weights"},
        {"text": str},
        {"text": str, "topology": 1e-4, "group": "model_weights"},
        {"split": True},
        {"name": "{layer}_{weight}_1:0"},
        {"name": "{layer}_{weight}:0", "keras_1": True},
        {"name": "{layer}/{weight}"},
        {"name": "resnet50/{layer}/{weight}:0", "nested": "resnet50"},
        {"name": "{layer}/{weight}:0", "nested": "resnet50"},
        {"name": "{weight}"},
    ],
    ids=str,
)
def test_keras_h5_in_its_many_forms(tmp_path, options):
    options = dict(options)
    epsilon = options.pop("topology", 1e-3)
    found = foreign.keras("old", epsilon)
    topology = foreign.keras_topology(found, epsilon) if "group" in options else None
    if options.pop("keras_1", False):
        found = {layer: {KERAS_1.get(k, k): v for k, v in weights.items()} for layer, weights in found.items()}
    path = foreign.write_h5(tmp_path / "resnet50.h5", found, topology, **options)
    assert_is_truth(load_pretrained(str(path)), **FOLD)


def test_a_keras_file_without_its_top_has_no_head(tmp_path):
    found = {layer: weights for layer, weights in foreign.keras().items() if layer != "fc1000"}
    weights = load_pretrained(str(foreign.write_h5(tmp_path / "notop.h5", found)))
    assert weights.head is None
    chex.assert_trees_all_close(weights.params, truth().params, **FOLD)


@pytest.mark.torch
@pytest.mark.parametrize("wrapper", ["plain", "state_dict", "model", "module.", "half"])
def test_torch_state_dicts(tmp_path, wrapper):
    import torch

    state = foreign.tensors(foreign.torch_state("resnet50"))
    tolerance = {}
    if wrapper in ("state_dict", "model"):
        state = {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    elif wrapper == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrapper == "half":
        state = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        tolerance = {"rtol": 2**-8, "atol": 0}  # eight bits of mantissa
    torch.save(state, tmp_path / "resnet50.pth")
    weights = load_pretrained("resnet50.pth")
    assert_is_truth(weights, **tolerance)
    assert (weights.mean, weights.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert weights.layouts == ("torchvision",)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}))
    assert (load_pretrained("resnet50.pth").mean, load_pretrained("resnet50.pth").std) == ((127.5,) * 3, (63.75,) * 3)


def test_torch_names_in_safetensors_and_timms_normalization(tmp_path):
    path = write_torch(tmp_path / "model.safetensors")
    weights = load_pretrained(str(path))
    assert_is_truth(weights)
    assert (weights.mean, weights.std) == (IMAGENET_MEAN, IMAGENET_STD)
    config = {"architecture": "resnet50", "pretrained_cfg": {"mean": [0.5, 0.4, 0.2], "std": [0.5, 0.2, 0.1]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_pretrained(str(path))
    assert weights.mean == (127.5, 102.0, 51.0)
    assert weights.std == (127.5, 51.0, 25.5)
    (tmp_path / "config.json").write_text("{}")
    assert load_pretrained(str(path)).mean == IMAGENET_MEAN


@pytest.mark.parametrize("file", TORCH_FILES)
@pytest.mark.parametrize("network", ["resnetaa50", "resnetblur50.bt_in1k", "resnet50d", "seresnet50", "resnet50_gn"])
def test_a_network_that_config_json_knows_to_be_another_is_refused(tmp_path, network, file):
    write_torch(tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": network}))
    said = f"^`model.weights` {file}: is a {network}, as config.json beside it says, .* such as hf:timm/resnet50.tv"
    with pytest.raises(WeightsError, match=said):
        load_pretrained(file)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50.tv_in1k"}))
    assert_is_truth(load_pretrained(file))


@pytest.mark.parametrize("head", [True, False])
def test_our_own_file_holds_everything(tmp_path, head):
    weights = truth()._replace(head=truth().head if head else None)
    write_pretrained(tmp_path / "mine.safetensors", weights)
    found = load_pretrained("mine.safetensors")
    chex.assert_trees_all_equal(found._replace(source="made here"), weights)
    with pytest.raises(WeightsError, match="mine.npz.*safetensors"):
        write_pretrained(tmp_path / "mine.npz", weights)


@pytest.mark.parametrize("file", TORCH_FILES)
def test_the_source_names_the_numbers_whatever_file_they_are_in(tmp_path, file):
    weights = load_pretrained(str(write_torch(tmp_path / file)))
    write_pretrained(tmp_path / "b.safetensors", weights)
    name, digest = weights.source.split()
    assert name == file
    assert len(digest) == 8
    assert load_pretrained("b.safetensors").source == f"b.safetensors {digest}"
    changed = {**weights.params, "stem/kernel": weights.params["stem/kernel"] + 1}
    write_pretrained(tmp_path / "b.safetensors", weights._replace(params=changed))
    assert load_pretrained("b.safetensors").source.split()[1] != digest


@pytest.mark.parametrize("form", [{}, {"old": True}, {"double": True}], ids=str)
def test_caffemodel_in_both_versions_of_its_format(tmp_path, form):
    blobs = foreign.caffenet(np.random.default_rng(0))
    weights = load_pretrained(str(foreign.write_caffemodel(tmp_path / "net.caffemodel", blobs, **form)))
    assert weights.params.keys() == {"conv1/kernel", "conv1/bias", "fc6/kernel", "fc6/bias"}
    np.testing.assert_array_equal(weights.params["conv1/kernel"], blobs["conv1"][0][:, ::-1].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(weights.params["fc6/bias"], blobs["fc6"][1])
    np.testing.assert_array_equal(weights.head["fc7/kernel"], blobs["fc7"][0].T)
    assert weights.mean == (123, 117, 104)


def test_weights_replace_the_backbone_and_nothing_else():
    old = variables() | {"other": {"x": jnp.ones(1)}}
    new = with_pretrained(old, truth())
    for kind in ("params", "batch_stats"):
        found = flatten_dict(new[kind]["backbone"], sep="/")
        chex.assert_trees_all_equal({name: np.asarray(leaf) for name, leaf in found.items()}, getattr(truth(), kind))
    assert new["params"]["eigenlayer"] is old["params"]["eigenlayer"]
    assert new["other"] is old["other"]
    assert not np.any(old["params"]["backbone"]["stem"]["kernel"])
    assert jax.tree.structure(new) == jax.tree.structure(old)


def test_arrays_keep_their_devices_and_types():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    old = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec())), variables())
    stem = old["params"]["backbone"]["bn_stem"]
    stem["scale"] = jax.device_put(jnp.zeros(4, jnp.bfloat16), split)
    new = with_pretrained(old, truth())
    chex.assert_trees_all_equal(jax.tree.map(lambda a: a.sharding, new), jax.tree.map(lambda a: a.sharding, old))
    chex.assert_trees_all_equal_dtypes(new, old)
    assert new["params"]["backbone"]["bn_stem"]["scale"].sharding == split
    free = with_pretrained(variables(), truth())
    assert not any(leaf.committed for leaf in jax.tree.leaves(free))


def test_a_backbone_without_statistics():
    params = {"params": {"backbone": {"conv1": {"kernel": jnp.zeros(3)}}}}
    weights = Pretrained({"conv1/kernel": np.ones(3, np.float32)}, {}, (1.0,) * 3, (1.0,) * 3, None, "x")
    new = with_pretrained(params, weights)
    assert new.keys() == {"params"}
    np.testing.assert_array_equal(new["params"]["backbone"]["conv1"]["kernel"], [1, 1, 1])


zeros = functools.cache(variables)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_leaf_is_accounted_for(data):
    """Whatever leaf is taken away, added or reshaped, the error names it."""
    kind = data.draw(st.sampled_from(["params", "batch_stats"]))
    leaves = dict(getattr(truth(), kind))
    name = data.draw(st.sampled_from(sorted(leaves)))
    change = data.draw(st.sampled_from(["missing in the file", "left over", "of another shape"]))
    if change == "missing in the file":
        del leaves[name]
    elif change == "left over":
        name = f"{name}_ema"
        leaves[name] = np.ones(2, np.float32)
    else:
        leaves[name] = np.concatenate([leaves[name], leaves[name]])
    with pytest.raises(WeightsError) as caught:
        with_pretrained(zeros(), truth()._replace(**{kind: leaves}))
    assert f"1 {change} ({name}" in str(caught.value)
    assert isinstance(caught.value, ConfigError)


def test_weights_of_another_network_name_both_networks_and_the_way_out():
    with pytest.raises(WeightsError) as caught:
        with_pretrained(variables("resnet50"), truth("resnet101"))
    message = str(caught.value)
    assert "made here: holds a ResNet-101 and does not fit `model.backbone`, a ResNet-50" in message
    assert "left over (stage3_block10/bn1/bias, " in message
    assert "and 251 more" in message
    assert "Choose the backbone" in message
    assert len(message) < 500


def test_parameters_are_not_taken_for_statistics():
    swapped = truth()._replace(params=truth().batch_stats, batch_stats=truth().params)
    with pytest.raises(WeightsError, match=r"265 missing .*265 left over"):
        with_pretrained(variables(), swapped)


@pytest.mark.parametrize("kind", ["h5", pytest.param("pth", marks=pytest.mark.torch), "safetensors", "caffemodel"])
def test_a_file_cut_anywhere_is_an_error_and_never_half_read(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "h5":
        foreign.write_h5(path, foreign.keras())
    elif kind == "pth":
        write_torch(path)
    elif kind == "safetensors":
        write_pretrained(path, truth())
    else:
        foreign.write_caffemodel(path, foreign.caffenet(np.random.default_rng(0)))
    old = variables()
    whole = path.read_bytes()
    for length in (*np.linspace(0, len(whole) - 1, 23, dtype=int), 8, 100, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            with_pretrained(old, load_pretrained(path.name))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder as the hub's client keeps it, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--timm--resnet50.tv_in1k"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (snapshot / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}))
    write_torch(snapshot / "model.safetensors")
    return snapshot


def test_the_hubs_cache_is_enough(hub):
    weights = load_pretrained("hf:timm/resnet50.tv_in1k")
    assert_is_truth(weights)
    assert weights.mean == (127.5,) * 3
    assert weights.source.startswith("hf:timm/resnet50.tv_in1k ")


@pytest.mark.parametrize("file", TORCH_FILES)
def test_a_file_of_the_hub_is_chosen_by_its_name(hub, file):
    (hub / "model.safetensors").unlink()
    write_torch(hub / file)
    assert_is_truth(load_pretrained(f"hf:timm/resnet50.tv_in1k:{file}"))


@pytest.mark.parametrize("spec", ["hf:timm/resnet50.tv_in1k:none.pth", "hf:timm/resnet18.tv_in1k"])
def test_what_is_neither_in_the_cache_nor_can_be_fetched_is_explained(hub, spec):
    with pytest.raises(WeightsError, match=f"`model.weights` {spec}: cannot be had from the Hugging Face hub"):
        load_pretrained(spec)


def test_weights_from_the_hub_are_not_read_without_their_normalization(hub, monkeypatch):
    (hub / "config.json").unlink()
    with pytest.raises(WeightsError, match="cannot be had from the Hugging Face hub"):
        load_pretrained("hf:timm/resnet50.tv_in1k")

    def download(repository, name):
        """The hub's answer for a repository that has no config.json."""
        if name == "config.json":
            raise RemoteEntryNotFoundError("404", response=mock.MagicMock())
        return str(hub / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_pretrained("hf:timm/resnet50.tv_in1k").mean == IMAGENET_MEAN
