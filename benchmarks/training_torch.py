"""The same network and training step in PyTorch, for benchmarks.training. Nothing of svdnet_jax is imported.

ResNet-50 in the authors' layout, Eigenlayer and classifier; statistics of BatchNorm stored, as in their recipe. Modules
are named as our weights are, so that the patterns of a phase's frozen weights mean the same.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.training_case import LAST_SCALE, STD, Case, is_frozen, random_images
from benchmarks.turns import Failed, Ready

Variant = Literal["eager", "channels_last", "compile", "graphs"]


class Unit(nn.Module):
    """Three convolutions and a shortcut; the first 1x1 has the stride, as in Caffe's release."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        middle = outputs // 4
        self.conv1, self.bn1 = _convolution(inputs, middle, 1, stride), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = _convolution(middle, middle, 3, 1), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = _convolution(middle, outputs, 1, 1), nn.BatchNorm2d(outputs)
        nn.init.constant_(self.bn3.weight, LAST_SCALE)
        self.projected = inputs != outputs
        if self.projected:
            self.shortcut, self.bn_shortcut = _convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The next feature map."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (self.bn_shortcut(self.shortcut(x)) if self.projected else x), inplace=True)


class Backbone(nn.Module):
    """From normalised images to the last feature map."""

    def __init__(self, blocks: tuple[int, ...]):
        super().__init__()
        self.stem, self.bn_stem = _convolution(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.order = []
        inputs = 64
        for stage, size in enumerate(blocks, start=1):
            for block in range(1, size + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage{stage}_block{block}"
                self.add_module(name, Unit(inputs, 128 * 2**stage, stride))
                self.order.append(name)
                inputs = 128 * 2**stage

    def forward(self, x: Tensor) -> Tensor:
        """The last feature map."""
        x = functional.relu(self.bn_stem(self.stem(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        for name in self.order:
            x = getattr(self, name)(x)
        return x


class Network(nn.Module):
    """From bytes to the loss: flip, mean image, backbone, Eigenlayer, dropout, classifier, cross-entropy."""

    def __init__(self, case: Case, mean: Tensor):
        super().__init__()
        self.case = case
        self.backbone = Backbone(case.blocks)
        self.eigenlayer = nn.Linear(128 * 2 ** len(case.blocks), case.dim, bias=False)
        self.classifier = nn.Linear(case.dim, case.classes)
        self.register_buffer("mean", mean)
        nn.init.normal_(self.eigenlayer.weight, std=0.01)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        for path, parameter in self.paths():
            parameter.requires_grad_(not is_frozen(case, path))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def paths(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Weights by the names that svdnet_jax gives them."""
        kinds = {name for name, module in self.named_modules() if isinstance(module, nn.BatchNorm2d)}
        for name, parameter in self.named_parameters():
            place, leaf = name.rsplit(".", 1)
            leaf = leaf if leaf == "bias" else "scale" if place in kinds else "kernel"
            yield f"{place}.{leaf}".replace(".", "/"), parameter

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy."""
        x = images.float() - self.mean
        if self.case.flip:
            flipped = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            x = torch.where(flipped, x.flip(3), x)
        with _precision(self.case):
            features = self.backbone(x / STD)
        embedding = self.eigenlayer(features.float().mean((2, 3)))
        logits = self.classifier(functional.dropout(embedding, self.case.dropout))
        return functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()


def device_of(case: Case) -> torch.device:
    """Where PyTorch works.

    Raises:
        Failed: It does not see the accelerator that JAX works on.
    """
    if case.platform == "cpu":
        return torch.device("cpu")
    if case.platform != "gpu" or not torch.cuda.is_available():
        raise Failed(f"PyTorch {torch.__version__} sees no {case.platform}")
    return torch.device("cuda")


def make(case: Case, variant: Variant) -> tuple[Network, Callable[[], tuple[Tensor, Tensor]]]:
    """The network, and what takes a training step with the next images of the store."""
    device = device_of(case)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    images, classes = random_images(case)
    last = variant != "eager"
    arrange = torch.channels_last if last else torch.contiguous_format
    # PyTorch's order of axes; with channels_last a view of the bytes as they are.
    store = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous(memory_format=arrange)
    labels = torch.from_numpy(classes.astype(np.int64)).to(device)
    mean = store.float().mean(0, keepdim=True)
    network = Network(case, mean).to(device).to(memory_format=arrange)
    optimizer = _optimizer(network, case)
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = network
    if variant in ("compile", "graphs"):
        loss = torch.compile(network, mode="reduce-overhead" if variant == "graphs" else None)
    order = torch.stack([torch.randperm(case.images)[: case.batch] for _ in range(64)]).to(device)
    state = {"step": 0}

    def step() -> tuple[Tensor, Tensor]:
        if variant == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        chosen = order[state["step"] % len(order)]
        state["step"] += 1
        optimizer.zero_grad(set_to_none=True)
        found = loss(store[chosen].contiguous(memory_format=arrange), labels[chosen])
        found[0].backward()
        optimizer.step()
        return found[0].detach(), found[1]

    return network, step


def prepare(case: Case, variant: Variant) -> Ready:
    """Training step after step, with numbers left on the device."""
    _, step = make(case, variant)
    cuda = case.platform == "gpu"

    def wait(sent: tuple[Tensor, Tensor]) -> float:
        if cuda:
            torch.cuda.synchronize()
        return float(sent[0])

    return Ready(step, wait, 1, (lambda: torch.cuda.max_memory_allocated() / 2**20) if cuda else None)


def _convolution(inputs: int, outputs: int, window: int, stride: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, window, stride, window // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def _precision(case: Case) -> AbstractContextManager[Any]:
    kind = "cpu" if case.platform == "cpu" else "cuda"
    return torch.autocast(kind, torch.bfloat16, enabled=case.dtype == "bfloat16")


def _optimizer(network: Network, case: Case) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for path, parameter in network.paths():
        if parameter.requires_grad:
            doubled, spared = (
                any(fnmatchcase(path, pattern) for pattern in patterns) for patterns in (case.doubled, case.no_decay)
            )
            groups.setdefault((doubled, spared), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": case.rate * (2 if doubled else 1),
            "weight_decay": 0.0 if spared else case.decay,
        }
        for (doubled, spared), parameters in groups.items()
    ]
    return torch.optim.SGD(settings, lr=case.rate, momentum=case.momentum, fused=True)
