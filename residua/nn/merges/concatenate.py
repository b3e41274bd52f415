"""Concatenation: the shortcut's channels, then the branch's.

    y = act([crop(s), f])

Huang, Liu, van der Maaten, Weinberger 2017, equation 2 (DenseNet: `x_l = H_l([x_0, ..., x_(l-1)])`), where
the two are of one size; Ronneberger, Fischer, Brox 2015, figure 1 (U-Net), where the branch has lost its
border to convolutions without padding and the centre of the shortcut is cut out to its size.

Shapes: s (N, C, H, W), f (N, C', H', W') with H' <= H, W' <= W -> y (N, C + C', H', W'); any number of
spatial dimensions. Training and evaluation are the same.
"""

from __future__ import annotations

import torch

from residua.nn.merges.merge import Merge


class Concatenate(Merge):
    """y = activation(cat(centre of the shortcut, branch)), shortcut first.

    Where an odd number of pixels is cut, the far side (bottom, right) loses one more than the near
    side. Raises ValueError where the shortcut is smaller than the branch.
    """

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Concatenate along the channels: (N, C, ...), (N, C', ...) -> (N, C + C', ...)."""
        centre = crop(shortcut, branch.shape[2:])
        y: torch.Tensor = self.activation(torch.cat((centre, branch), 1))
        return y


def crop(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Return the centre of a map, (N, C, *larger) -> (N, C, *size); a view.

    >>> crop(torch.arange(5).reshape(1, 1, 5), torch.Size([2])).tolist()
    [[[1, 2]]]
    """
    if x.shape[2:] == size:
        return x
    if len(x.shape[2:]) != len(size) or any(
        have < want for have, want in zip(x.shape[2:], size, strict=True)
    ):
        raise ValueError(
            f"a shortcut of {tuple(x.shape[2:])} pixels cannot be cropped to the branch's {tuple(size)}"
        )
    for dimension, want in enumerate(size, start=2):
        x = x.narrow(dimension, (x.shape[dimension] - want) // 2, want)
    return x
