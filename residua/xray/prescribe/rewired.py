"""A network with modules of ours at places of its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from residua.errors import BadInput
from residua.xray.trace import Graph, Node, Reach, interpose


@dataclass(frozen=True)
class Step:
    """What a module does at a node: to an argument ("given"), to the result, or instead of the node.

    "instead" gives the module the node's argument, and what the module returns is the node's result.
    """

    node: Node
    at: Literal["given", "result", "instead"]
    module: nn.Module
    argument: int = 0


class Rewired(nn.Module):
    """`model` with `steps`; called as the model is.

    The steps hold for the way that the model took when its graph was recorded: where it takes another
    one, BadInput says so.
    """

    def __init__(self, model: nn.Module, graph: Graph, steps: Sequence[Step]) -> None:
        super().__init__()
        self.model = model
        self.added = nn.ModuleList(step.module for step in steps)
        self.graph = graph
        self.places = [(step.node, step.at, step.argument) for step in steps]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with the added modules in their places."""
        reaches = [
            reach
            for (node, at, argument), module in zip(self.places, self.added, strict=True)
            for reach in _reaches(node, at, argument, module)
        ]
        with interpose(self.model, self.graph, reaches):
            return self.model(*args, **kwargs)


def _reaches(
    node: Node, at: str, argument: int, module: Callable[[torch.Tensor], torch.Tensor]
) -> list[Reach]:
    if at == "result":
        return [Reach(node, result=module)]

    def given(values: list[torch.Tensor]) -> list[torch.Tensor]:
        values[argument] = module(values[argument])
        return values

    if at == "given":
        return [Reach(node, given=given)]
    kept: list[torch.Tensor] = []

    def keep(values: list[torch.Tensor]) -> list[torch.Tensor]:
        kept.append(values[argument])
        # The node may write to its argument, and its result is not used.
        values[argument] = values[argument].detach().clone()
        return values

    return [Reach(node, given=keep, result=lambda _: module(kept.pop()))]


def need_example(example: Any, remedy: str) -> None:
    """Raise BadInput where a remedy needs an example input and there is none."""
    if example is None:
        raise BadInput(
            f"{remedy} needs an example input to find the residual units of this network:"
            f" prescribe(model, {remedy!r}, example)"
        )
