"""Reach into a later forward pass: read or replace what any recorded operation takes and gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.xray.trace.calls import Calls, Key
from residua.xray.trace.graph import Graph, Node
from residua.xray.trace.record import spelled, tensors_of

Change = Callable[[torch.Tensor], torch.Tensor]
ChangeAll = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Reach:
    """What to do at one node: `given` gets its tensor arguments, `result` its output; both return them.

    With several outputs, `result` gets the one numbered `output`.
    """

    node: Node
    given: ChangeAll | None = None
    result: Change | None = None
    output: int = 0


class _Replay(Calls):
    def __init__(self, model: nn.Module, graph: Graph, reaches: Sequence[Reach]) -> None:
        super().__init__(model)
        self.calls = graph.calls
        self.wanted: dict[Key, list[Reach]] = defaultdict(list)
        for reach in reaches:
            self.wanted[reach.node.key].append(reach)
        self.reached: set[Key] = set()

    def call(self, key: Key, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Do the operation with what the reaches make of its arguments and result."""
        reaches = self._reaches(key)
        if not reaches:
            return func(*args, **kwargs)
        node = reaches[0].node
        if spelled(func.__name__) != node.op:
            raise BadInput(
                f"the network took another way than when it was recorded: {func.__name__} instead of"
                f" {node.op} in {key[0] or 'the model'}"
            )
        self.reached.add(node.key)
        for reach in reaches:
            if reach.given is not None:
                args, kwargs = _exchange((args, kwargs), reach.given)
        result = func(*args, **kwargs)
        return _changed(result, reaches)

    def leave(self, key: Key, module: nn.Module, args: Any, output: Any) -> Any:
        """Reach the output of an opaque module."""
        reaches = self._reaches(key)
        if not reaches:
            return None
        self.reached.add(reaches[0].node.key)
        return _changed(output, reaches)

    def _reaches(self, key: Key) -> list[Reach]:
        # A module that runs more often than it did is run once more for its gradient (checkpointing).
        path, call, operation = key
        return self.wanted.get((path, call % self.calls.get(path, 1), operation), [])


def _changed(result: Any, reaches: list[Reach]) -> Any:
    for reach in reaches:
        change = reach.result
        if change is None:
            continue
        if isinstance(result, torch.Tensor):
            result = change(result)
        else:
            at = reach.output

            def one(tensors: list[torch.Tensor], change: Change = change, at: int = at) -> Any:
                return [change(t) if i == at else t for i, t in enumerate(tensors)]

            result = _exchange(result, one)
    return result


def _exchange(value: Any, change: ChangeAll) -> Any:
    """Return `value` with its tensors, in their order, replaced by those that `change` gives."""
    new = iter(change(list(tensors_of(value))))

    def build(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return next(new)
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*(build(part) for part in item))
        if isinstance(item, (tuple, list)):
            return type(item)(build(part) for part in item)
        if isinstance(item, Mapping):
            return {key: build(part) for key, part in item.items()}
        return item

    return build(value)


@contextmanager
def interpose(model: nn.Module, graph: Graph, reaches: Sequence[Reach]) -> Iterator[None]:
    """Reach into the forward passes that happen inside.

    Raises BadInput where the network's operations are no longer those of the graph.
    """
    replay = _Replay(model, graph, reaches)
    with replay.active():
        yield
        missed = set(replay.wanted) - replay.reached
        if missed and replay.entered:
            path = min(missed)[0] or "the model"
            raise BadInput(
                f"the network took another way than when it was recorded: an operation of {path}"
                " did not happen"
            )
