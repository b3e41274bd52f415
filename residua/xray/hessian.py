"""Products of the Hessian with vectors, without the Hessian.

    H v = d/dw (dL/dw . v)                                   exact: Pearlmutter 1994
        ~ (g(w + e v) - g(w - e v)) / (2 e)                  where a part cannot be differentiated twice

H is P x P, the second derivative of the objective over all trainable parameters; v and H v are (P,). A ReLU
counts as the piecewise linear function that autograd takes it for. Cost: the first gradient, and from then
on a product costs about two gradients (exact or not). With `keep_graph`, the graph of the gradient
stays in memory (about twice a training step's), or is made anew for every product.
With statistics of the batch ("batch"), H is that of the loss in training; "detached" holds each norm's
statistics at their values at w; "running" is the loss in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from residua.xray.objective import Objective


class OnceOnlyError(RuntimeError):
    """A part of the network has a first derivative only."""


class Hessian:
    """v -> H v of an objective; counts its products; `method` says how they are had.

    gradient (P,) and loss are those of the objective at w.
    """

    def __init__(self, objective: Objective, keep_graph: bool = True) -> None:
        self.objective = objective
        self.keep_graph = keep_graph
        self.method = "exact"
        self.products = 0
        self.point = objective.flat(objective.parameters).clone()
        self._one = torch.ones((), dtype=objective.dtype, device=self.point.device).requires_grad_()
        self._graphs: dict[int, list[torch.Tensor]] = {}
        self.loss, self.gradient = 0.0, torch.zeros_like(self.point)
        for index in range(len(objective)):
            value = objective.value(index)
            gradient = self._derivatives(value) if keep_graph else objective.derivatives(value)
            if keep_graph:
                self._graphs[index] = gradient
            self.loss += float(value.detach()) / len(objective)
            self.gradient += objective.flat(gradient) / len(objective)

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        """Return H v, both (P,)."""
        self.products += 1
        total = self._product(0, vector)
        for index in range(1, len(self.objective)):
            total += self._product(index, vector)
        return total if len(self.objective) == 1 else total.div_(len(self.objective))

    def _product(self, index: int, vector: torch.Tensor) -> torch.Tensor:
        if self.method == "exact":
            # the forward pass first: what fails there is the network's own and comes out as it is
            value = None if index in self._graphs else self.objective.value(index)
            try:
                return self._exact(index, value, vector)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if not _not_twice(error):
                    raise
                self.method = "finite differences"
                self._graphs.clear()
        return self._differences(index, vector)

    def _derivatives(self, value: torch.Tensor) -> list[torch.Tensor]:
        """Return the gradient with its graph, in which every part depends on the factor 1.

        A part that was declared differentiable once leaves its mark only in what depends on something;
        without the mark torch takes its curvature for zero.
        """
        return self.objective.derivatives(value * self._one, create_graph=True)

    def _exact(self, index: int, value: torch.Tensor | None, vector: torch.Tensor) -> torch.Tensor:
        """Return the product; value: of this part, None where the gradient's graph is kept."""
        objective = self.objective
        gradient = self._graphs[index] if value is None else self._derivatives(value)
        if self.products == 1 and _holds_error(gradient):
            raise OnceOnlyError("a part of the network is differentiable once only")
        pairs = [
            (g, v)
            for g, v in zip(gradient, objective.shaped(vector), strict=True)
            if g.requires_grad  # those of weights that the loss does not read are zero
        ]
        if not pairs:
            return torch.zeros_like(vector)
        product = torch.autograd.grad(
            [g for g, _ in pairs],
            objective.parameters,
            grad_outputs=[v for _, v in pairs],
            retain_graph=self.keep_graph,
            materialize_grads=True,
        )
        return objective.flat(product)

    def _differences(self, index: int, vector: torch.Tensor) -> torch.Tensor:
        length = float(vector.norm())
        if length == 0.0:
            return torch.zeros_like(vector)
        # rounding (eps / step) and curvature of the gradient (step^2) cost alike at the cube root of eps
        step = torch.finfo(vector.dtype).eps ** (1 / 3) * (1.0 + float(self.point.norm())) / length
        try:
            self.objective.place(self.point + step * vector)
            _, above = self.objective.gradient(index)
            self.objective.place(self.point - step * vector)
            _, below = self.objective.gradient(index)
        finally:
            self.objective.place(self.point)
        product: torch.Tensor = (above - below) / (2 * step)
        return product


def _holds_error(gradient: Sequence[torch.Tensor]) -> bool:
    """Say whether the graph of a gradient holds a node that stands for a missing derivative."""
    waiting = [g.grad_fn for g in gradient if g.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::Error":
            return True
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        waiting += new
    return False


def _not_twice(error: RuntimeError) -> bool:
    """Say whether torch refused a second derivative, which for most operations only the text tells."""
    text = str(error)
    return isinstance(error, (OnceOnlyError, NotImplementedError)) or any(
        words in text for words in ("is not implemented", "differentiate twice", "double backward")
    )
