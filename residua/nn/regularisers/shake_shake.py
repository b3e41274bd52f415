"""Shake-Shake: two branches, mixed at random, and mixed otherwise on the way back.

    training     y = s(x) + alpha f1(x) + (1 - alpha) f2(x)
                 dL/df1 := beta dL/dy,  dL/df2 := (1 - beta) dL/dy
    evaluation   y = s(x) + f1(x) / 2 + f2(x) / 2

Gastaldi 2017, Shake-Shake regularization. The names are those of its table 1:

    forward    even    alpha = 1/2              shake   alpha ~ U(0, 1)
    backward   even    beta = 1/2               shake   beta ~ U(0, 1)      keep   beta = alpha
    level      batch   one draw a mini-batch    image   one draw a sample

Its nine rows are even-even (which has no level), and even-shake, shake-keep, shake-even and shake-shake
at both levels. even-keep has nothing to keep and is refused.

Published effect, test error of 26 2x32d on CIFAR-10: 3.55 % with shake-shake, image, 4.27 % with even-even.

Shapes: f1, f2 (N, C, H, W) -> (N, C, H, W).
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.names import unknown
from residua.nn.regularisers.two_ways import two_ways, uniform

FORWARD = ("even", "shake")
BACKWARD = ("even", "shake", "keep")
LEVELS = ("batch", "image")


class ShakeShake(nn.Module):
    """Mix the outputs of two branches of x: this is the `branch` of a `Skip`.

    Raises ValueError for a name that is not in table 1, and for forward even with backward keep.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        forward: str = "shake",
        backward: str = "shake",
        level: str = "image",
    ) -> None:
        super().__init__()
        for what, given, known in (
            ("forward", forward, FORWARD),
            ("backward", backward, BACKWARD),
            ("level", level, LEVELS),
        ):
            if given not in known:
                raise ValueError(unknown(what, given, known))
        if (forward, backward) == ("even", "keep"):
            raise ValueError("forward even draws nothing that backward keep could keep: use even")
        self.paths = nn.ModuleList([first, second])
        self.names = (forward, backward, level)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return alpha f1(x) + (1 - alpha) f2(x)."""
        f1, f2 = (path(x) for path in self.paths)
        if not self.training or self.names[:2] == ("even", "even"):
            y: torch.Tensor = (f1 + f2) / 2
            return y
        alpha, beta = self.draw(f1)
        return two_ways(f1, alpha, beta) + two_ways(f2, 1 - alpha, 1 - beta)

    def draw(self, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha and beta, (N or 1, 1, 1, 1): alpha is drawn first."""
        forward, backward, level = self.names
        shape = (f.shape[0] if level == "image" else 1,) + (1,) * (f.dim() - 1)
        half = torch.full(shape, 0.5, device=f.device)
        alpha = uniform(shape, 0.0, 1.0, f) if forward == "shake" else half
        beta = uniform(shape, 0.0, 1.0, f) if backward == "shake" else half
        return alpha, alpha if backward == "keep" else beta

    def extra_repr(self) -> str:
        """Describe the row of table 1."""
        return ", ".join(self.names)
