"""The loss at a point: its mean over the pictures and how sure that is.

    L = sum_i w_i l_i        se^2 = n / (n - 1) sum_i w_i^2 (l_i - L)^2        w_i = 1/n for single pictures

l_i is a picture's loss, or a batch's where the loss function gives one number a batch. The paired error is
that of L - L0, the difference from the centre on the same pictures, l_i - l0_i in place of l_i: pictures that
are hard everywhere do not count in it, so it is the smaller one where the shape is what matters.

Norms, said explicitly:

    frozen        the running statistics of the centre (interpolation moves them along), as in evaluation
    recalibrated  taken anew at every point from the calibration pictures (residua.nn.norms.precise)
    batch         of each batch as it comes; the loss then depends on the size of the batches
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.nn import functional as F

from residua.errors import BadInput
from residua.nn.norms import precise_statistics
from residua.xray.landscape import fast
from residua.xray.landscape.space import Space
from residua.xray.statistics import norm_statistics
from residua.xray.subject import Loss, tensors_in

Norms = Literal["frozen", "recalibrated", "batch"]
NORMS = get_args(Norms)
QUANTITIES = ("loss", "error", "paired", "accuracy")  # of a point, in this order
SAME = 1e-4  # share of the largest score by which the folded network may differ


@dataclass
class Measure:
    """How the loss of a network is measured.

    batches: (inputs, targets) pairs, resident where the model is. loss: (outputs, targets) -> (N,) or one
    number; None: cross-entropy of logits. calibration: inputs for recalibrated norms.
    quick: whether norms may be folded and passes resized. bfloat16: run in half the precision.
    """

    batches: Sequence[tuple[Any, Any]]
    norms: Norms = "frozen"
    loss: Loss | None = None
    calibration: Sequence[Any] = ()
    quick: bool = True
    bfloat16: bool = False
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.norms not in NORMS:
            raise BadInput(f"norms {self.norms!r}: expected {', '.join(NORMS)}")
        if not self.batches:
            raise BadInput("there are no pictures to measure the loss on")
        first = tensors_in(self.batches[0])[0]
        self.device = first.device

    @contextmanager
    def of(self, space: Space) -> Iterator[Meter]:
        """Give a meter of the model, which must be attached; everything is put back afterwards."""
        model = space.model
        statistics: Any = "batch" if self.norms == "batch" else "running"
        with ExitStack() as stack:
            stack.enter_context(norm_statistics(model, statistics))
            stack.enter_context(torch.no_grad())
            if self.bfloat16:
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            yield Meter(self, space)


class Meter:
    """Measures points, one after the other."""

    def __init__(self, measure: Measure, space: Space) -> None:
        self.measure, self.space = measure, space
        self.network, self.folds = space.model, list[fast.Fold]()
        self.passes = list(measure.batches)
        if measure.quick and measure.norms != "batch":
            self._quicken()
        self.origin = self._losses((0.0,) * len(space.directions))

    def _quicken(self) -> None:
        """Put channels last; fold norms and resize the passes where that is seen to be the same function."""
        if not all(
            isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) for x, y in self.passes
        ):
            return
        self.passes = [(fast.channels_last(x), y) for x, y in self.passes]
        if self.measure.norms == "batch":
            return
        model, inputs = self.space.model, self.passes[0][0]
        for network, folds in (fast.fold(model), (model, [])):
            for one in folds:
                one.refresh()
            if fast.agree(model, network, inputs, SAME):
                self.network, self.folds = network, folds
                if self.single:
                    self.passes = [part for pair in self.passes for part in fast.passes(*pair)]
                return
        self.measure.notes.append(
            "the outputs of a picture depend on the other pictures of its batch, also in evaluation:"
            " the batches were taken as they came"
        )

    @property
    def single(self) -> bool:
        """Whether the loss is known for each picture: then passes may be of any size."""
        inputs, targets = self.passes[0]
        return self._loss(self._forward(inputs[:2]), targets[:2]).dim() > 0

    def at(self, coordinates: Sequence[float]) -> tuple[float, ...]:
        """Return loss, its standard error, the paired one, and accuracy (nan where there is none)."""
        losses, weights, right = self._losses(coordinates)
        mean, error = weighted(losses, weights)
        with np.errstate(invalid="ignore"):  # of two losses that are not finite
            _, paired = weighted(losses - self.origin[0], weights)
        return mean, error, paired, right

    def _losses(self, coordinates: Sequence[float]) -> tuple[np.ndarray, np.ndarray, float]:
        self.space.move(coordinates)
        if self.measure.norms == "recalibrated":
            with torch.autocast(self.measure.device.type, enabled=False):
                precise_statistics(self.space.model, iter(self.measure.calibration))
        for one in self.folds:
            one.refresh()
        found, sizes, right, seen = [], [], 0, 0
        for inputs, targets in self.passes:
            output = self._forward(inputs)
            losses = self._loss(output, targets)
            found.append(losses.double().reshape(-1))
            sizes += [1.0] * losses.numel() if losses.dim() else [float(_count(targets))]
            if self._classifies(output, targets):
                right += int((tensors_in(output)[0].argmax(1) == targets).sum())
                seen += len(targets)
        weights = np.array(sizes) / sum(sizes)
        return torch.cat(found).cpu().numpy(), weights, right / seen if seen else float("nan")

    def _forward(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            return self.network(**inputs)
        return self.network(*inputs) if isinstance(inputs, (tuple, list)) else self.network(inputs)

    def _loss(self, output: Any, targets: Any) -> torch.Tensor:
        if self.measure.loss is not None:
            return self.measure.loss(output, targets)
        return F.cross_entropy(tensors_in(output)[0].float(), targets, reduction="none")

    def _classifies(self, output: Any, targets: Any) -> bool:
        return (
            isinstance(targets, torch.Tensor)
            and not targets.is_floating_point()
            and targets.dim() == 1
            and tensors_in(output)[0].dim() == 2
        )


def _count(targets: Any) -> int:
    tensors = tensors_in(targets)
    return len(tensors[0]) if tensors and tensors[0].dim() else 1


def weighted(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return the weighted mean and its standard error: nan for a single value, or one that is not finite.

    >>> weighted(np.array([1.0, 3.0]), np.array([0.5, 0.5]))
    (2.0, 1.0)
    """
    n = len(values)
    mean = float(values @ weights)
    if n < 2 or not np.isfinite(values).all():
        return mean, float("nan")
    return mean, float(np.sqrt(n / (n - 1) * np.square(weights * (values - mean)).sum()))
