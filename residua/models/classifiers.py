"""Classifiers: the last layers of a network, from its last map to the scores.

    mean            W mean(x) + b                                          He et al. 2015
    wide(w)         the same of relu(norm(conv1x1(x))), w channels         timm's resnet51q
    hidden(w)       W relu(V norm(mean(x)) + c) + b, w in between          timm's resnet50_mlp
    attention(g)    W v(x) + b, v what the mean of all positions attends to, pictures of g x g positions

Attention, of heads of 64 channels (Radford et al. 2021, Learning Transferable Visual Models From Natural
Language Supervision, section 2.4 and the authors' code), with tokens t_0 = mean(x), t_i the positions:

    z = t + p,   q = Q z_0 + b_q,   k = K z + b_k,   u = V z + b_v,   v = sum_i softmax_i(q k_i / 8) u_i

The positions' embeddings p are learned on a grid of g x g, and interpolated (bicubic, as timm does it) where
a picture has another number of positions; W has as many rows as there are classes, or as CLIP's space has
dimensions.

Shapes: (N, C, H, W) -> (N, classes). Training and evaluation differ as norms do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from residua.models.network import Head
from residua.nn.activations import make_activation
from residua.nn.names import lookup, with_numbers
from residua.nn.norms import Norm

HEAD_WIDTH = 64  # channels of one head of attention: Radford et al. 2021, table 19


class Wide(Head):
    """A 1x1 convolution to more channels with norm and activation, then the mean and a linear layer."""

    def __init__(self, channels: int, classes: int, norm: Norm, width: int) -> None:
        super().__init__(width, classes)
        parts = OrderedDict[str, nn.Module](conv=norm.conv(channels, width, 1))
        if norm.layer is not None:
            parts["norm"] = norm.layer(width)
        parts["act"] = norm.act()
        self.features = nn.Sequential(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Widen, average over all positions, classify."""
        return super().forward(self.features(x))


class Hidden(Head):
    """The mean, normalised, then two linear layers with an activation between them."""

    def __init__(self, channels: int, classes: int, norm: Norm, width: int) -> None:
        super().__init__(width, classes)
        self.norm = nn.Identity() if norm.layer is None else norm.layer(channels)
        self.hidden = nn.Linear(channels, width)
        self.act = make_activation(norm.activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average over all positions, normalise, classify."""
        mean = self.norm(x.mean((2, 3), keepdim=True)).flatten(1)
        y: torch.Tensor = self.fc(self.act(self.hidden(mean)))
        return y


class Attention(nn.Module):
    """The mean of all positions attends to them and to itself; then a linear layer."""

    def __init__(self, channels: int, classes: int, norm: Norm, grid: int) -> None:
        super().__init__()
        if channels % HEAD_WIDTH:
            raise ValueError(f"attention has heads of {HEAD_WIDTH} channels: not of {channels}")
        self.grid = grid
        self.positions = nn.Parameter(torch.randn(grid**2 + 1, channels) * channels**-0.5)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from the mean, classify."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.at(*x.shape[2:])
        q, k, v = self.q(tokens[:, :1]), self.k(tokens), self.v(tokens)
        heads = (t.view(*t.shape[:2], -1, HEAD_WIDTH).transpose(1, 2) for t in (q, k, v))
        seen = functional.scaled_dot_product_attention(*heads).flatten(1)
        y: torch.Tensor = self.fc(seen)
        return y

    def at(self, height: int, width: int) -> torch.Tensor:
        """Return the embeddings of the mean and of height x width positions: (1 + height width, C)."""
        if (height, width) == (self.grid, self.grid):
            return self.positions
        whole, places = self.positions[:1], self.positions[1:]
        plane = places.T.reshape(1, -1, self.grid, self.grid)
        resized = functional.interpolate(
            plane, (height, width), mode="bicubic", align_corners=False, antialias=True
        )
        return torch.cat([whole, resized[0].flatten(1).T])


def _mean(channels: int, classes: int, norm: Norm) -> nn.Module:
    return Head(channels, classes)


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "mean": _mean,
    "wide": Wide,
    "hidden": Hidden,
    "attention": Attention,
}


def make_classifier(name: str, channels: int, classes: int, norm: Norm) -> nn.Module:
    """Return the classifier of that name; ValueError if unknown, or with numbers that are none of its.

    >>> from residua.nn import make_norm
    >>> make_classifier("hidden(16)", 64, 10, make_norm("batch")).fc
    Linear(in_features=16, out_features=10, bias=True)
    """
    make, numbers = lookup("classifier", name, CLASSIFIERS)
    if any(number != int(number) or number < 1 for number in numbers):
        raise ValueError(f"classifier {name!r}: expected whole numbers from 1")
    return with_numbers("classifier", name, make, channels, classes, norm)
