"""What training minimises, as a function of the trainable parameters w: the mean over batches of the loss.

    L(w) = (1/B) sum_b l_b(w),    l_b = subject.scalar(model(inputs_b))

Parameters in half precision are computed in single; any precision can be asked for. Random layers that
`norm_statistics` could not find draw the same numbers at every evaluation.
Use inside `subject.running(...)`, which puts the weights, and their precision, back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from residua.errors import BadInput
from residua.nn.recompute import nothing_recomputed
from residua.xray.subject import Subject

Batch = tuple[Any, Any]  # inputs, targets


class Objective:
    """The loss of every batch and its gradient, a flat vector (P,) over the trainable parameters.

    batches: (inputs, targets) pairs; None: the subject's batch, with its other inputs where no targets
    are compared. dtype: None: the model's own, at least single precision.
    """

    def __init__(
        self,
        subject: Subject,
        batches: Sequence[Batch] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        model = subject.model
        self.parameters = [
            p for p in model.parameters() if p.requires_grad and p.is_floating_point()
        ]
        if not self.parameters:
            raise BadInput(f"{subject.name} has no trainable parameter: there is no loss surface")
        own = self.parameters[0].dtype
        self.dtype = dtype or (torch.promote_types(own, torch.float32))
        if any(p.dtype != self.dtype for p in self.parameters):
            model.to(self.dtype)
        pairs = usual_batches(subject) if batches is None else batches
        if not pairs:
            raise BadInput("no batch was given: one or more (inputs, targets) were expected")
        self.seed = subject.seed
        self.subjects = [
            replace(subject, inputs=cast(inputs, self.dtype), targets=cast(targets, self.dtype))
            for inputs, targets in pairs
        ]
        self.size = sum(p.numel() for p in self.parameters)

    def __len__(self) -> int:
        return len(self.subjects)

    def value(self, index: int) -> torch.Tensor:
        """Return the loss of one batch, with its graph."""
        torch.manual_seed(self.seed)
        # fused attention cannot be differentiated twice, nor can what is computed again in a backward pass
        with sdpa_kernel(SDPBackend.MATH), nothing_recomputed():
            return self.subjects[index].scalar(self.subjects[index].forward())

    def gradient(self, index: int) -> tuple[float, torch.Tensor]:
        """Return loss and gradient (P,) of one batch."""
        value = self.value(index)
        return float(value.detach()), self.flat(self.derivatives(value))

    def derivatives(self, value: torch.Tensor, create_graph: bool = False) -> list[torch.Tensor]:
        """Return dL/dw, zeros for parameters that the loss does not read."""
        if not value.requires_grad:
            return [torch.zeros_like(p) for p in self.parameters]
        return list(
            torch.autograd.grad(
                value, self.parameters, create_graph=create_graph, materialize_grads=True
            )
        )

    def flat(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lay tensors of the parameters' shapes in one vector (P,)."""
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])

    def shaped(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Cut a vector (P,) into tensors of the parameters' shapes."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def place(self, point: torch.Tensor) -> None:
        """Set w to a point (P,)."""
        for parameter, values in zip(self.parameters, self.shaped(point), strict=True):
            parameter.copy_(values)


def usual_batches(subject: Subject) -> list[Batch]:
    """Return the subject's batch and, where no targets are compared, its other inputs as well.

    Other inputs come without targets, so that a loss which needs them can use the first batch only.
    """
    more = [] if subject.targets is not None else [(x, None) for x in subject.more_inputs]
    return [(subject.inputs, subject.targets), *more]


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a nest of tensors, tuples, lists, mappings and dataclasses, its floating tensors in a dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: cast(item, dtype) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(cast(item, dtype) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(cast(item, dtype) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{k: cast(v, dtype) for k, v in vars(value).items()})
    return value
