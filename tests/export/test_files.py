"""Exported files compute what the network does, on images of any number and size."""

import functools
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import input_size
from svdnet_jax.data.batches import resize
from svdnet_jax.errors import ConfigError, MachineError
from svdnet_jax.export import onnx_file, stablehlo
from svdnet_jax.export.network import Network, check_installed
from svdnet_jax.models.osnet import OSNet
from svdnet_jax.models.resnet import ResNet
from svdnet_jax.models.svdnet import SVDNet, create_model

pytestmark = pytest.mark.unoptimized
TINY = PRESETS["tiny"]


def needs(packages):
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason="jax2onnx or flatbuffers is not there: pip install '.[export]'")


BACKBONES = {
    "osnet": functools.partial(OSNet, (16, 64, 96, 128)),
    "ibn": functools.partial(ResNet, (1, 1, 1, 1), True, "torchvision", ibn=True),
}
FORMATS = {
    "onnx": (onnx_file.PACKAGES, onnx_file.to_onnx, onnx_file.load_onnx, onnx_file.is_onnx),
    "stablehlo": (stablehlo.PACKAGES, stablehlo.to_stablehlo, stablehlo.load_stablehlo, stablehlo.is_stablehlo),
}
EACH = [pytest.param(name, marks=needs(packages)) for name, (packages, *_) in FORMATS.items()]


def drawn(gain, path, shape):
    """Weights and statistics as training leaves them: at their first values a mistake in one would not show."""
    random, name = np.random.default_rng(len(path) + shape.size), path[-1].key
    if name == "kernel":
        return random.normal(0.0, np.sqrt(gain * shape.shape[-1] / shape.size), shape.shape).astype(shape.dtype)
    low, high = (0.5, 1.5) if name in ("var", "scale") else (-0.3, 0.3)
    return random.uniform(low, high, shape.shape).astype(shape.dtype)


@functools.cache
def make(name):
    if name == "tiny":
        model, size = create_model(TINY.model, num_classes=3), input_size(TINY.data)
        mean = np.float32([[[120, 110, 99]]])
    elif name in BACKBONES:
        size = (64, 32)
        model = SVDNet(BACKBONES[name](), 16, 3)
        mean = np.float32([[[120, 110, 99]]])
    else:
        layout, bottleneck = {"resnet-neck": ("caffe", False), "bottleneck-neck": ("torchvision", True)}[name]
        # Odd and even: the pooling of layout caffe hangs over the border where the map's side is even.
        size = (64, 34) if layout == "caffe" else (33, 32)
        model = SVDNet(ResNet((1, 1, 1, 1), bottleneck, layout, remat=bottleneck), 16, 3, neck=True)
        mean = np.random.default_rng(1).uniform(0, 255, (*size, 3)).astype(np.float32)
    gain = 1 if name == "osnet" else 2  # OSNet adds up four streams, and rounding grows with what it adds up
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
    variables = jax.tree_util.tree_map_with_path(
        functools.partial(drawn, gain), {"params": shapes["params"], "batch_stats": shapes["batch_stats"]}
    )
    pixels = {"mean": mean, "std": np.full((1, 1, 3), 60, np.float32)}
    return Network(model, {**variables, "pixels": pixels}, size, "embedding", "0123456789abcdef-embedding")


def reloaded(network, format_name, path):
    _, write, load, recognized = FORMATS[format_name]
    path.write_bytes(write(network))
    assert [name for name, (*_, made) in FORMATS.items() if made(path)] == [format_name]
    assert recognized(path)
    return load(path)


@pytest.mark.parametrize("format_name", EACH)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny", "embedding"),
        ("resnet-neck", "embedding"),
        ("bottleneck-neck", "pooled"),
        ("osnet", "embedding"),
        ("ibn", "embedding"),
    ],
)
def test_a_file_gives_the_features_of_the_network(tmp_path, format_name, name, kind):
    network = make(name)._replace(kind=kind)
    exported, embed = reloaded(network, format_name, tmp_path / "net"), jax.jit(network.embed)
    for height, width in [(90, 20), network.size][: 2 if name == "tiny" else 1]:
        images = np.random.default_rng(3).integers(0, 255, (5, height, width, 3), np.uint8)
        images = np.uint8(images * np.linspace(0.2, 1.0, 5)[:, None, None, None])  # noise alone is alike everywhere
        expected = np.asarray(embed(resize(jnp.asarray(images), network.size)))
        spread = np.abs(expected - expected.mean(axis=0)).max()
        assert spread > 0.01 * np.abs(expected).max()
        for number in (5, 2) if name == "tiny" else (5,):
            found = np.asarray(exported(images[:number]))
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:number], rtol=0, atol=1e-5 * spread, strict=True)


@needs(stablehlo.PACKAGES)
def test_stablehlo_is_for_cpu_cuda_and_tpu_each_in_its_own_way():
    made = jax.export.deserialize(bytearray(stablehlo.to_stablehlo(make("tiny"))))
    assert made.platforms == ("cpu", "cuda", "tpu")
    assert [str(size) for size in made.in_avals[0].shape] == ["batch", "height", "width", "3"]
    assert [str(size) for size in made.out_avals[0].shape] == ["batch", str(TINY.model.embedding_dim)]
    assert made.fun_name == "svdnet_jax_0123456789abcdef_embedding"
    # The 13 convolutions for each platform, and the products that a CPU takes instead of most of them.
    program = made.mlir_module()
    assert program.count("stablehlo.convolution(") >= 3 * 13
    assert program.count("stablehlo.dot_general ") > 20


@needs(onnx_file.PACKAGES)
def test_onnx_has_the_layers_of_the_network_and_says_which_it_is(capfd):
    import onnx
    import onnxruntime

    content = onnx_file.to_onnx(make("resnet-neck"))
    model = onnx.load_from_string(content)
    used = [node.op_type for node in model.graph.node]
    assert (used.count("Conv"), used.count("BatchNormalization"), used.count("Gemm")) == (12, 13, 1)
    session = onnxruntime.InferenceSession(content)
    (images,), (features,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    assert (features.name, features.shape) == ("embedding", ["batch", 16])
    assert session.get_modelmeta().custom_metadata_map == {"model": "0123456789abcdef-embedding", "size": "64 x 34"}
    assert capfd.readouterr() == ("", "")  # neither the converter nor the runtime has anything to warn of


@needs(onnx_file.PACKAGES)
def test_onnx_of_a_network_in_bfloat16_is_that_of_the_same_in_float32():
    wide = make("tiny")
    assert onnx_file.to_onnx(wide.with_backbone(dtype=jnp.bfloat16)) == onnx_file.to_onnx(wide)


@needs(onnx_file.PACKAGES)
def test_what_jax2onnx_cannot_convert_is_one_line():
    class Strange(ResNet):
        def __call__(self, x, *, train):
            return jax.lax.linalg.lu(x[:, :, :, 0])[0][..., None] + jax.random.normal(jax.random.key(0), x.shape[1:])

    network = make("tiny")
    strange = network._replace(model=network.model.clone(backbone=Strange((1, 1, 1, 1), False)))
    with pytest.raises(MachineError, match=r"jax2onnx cannot convert this network \(.*\); write a .stablehlo file"):
        onnx_file.to_onnx(strange)


def test_packages_that_are_missing_are_named_with_what_installs_them():
    check_installed("ONNX", ("numpy",))
    with pytest.raises(ConfigError, match=r"ONNX needs nope: pip install 'svdnet-jax\[export\]'"):
        check_installed("ONNX", ("numpy", "nope"))


def test_files_of_others_are_not_taken_for_ours(tmp_path):
    path = tmp_path / "net"
    onnx_of_another = b"\x08\x0a\x12\x07pytorch svdnet_jax"
    others = [b"", b"svdnet_jax_", onnx_of_another, b"ML\xefR StableHLO_v1.2.3 jit_main", b"PK\3\4"]
    for content in others:
        path.write_bytes(content)
        assert not onnx_file.is_onnx(path)
        assert not stablehlo.is_stablehlo(path)
