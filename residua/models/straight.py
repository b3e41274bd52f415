"""What the networks without residual blocks share: conv-norm-relu, and heads with dropout.

Dropout acts in training only (Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014): each value
is zero with probability p, else divided by 1 - p.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from residua.models.network import Head
from residua.nn.norms import Convolution, Norm

HIDDEN = 4096  # of both hidden layers: Krizhevsky et al. 2012; Simonyan, Zisserman 2015


class Perceptron(nn.Module):
    """Average pooling to side x side, two hidden layers, scores: (N, C, H, W) -> (N, classes).

    Dropout after each hidden layer (VGG), or before it (AlexNet: `dropout_first`).
    """

    def __init__(
        self, channels: int, side: int, classes: int, dropout: float, dropout_first: bool
    ) -> None:
        super().__init__()
        self.side = side
        self.dropout_first = dropout_first
        self.fc1 = nn.Linear(channels * side * side, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.fc = nn.Linear(HIDDEN, classes)
        self.drop = nn.Dropout(dropout)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool, flatten, classify."""
        x = functional.adaptive_avg_pool2d(x, self.side).flatten(1)
        for layer in (self.fc1, self.fc2):
            x = layer(self.drop(x)).relu() if self.dropout_first else self.drop(layer(x).relu())
        y: torch.Tensor = self.fc(x)
        return y


class DropoutHead(Head):
    """Global average pooling, dropout, one linear layer: (N, C, H, W) -> (N, classes)."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__(channels, classes)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average over all positions, drop, classify."""
        y: torch.Tensor = self.fc(self.drop(x.mean((2, 3))))
        return y


def activated(conv: Convolution, norm: Norm) -> OrderedDict[str, nn.Module]:
    """Return a convolution, the norm if there is one, and ReLU, by name."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm.layer is not None:
        parts["norm"] = norm.layer(conv.out_channels)
    parts["act"] = norm.act()
    return parts
