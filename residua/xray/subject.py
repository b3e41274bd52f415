"""What is x-rayed: a module, a batch, what the batch should give, and how to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from residua.errors import BadInput
from residua.xray.statistics import Statistics, norm_statistics
from residua.xray.untouched import untouched

if TYPE_CHECKING:
    from residua.xray.anatomy import Anatomy

Loss = Callable[[Any, Any], torch.Tensor]
Effort = Literal["quick", "normal"]


@dataclass
class Subject:
    """A network under examination.

    model: any module; wrappers (DataParallel, a compiled module) are taken off.
    inputs: what forward takes: a tensor (N, ...), a tuple of arguments, or a mapping of keywords.
    targets: what `loss` compares the output with; None: there is no loss, and gradients are those
        of the sum of the output times fixed random signs.
    loss: (output, targets) -> scalar; None with targets: cross-entropy of logits (N, C), or of scores a
        pixel (N, C, *S), the mean over all outputs of the targets' size.
    rebuild: seed -> a freshly initialised twin, for spreads over seeds.
    """

    model: nn.Module
    inputs: Any
    targets: Any = None
    loss: Loss | None = None
    rebuild: Callable[[int], nn.Module] | None = None
    seed: int = 0
    effort: Effort = "normal"
    name: str = ""
    more_inputs: Sequence[Any] = field(default_factory=tuple)  # other batches, for intervals

    def __post_init__(self) -> None:
        self.model = unwrap(self.model)
        self.name = self.name or type(self.model).__name__
        if not tensors_in(self.inputs):
            raise BadInput(f"the batch holds no tensor: {type(self.inputs).__name__}")

    @property
    def samples(self) -> int:
        """N, the number of samples in the batch."""
        return len(tensors_in(self.inputs)[0])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        first = next(self.model.parameters(), None)
        return tensors_in(self.inputs)[0].device if first is None else first.device

    @contextmanager
    def running(self, statistics: Statistics = "running") -> Iterator[nn.Module]:
        """Give the model, its norms on these statistics; it comes back untouched.

        The random generators start from the subject's seed, and compiled parts run as written.
        """
        with ExitStack() as stack:
            stack.enter_context(untouched(self.model))
            stack.enter_context(_eager())
            stack.enter_context(norm_statistics(self.model, statistics))
            torch.manual_seed(self.seed)
            yield self.model

    def forward(self, inputs: Any = None) -> Any:
        """Run the model once on a copy of the batch (it may write to it), or on other inputs."""
        inputs = copied(self.inputs) if inputs is None else inputs
        if isinstance(inputs, Mapping):
            return self.model(**inputs)
        return self.model(*inputs) if isinstance(inputs, (tuple, list)) else self.model(inputs)

    def scalar(self, output: Any) -> torch.Tensor:
        """Return the number whose gradients are examined: the loss, or random signs times the output."""
        if self.loss is not None:
            return self.loss(output, self.targets)
        found = tensors_in(output)
        if self.targets is not None:
            return _cross_entropy(found, self.targets)
        generator = torch.Generator().manual_seed(self.seed)
        total = found[0].new_zeros((), dtype=torch.promote_types(found[0].dtype, torch.float32))
        for tensor in found:
            signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
            total = total + (tensor * signs).sum(dtype=total.dtype)
        return total

    @cached_property
    def anatomy(self) -> Anatomy:
        """The residual units; an Anatomy without units says why there are none."""
        from residua.xray.anatomy import find_anatomy

        return find_anatomy(self)


def _cross_entropy(outputs: Sequence[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Return that of the first output, and where targets are masks (N, *S) of all that score them."""
    first = outputs[0]
    scores = [first]
    if not targets.is_floating_point() and targets.dim() > 1:
        shape = (*first.shape[:2], *targets.shape[1:])
        scores = [t for t in outputs if t.shape == shape] or scores
    return torch.stack([F.cross_entropy(t.float(), targets) for t in scores]).mean()


def unwrap(model: nn.Module) -> nn.Module:
    """Take off DataParallel, DistributedDataParallel and torch.compile's wrapper."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the floating tensors in an input or output: alone, in tuples, lists, mappings or dataclasses.

    Where there are none that float, all tensors: token numbers are inputs, too.
    """
    found = list(_all_tensors(value))
    return [t for t in found if t.is_floating_point()] or found


def _all_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _all_tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _all_tensors(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _all_tensors(getattr(value, name))


def copied(value: Any) -> Any:
    """Return an input with its tensors copied."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, (tuple, list)) else value


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled parts as they were written, where this torch can say so."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        yield
        return
    with set_stance("force_eager"):
        yield
