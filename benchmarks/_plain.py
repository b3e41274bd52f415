"""The peers: residual networks and input the way that training scripts usually write them.

    y = relu(identity + bn2(conv2(relu(bn1(conv1(x))))))                              He et al. 2015, eq. 1

torch modules, one call after the other, torch's default memory format, a picture at a time. The names of
the ImageNet network's modules are torchvision's, so that its checkpoints fit.

Shapes: (N, 3, H, W) -> (N, classes).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import Dataset


class ZeroPadding(nn.Module):
    """The shortcut of option A."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra))


class BasicBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = ZeroPadding(cout - cin) if stride != 1 or cin != cout else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        y: torch.Tensor = self.relu(out)
        return y


class Bottleneck(nn.Module):
    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        y: torch.Tensor = self.relu(out)
        return y


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2: depth 6n + 2, option A."""

    def __init__(self, n: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._layer(16, 16, n, 1)
        self.layer2 = self._layer(16, 32, n, 2)
        self.layer3 = self._layer(32, 64, n, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)

    def _layer(self, cin: int, cout: int, n: int, stride: int) -> nn.Sequential:
        first = BasicBlock(cin, cout, stride)
        return nn.Sequential(first, *[BasicBlock(cout, cout, 1) for _ in range(n - 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


class ResNet50(nn.Module):
    """He et al. 2015, table 1, with the stride on the 3x3 convolution."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._layer(64, 64, 3, 1)
        self.layer2 = self._layer(256, 128, 4, 2)
        self.layer3 = self._layer(512, 256, 6, 2)
        self.layer4 = self._layer(1024, 512, 3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def _layer(self, cin: int, width: int, n: int, stride: int) -> nn.Sequential:
        first = Bottleneck(cin, width, stride)
        return nn.Sequential(first, *[Bottleneck(4 * width, width, 1) for _ in range(n - 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "resnet20_cifar": CifarResNet,
    "resnet50": ResNet50,
}


def take_weights(peer: nn.Module, ours: nn.Module) -> None:
    """Copy our weights into a peer whose layers are in the same order.

    Layer by layer, for the two count their downsampling layers at different places in the block.
    """
    theirs = _layers(peer, shortcut="downsample")
    for there, here in zip(theirs, _layers(ours, shortcut="shortcut"), strict=True):
        there.load_state_dict(here.state_dict())


def _layers(model: nn.Module, shortcut: str) -> list[nn.Module]:
    """Return the layers with weights in order, those of shortcuts last."""
    found = [
        (n, m)
        for n, m in model.named_modules()
        if "weight" in dict(m.named_parameters(recurse=False))
    ]
    on_shortcut = [m for name, m in found if f".{shortcut}." in name]
    return [m for name, m in found if f".{shortcut}." not in name] + on_shortcut


class PictureByPicture(Dataset[tuple[torch.Tensor, int]]):
    """Decodes with Pillow, crops, flips and normalises one picture at a time, in every epoch."""

    def __init__(
        self,
        paths: list[Path],
        labels: list[int],
        *,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        padding: int,
        padding_mode: str,
        flip: bool,
    ) -> None:
        self.paths, self.labels, self.mode = paths, labels, "L" if channels == 1 else "RGB"
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        self.padding, self.flip = padding, flip
        self.padding_mode = "constant" if padding_mode == "zero" else padding_mode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as opened:
            pixels = np.array(opened.convert(self.mode))
        picture = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
        picture = (picture.float().div(255) - self.mean) / self.std
        if self.padding:
            height, width = picture.shape[1:]
            picture = F.pad(picture, (self.padding,) * 4, mode=self.padding_mode)
            top, left = torch.randint(0, 2 * self.padding + 1, (2,)).tolist()
            picture = picture[:, top : top + height, left : left + width]
        if self.flip and torch.rand(1) < 0.5:
            picture = picture.flip(2)
        return picture.contiguous(), self.labels[index]
