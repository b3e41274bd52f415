"""Networks as other people write them: functional, reused, in place, in lists, without names of ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class FunctionalBlock(nn.Module):
    """A v1 block: batch norm as a function, one ReLU for all places, `x += f` in place."""

    def __init__(self, c: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(out, c, 3, 3) / (3 * c**0.5))
        self.w2 = nn.Parameter(torch.randn(out, out, 3, 3) / (3 * out**0.5))
        self.short = nn.Conv2d(c, out, 1, stride, bias=False) if c != out else None
        self.relu = nn.ReLU(inplace=True)
        self.stride = stride
        self.register_buffer("m", torch.zeros(out))
        self.register_buffer("v", torch.ones(out))

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.m, self.v, training=self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep = x if self.short is None else self.norm(self.short(x))
        out = self.relu(self.norm(F.conv2d(x, self.w1, stride=self.stride, padding=1)))
        out = self.norm(F.conv2d(out, self.w2, padding=1))
        out += keep
        return self.relu(out)


class FunctionalNet(nn.Module):
    def __init__(self, channels: tuple[int, ...] = (4, 4, 8)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        pairs = zip((channels[0], *channels), channels, strict=False)
        self.blocks = nn.ModuleList(FunctionalBlock(a, b, 1 if a == b else 2) for a, b in pairs)
        self.head = nn.Linear(channels[-1], 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class ListDense(nn.Module):
    """A dense block that keeps its maps in a list, as torchvision's does."""

    def __init__(self, layers: int = 3, growth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(4 + i * growth),
                nn.ReLU(),
                nn.Conv2d(4 + i * growth, growth, 3, padding=1),
            )
            for i in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [self.stem(x)]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        return torch.cat(maps, 1)


class Transformer(nn.Module):
    """Two pre-norm blocks of attention and a perceptron, with a class token and positions."""

    def __init__(self, width: int = 8, blocks: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, batch_first=True, norm_first=True)
            for _ in range(blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.place
        for block in self.blocks:
            x = block(x)
        return x[:, 0]


class HandwrittenHighway(nn.Module):
    """y = t h + (1 - t) x, written out."""

    def __init__(self, width: int = 6, layers: int = 3) -> None:
        super().__init__()
        self.h = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.t = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for h, t in zip(self.h, self.t, strict=True):
            gate = torch.sigmoid(t(x))
            x = gate * torch.relu(h(x)) + (1 - gate) * x
        return x


class Inception(nn.Module):
    """Parallel branches of one weight, joined: no skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(3, 4, 3, padding=1)
        self.c = nn.Conv2d(8, 4, 1)
        self.d = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.cat((self.a(x), self.b(x)), 1))
        return self.c(x) + self.d(x)


class TinyUNet(nn.Module):
    """Down, inner, up, with concatenation; the inner part holds a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = torch.relu(self.stem(x))
        low = F.max_pool2d(top, 2)
        low = low + torch.relu(self.inner(low))
        return self.head(torch.cat((top, self.up(low)), 1))
