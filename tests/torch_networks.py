"""The networks once more, in plain PyTorch from the papers and the authors' prototxt: what ours are compared with.

Nothing of svdnet_jax is imported. Attributes are named as in torchvision, and of OSNet as in torchreid, so that
``state_dict`` looks like its files.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu


class Basic(nn.Module):
    """He et al. 2016, figure 5 left."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = projection(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.downsample(x))


class HalfInstance(nn.Module):
    """Pan et al. 2018, figure 3 (IBN-a)."""

    def __init__(self, channels: int):
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([self.IN(first), self.BN(second)], dim=1)


class Bottleneck(nn.Module):
    """He et al. 2016, figure 5 right, with a stride in the 1x1 and one in the 3x3 convolution."""

    def __init__(self, before: int, after: int, stride_1x1: int, stride_3x3: int, ibn: bool = False):
        super().__init__()
        width = after // 4
        self.conv1 = nn.Conv2d(before, width, 1, stride_1x1, bias=False)
        self.bn1 = HalfInstance(width) if ibn else nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride_3x3, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = projection(before, after, stride_1x1 * stride_3x3)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        return relu(self.bn3(self.conv3(y)) + self.downsample(x))


def projection(before: int, after: int, stride: int) -> nn.Module:
    """The shortcut: option B of He et al. 2016, section 4.1."""
    if before == after and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class ResNet(nn.Module):
    """He et al. 2016, table 1, up to the last feature map.

    `first_pooling` holds the options of `torch.nn.functional.max_pool2d` in which the releases differ, and
    `first_relu` says whether a ReLU comes before it.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        bottleneck: bool,
        stride_in_1x1: bool,
        first_pooling: dict[str, int | bool],
        last_stride: int,
        first_relu: bool = True,
        ibn: bool = False,
    ):
        super().__init__()
        self.first_pooling = {"kernel_size": 3, "stride": 2} | first_pooling
        self.first_relu = first_relu
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, size in enumerate(sizes):
            after = 64 * 2**stage * (4 if bottleneck else 1)
            blocks: list[nn.Module] = []
            for block in range(size):
                stride = 1 if stage == 0 or block > 0 else last_stride if stage == 3 else 2
                if not bottleneck:
                    blocks.append(Basic(before, after, stride))
                elif stride_in_1x1:
                    blocks.append(Bottleneck(before, after, stride, 1, ibn and stage < 3))
                else:
                    blocks.append(Bottleneck(before, after, 1, stride, ibn and stage < 3))
                before = after
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = max_pool2d(relu(x) if self.first_relu else x, **self.first_pooling)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class ConvBN(nn.Module):
    """A convolution and its BatchNorm."""

    def __init__(self, before: int, after: int, size: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Lite(nn.Module):
    """Zhou et al. 2019, figure 3b: pointwise, then depthwise."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv2(self.conv1(x))))


class OmniScale(nn.Module):
    """Zhou et al. 2019, figure 4 and equations 3 and 4."""

    def __init__(self, before: int, after: int):
        super().__init__()
        width = after // 4
        self.conv1 = ConvBN(before, width)
        self.conv2a = Lite(width)
        for letter, depth in zip("bcd", (2, 3, 4), strict=True):
            setattr(self, f"conv2{letter}", nn.Sequential(*(Lite(width) for _ in range(depth))))
        # With biases, as in the published weights.
        fc1, fc2 = nn.Conv2d(width, width // 16, 1), nn.Conv2d(width // 16, width, 1)
        self.gate = nn.ModuleDict({"fc1": fc1, "fc2": fc2})
        self.conv3 = ConvBN(width, after)
        self.downsample = nn.Identity() if before == after else ConvBN(before, after)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.conv1(x))
        total = torch.zeros_like(y)
        for stream in (self.conv2a, self.conv2b, self.conv2c, self.conv2d):
            z = stream(y)
            weights = self.gate["fc2"](relu(self.gate["fc1"](z.mean(dim=(2, 3), keepdim=True))))
            total = total + torch.sigmoid(weights) * z
        return relu(self.conv3(total) + self.downsample(x))


class OSNet(nn.Module):
    """Zhou et al. 2019, table 1, up to the last feature map, in torchreid's names of weights."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.conv1 = ConvBN(3, widths[0], 7, 2)
        for stage, (before, after) in enumerate(pairwise(widths), start=2):
            blocks: list[nn.Module] = [OmniScale(before, after), OmniScale(after, after)]
            if stage < 4:
                blocks.append(nn.Sequential(ConvBN(after, after), nn.ReLU(), nn.AvgPool2d(2)))
            setattr(self, f"conv{stage}", nn.Sequential(*blocks))
        self.conv5 = ConvBN(widths[-1], widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool2d(relu(self.conv1(x)), 3, 2, 1)
        return relu(self.conv5(self.conv4(self.conv3(self.conv2(x)))))


class CaffeNet(nn.Module):
    """The authors' ``train_caffenet_linear.prototxt`` from conv1 to relu6, for maps of `pixels` pixels at pool5."""

    def __init__(self, pixels: int, outputs: int = 4096):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * pixels, outputs)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        # Caffe and PyTorch both divide alpha by the size of the window.
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.pool(relu(self.conv1(x))))
        x = self.norm(self.pool(relu(self.conv2(x))))
        x = relu(self.conv3(x))
        x = relu(self.conv4(x))
        x = self.pool(relu(self.conv5(x)))
        return relu(self.fc6(x.flatten(1)))


GRAPHS = {
    "caffe": {"stride_in_1x1": True, "first_pooling": {"ceil_mode": True}},
    "keras": {"stride_in_1x1": True, "first_pooling": {"padding": 1}},
    "torchvision": {"stride_in_1x1": False, "first_pooling": {"padding": 1}},
    # fastreid/modeling/backbones/resnet.py
    "fastreid": {"stride_in_1x1": False, "first_pooling": {"ceil_mode": True}},
    # reid-strong-baseline, modeling/backbones/resnet.py: "add missed relu" is a comment.
    "strongbaseline": {"stride_in_1x1": False, "first_pooling": {"padding": 1}, "first_relu": False},
    # TransReID, model/backbones/resnet.py
    "transreid": {"stride_in_1x1": False, "first_pooling": {"kernel_size": 2}, "first_relu": False},
}
"""What the layouts of `svdnet_jax.models.resnet.ResNet` are here."""


def from_flax(leaf: np.ndarray) -> Tensor:
    """A parameter in PyTorch's order of axes: outputs, inputs and then the window of a convolution."""
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim]
    return torch.from_numpy(np.array(leaf.transpose(order)))


def differentiate(network: nn.Module, images: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """The output, channels last, and the gradient for the images; the network's parameters receive theirs.

    What is differentiated is the sum of the output times `weights`.
    """
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = network(x)
    y = y.permute(0, 2, 3, 1) if y.ndim == 4 else y[:, None, None, :]
    (y * torch.from_numpy(weights)).sum().backward()
    return y.detach().numpy(), x.grad.permute(0, 2, 3, 1)


def spread(found: np.ndarray | Tensor, expected: np.ndarray | Tensor) -> float:
    """The greatest difference, as a share of the greatest expected number."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())
