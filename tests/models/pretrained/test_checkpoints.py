"""Checkpoints of re-identification toolkits and wrappers: found, stripped and left out by name, and the same features.

The checkpoints are saved here by PyTorch, in the names of each tool's own code (commits in docs/recipes.md); the
wrappers are PyTorch's own.
"""

import importlib
from functools import partial
from types import MappingProxyType

import chex
import foreign_weights as foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from svdnet_jax.errors import WeightsError
from svdnet_jax.models.pretrained.load import load_pretrained
from svdnet_jax.models.pretrained.state_dict import find_backbone
from svdnet_jax.models.resnet import ResNet

pytestmark = pytest.mark.unoptimized

ONE = (1, 1, 1, 1)
IMAGES = np.random.default_rng(0).normal(size=(2, 64, 32, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def torch():
    import torch

    return torch


@pytest.fixture(scope="module")
def make_backbone(torch):
    """A bottleneck network of one block a stage with random numbers everywhere, in a graph."""
    networks = importlib.import_module("torch_networks")

    def make(layout, ibn=False):
        torch.manual_seed(0)
        network = networks.ResNet(ONE, bottleneck=True, last_stride=1, ibn=ibn, **networks.GRAPHS[layout]).eval()
        for name, array in network.state_dict().items():
            if array.ndim == 1:
                array.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else array.normal_(0, 0.3)
        return network

    return make


@pytest.fixture(scope="module")
def our_features():
    """Our network's feature map by layout, compiled once for each."""
    compiled = {}

    def features(weights, layout):
        ibn = "stage1_block1/in1/scale" in weights.params
        model = ResNet(ONE, bottleneck=True, layout=layout, last_stride=1, ibn=ibn)
        run = compiled.setdefault((layout, ibn), jax.jit(partial(model.apply, train=False)))
        variables = {kind: unflatten_dict(getattr(weights, kind), sep="/") for kind in ("params", "batch_stats")}
        return run(variables, jnp.asarray(IMAGES))

    return features


def parts(torch, **modules):
    """A state dict of modules under names."""
    return torch.nn.ModuleDict(modules).state_dict()


def torchreid(torch, backbone):
    state = backbone.state_dict() | parts(torch, classifier=torch.nn.Linear(2048, 7))
    optimizer = torch.optim.Adam(backbone.parameters())
    return {"state_dict": state, "epoch": 60, "rank1": np.float64(0.9), "optimizer": optimizer.state_dict()}


def fast_reid(torch, backbone):
    heads = torch.nn.Module()
    heads.bottleneck = torch.nn.Sequential(torch.nn.BatchNorm2d(2048))
    heads.weight = torch.nn.Parameter(torch.ones(7, 2048))
    return {"model": parts(torch, backbone=backbone, heads=heads), "iteration": 3, "scheduler": {"last_epoch": 2}}


def old_fast_reid(torch, backbone):
    content = fast_reid(torch, backbone)
    content["model"]["pixel_mean"] = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    content["model"]["pixel_std"] = torch.tensor([4.0, 5.0, 6.0]).view(1, 3, 1, 1)
    return content


def strong_baseline(torch, backbone):
    classifier = torch.nn.Linear(2048, 7, bias=False)
    return parts(torch, base=backbone, bottleneck=torch.nn.BatchNorm1d(2048), classifier=classifier)


def layumi(torch, backbone):
    block = torch.nn.ModuleDict(
        {
            "add_block": torch.nn.Sequential(torch.nn.Linear(2048, 5), torch.nn.BatchNorm1d(5)),
            "classifier": torch.nn.Sequential(torch.nn.Linear(5, 7)),
        }
    )
    imagenet = {"model.fc.weight": torch.ones(10, 2048), "model.fc.bias": torch.ones(10)}
    return parts(torch, model=backbone, classifier=block) | imagenet


def lightning(torch, backbone):
    state = parts(torch, net=torch.nn.ModuleDict({"backbone": backbone, "head": torch.nn.Linear(2048, 7)}))
    state["criterion.centers"] = torch.ones(7, 2048)
    callback = {"monitor": "mAP", "best_model_score": torch.tensor(0.5)}
    return {
        "state_dict": state,
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {"ModelCheckpoint": callback},
        "epoch": 3,
    }


def compiled_parallel(torch, backbone):
    return torch.compile(torch.nn.DataParallel(torch.nn.ModuleDict({"backbone": backbone}))).state_dict()


def averaged(torch, backbone):
    return torch.optim.swa_utils.AveragedModel(backbone).state_dict()


def other(torch, backbone):
    """The same network with other numbers."""
    return {name: array + 1 for name, array in backbone.state_dict().items()}


def in_front(state, word):
    return {f"{word}.{name}": array for name, array in state.items()}


def ema_beside(torch, backbone):
    return {"state_dict": other(torch, backbone), "state_dict_ema": backbone.state_dict(), "arch": "resnet50"}


def teacher_in_front(torch, backbone):
    student = other(torch, backbone) | parts(torch, head=torch.nn.Linear(2048, 7))
    return in_front(student, "module.student") | in_front(backbone.state_dict(), "module.teacher")


# Tool: its checkpoint, the name of the file, the graph, what is said.
CHECKPOINTS = MappingProxyType(
    {
        "torchreid": (torchreid, "model.pth.tar-60", "torchvision", "left out: classifier (2)"),
        "torchreid best": (torchreid, "model-best.pth.tar", "torchvision", "left out: classifier (2)"),
        "fast-reid": (fast_reid, "model_best.pth", "fastreid", "'backbone.' taken off the names; left out: heads (6)"),
        "fast-reid with pixels": (old_fast_reid, "model_final.pth", "fastreid", "left out: heads (6)"),
        "strong baseline": (
            strong_baseline,
            "resnet50_model_120.pth",
            "strongbaseline",
            "'base.' taken off the names; left out: bottleneck (5), classifier (1)",
        ),
        "TransReID": (strong_baseline, "transformer_120.pth", "transreid", "'base.' taken off the names"),
        "torchreid IBN-a": (torchreid, "model.pth.tar-60", "torchvision", "left out: classifier (2)"),
        "fast-reid IBN-a": (fast_reid, "model_best.pth", "fastreid", "left out: heads (6)"),
        "strong baseline IBN-a": (strong_baseline, "resnet50_ibn_a_120.pth", "torchvision", "'base.' taken off"),
        "layumi": (
            layumi,
            "net_last.pth",
            "torchvision",
            "'model.' taken off the names; left out: classifier (9)",
        ),
        "Lightning": (
            lightning,
            "last.ckpt",
            "torchvision",
            "'net.backbone.' taken off the names; left out: criterion (1), net.head (2)",
        ),
        "DataParallel": (
            lambda torch, backbone: torch.nn.DataParallel(backbone).state_dict(),
            "x.pt",
            "torchvision",
            "'module.' taken off the names",
        ),
        "torch.compile": (
            lambda torch, backbone: torch.compile(backbone).state_dict(),
            "x.bin",
            "torchvision",
            "'_orig_mod.' taken off the names",
        ),
        "compiled DataParallel": (
            compiled_parallel,
            "x.pth",
            "torchvision",
            "'_orig_mod.module.backbone.' taken off the names",
        ),
        "AveragedModel": (averaged, "x.pth", "torchvision", "'module.' taken off the names; left out: n_averaged (1)"),
        "EMA": (
            ema_beside,
            "x.pth.tar",
            "torchvision",
            "'state_dict_ema.' taken off the names; left out: state_dict.* (another network) (102)",
        ),
        "teacher": (
            teacher_in_front,
            "x.pth",
            "torchvision",
            "'module.teacher.' taken off the names; left out: module.student.* (another network) (102), "
            "module.student.head (2)",
        ),
    }
)


@pytest.mark.torch
@pytest.mark.parametrize("tool", CHECKPOINTS)
def test_a_tools_checkpoint_gives_the_features_that_the_tool_computes(torch, make_backbone, our_features, tool):
    checkpoint, file, layout, said = CHECKPOINTS[tool]
    backbone = make_backbone(layout, ibn="IBN-a" in tool)
    torch.save(checkpoint(torch, backbone), file)
    weights = load_pretrained(file)
    with torch.no_grad():
        expected = backbone(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2))).permute(0, 2, 3, 1).numpy()
    found = our_features(weights, layout)
    # float32 sums of up to 4608 products in 13 layers, in another order.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert layout in weights.layouts
    assert (tool == "TransReID") == (layout != weights.layouts[0])
    assert said in weights.note
    assert weights.source.startswith(f"{file} ")
    pixels = ((1, 2, 3), (4, 5, 6)) if "pixels" in tool else ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert (weights.mean, weights.std) == pixels


@pytest.mark.torch
def test_graphs_of_the_toolkits_differ(torch, make_backbone, our_features):
    """So that the test above tells them apart."""
    torch.save(make_backbone("torchvision").state_dict(), "x.pth")
    weights = load_pretrained("x.pth")
    assert weights.note == ""
    one, *others = (our_features(weights, name) for name in ("torchvision", "fastreid", "strongbaseline", "transreid"))
    for each in others:
        assert np.abs(each - one).max() > 0.01 * np.abs(one).max()


@pytest.mark.parametrize("words", ["module", "_orig_mod.module", "model", "backbone", "base"])
def test_prefixes_in_safetensors(words):
    state = foreign.torch_state("resnet50")
    foreign.write_safetensors("x.safetensors", in_front(state, words))
    foreign.write_safetensors("plain.safetensors", state)
    found, plain = load_pretrained("x.safetensors"), load_pretrained("plain.safetensors")
    for kind in ("params", "batch_stats", "head"):
        chex.assert_trees_all_equal(getattr(found, kind), getattr(plain, kind))
    assert found.source.split()[1] == plain.source.split()[1]
    assert found.note == f"'{words}.' taken off the names"
    assert plain.note == ""


STATE = MappingProxyType(foreign.torch_state("resnet50"))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (in_front(STATE, "a") | in_front(STATE, "b"), r"holds 2 networks \(a\.\*, b\.\*\); save the state dict of"),
        (in_front(STATE, "ema") | in_front(STATE, "teacher"), "holds 2 networks"),
        (in_front(STATE, "base") | {"base.cls_token": np.ones(1)}, "vision transformer"),
        (
            in_front(STATE, "base") | {"stn.weight": np.ones(1)},
            r"holds 1 weights beside the backbone base\.\* that are no head's: stn\.weight; save the backbone's",
        ),
        (in_front(STATE, "backbone") | {"pixel_mean": np.ones(1), "pixel_std": np.ones(3)}, "pixel_mean has shape"),
    ],
    ids=["two", "two averages", "transformer", "unknown", "pixels"],
)
def test_what_cannot_be_told_is_refused(state, message):
    with pytest.raises(WeightsError, match=message):
        find_backbone(state)


@pytest.mark.parametrize("name", ["layer1.0.se.fc.0.weight", "NL_2.0.g.weight", "layer1.0.bn1.extra.head.weight"])
def test_parts_of_another_network_within_the_backbone_are_no_heads(name):
    foreign.write_safetensors("x.safetensors", in_front({**STATE, name: np.ones(1, np.float32)}, "backbone"))
    with pytest.raises(WeightsError, match=f"holds 1 weights that a plain .*: {name}"):
        load_pretrained("x.safetensors")


def test_an_imagenet_classifier_is_kept_as_the_head_and_not_spoken_of():
    backbone = find_backbone(STATE)
    assert backbone.arrays.keys() == STATE.keys()
    assert backbone.note == ""
    assert backbone.layouts == ("torchvision",)
