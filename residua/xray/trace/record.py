"""Record one forward pass as a graph."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from residua.xray.trace.calls import AT_EXIT, Calls, Key
from residua.xray.trace.graph import Graph, Node
from residua.xray.trace.settings import settings_of

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parents[1])
_SPELLINGS = {
    "concat": "cat",
    "concatenate": "cat",
    "true_divide": "div",
    "truediv": "div",
    "multiply": "mul",
    "subtract": "sub",
    "conv": "conv2d",
    "get": "property",
}

# What these give does not depend on the values of the tensor that they are asked of.
_ONLY_SHAPES = {
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like"),
    *("full_like", "empty_like", "rand_like", "randn_like", "randint_like"),
}


def record(model: nn.Module, run: Callable[[], Any], inputs: list[torch.Tensor]) -> Graph:
    """Return the graph of `run()`, which calls the model on `inputs`.

    Where a value appears that torch did not show being made (a custom autograd function), a second
    run keeps the autograd graph, which says what the value was made of.
    """
    recorder = Recorder(model, inputs)
    with torch.no_grad(), recorder.active():
        output = run()
    if recorder.lost:
        recorder = Recorder(model, [*inputs])
        wanted = [t for t in inputs if t.is_floating_point() and not t.requires_grad]
        try:
            for tensor in wanted:
                tensor.requires_grad_(True)
            with torch.enable_grad(), recorder.active():
                output = run()
        finally:
            for tensor in wanted:
                tensor.requires_grad_(False)
    return recorder.graph(output)


class Recorder(Calls):
    """Note every operation and which earlier ones made its arguments."""

    def __init__(self, model: nn.Module, inputs: list[torch.Tensor]) -> None:
        super().__init__(model)
        self.nodes: list[Node] = []
        # tensor -> index of the node that made its value
        self.made: MutableMapping[torch.Tensor, int] = WeakIdKeyDictionary()
        self.functions: dict[Any, int] = {}  # autograd function -> node, in the second run
        self.parameters = {id(t): n for n, t in model.named_parameters()}
        self.names_of = self.parameters | {id(t): n for n, t in model.named_buffers()}
        self.hidden: dict[str, None] = {}
        self.givers: dict[int, list[str]] = {}
        self.lost = False
        for i, tensor in enumerate(inputs):
            node = self._add("input", ("", 0, AT_EXIT - 1 - i), "", [], {}, live=True)
            self._note(node, tensor)

    def call(self, key: Key, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Do the operation and note it, if tensors came out of it or one was written to."""
        read = list(tensors_of((args, kwargs)))
        before = [self._maker(tensor) for tensor in read]
        given = tuple(tuple(tensor.shape) for tensor in read)
        result = func(*args, **kwargs)
        name = func.__name__
        made = list(tensors_of(result))
        if name == "__setitem__" and read:
            made = read[:1]
        if not made:
            return result
        names: dict[str, bool] = {}  # of parameters (True) and buffers (False)
        inputs: list[int | None] = []
        for tensor, index in zip(read, before, strict=True):
            alive = index is not None and self.nodes[index].live and name not in _ONLY_SHAPES
            inputs.append(index if alive else None)
            if id(tensor) in self.names_of:
                names[self.names_of[id(tensor)]] = id(tensor) in self.parameters
            elif index is not None and not self.nodes[index].live:
                names |= dict.fromkeys(self.nodes[index].parameters, True)
                names |= dict.fromkeys(self.nodes[index].buffers, False)
        live = any(i is not None for i in inputs)
        node = self._add(spelled(name), key, _source(), inputs, names, live)
        node.outputs = len(made)
        node.factors = tuple(_numbers(args, kwargs))
        node.settings = settings_of(node.op, args, kwargs)
        node.given = given
        node.in_place = bool(read) and any(tensor is read[0] for tensor in made)
        for tensor in made:
            self._note(node, tensor)
        if node.in_place:  # a write to a part of a tensor changes the whole of it
            whole = read[0]._base
            if whole is not None and before[0] is not None:
                self.made[whole] = node.index
        return result

    def leave(self, key: Key, module: nn.Module, args: Any, output: Any) -> Any:
        """Where a module gives a value that no operation was seen to make, the module made it."""
        for tensor in tensors_of(output):
            if self.made.get(tensor) is None and id(tensor) not in self.names_of:
                inputs: list[int | None] = []
                for t in tensors_of(args):
                    index = self._maker(t)
                    inputs.append(index if index is not None and self.nodes[index].live else None)
                names = {f"{key[0]}.{n}": True for n, _ in module.named_parameters()}
                live = any(i is not None for i in inputs)
                node = self._add("opaque", key, "", inputs, names, live)
                self._note(node, tensor)
                self.hidden[f"{key[0] or 'the model'} ({type(module).__name__})"] = None
            index = self.made.get(tensor)
            if index is not None and key[0]:
                self.givers.setdefault(index, []).append(key[0])

    def graph(self, output: Any) -> Graph:
        """Return what was recorded."""
        results = [self._maker(tensor) for tensor in tensors_of(output)]
        return Graph(
            self.nodes,
            dict(self.entered),
            list(self.hidden),
            list(dict.fromkeys(i for i in results if i is not None)),
            self.givers,
        )

    def _add(
        self,
        op: str,
        key: Key,
        source: str,
        inputs: list[int | None],
        names: dict[str, bool],
        live: bool,
    ) -> Node:
        parameters = tuple(name for name, trained in names.items() if trained)
        buffers = tuple(name for name, trained in names.items() if not trained)
        node = Node(len(self.nodes), op, key[0], source, key, inputs, parameters, buffers, live)
        self.nodes.append(node)
        return node

    def _note(self, node: Node, tensor: torch.Tensor) -> None:
        if not node.shape:
            node.shape = tuple(tensor.shape)
            node.dtype = str(tensor.dtype).removeprefix("torch.")
        self.made[tensor] = node.index
        if tensor.grad_fn is not None:
            self.functions[tensor.grad_fn] = node.index

    def _maker(self, tensor: torch.Tensor) -> int | None:
        """Return the node that made a tensor's value; None for parameters and constants."""
        index = self.made.get(tensor)
        if index is not None or id(tensor) in self.names_of or not tensor.is_floating_point():
            return index
        if tensor.grad_fn is None:
            self.lost = self.lost or not torch.is_grad_enabled()
            return None
        roots = sorted(self._roots(tensor.grad_fn))
        if not roots:
            return None
        path, call = self.frames[-1][:2] if self.frames else ("", 0)
        key = (str(path), int(call), -2 - len(self.nodes))  # no later pass can reach it
        node = self._add(type(tensor.grad_fn).__name__, key, "", [*roots], {}, live=True)
        self._note(node, tensor)
        return node.index

    def _roots(self, function: Any) -> set[int]:
        """Return the nearest known nodes behind an autograd function."""
        found: set[int] = set()
        seen = {function}
        todo = [function]
        while todo:
            for behind, _ in todo.pop().next_functions:
                if behind is None or behind in seen:
                    continue
                seen.add(behind)
                leaf = getattr(behind, "variable", None)
                known = self.functions.get(behind)
                if known is None and leaf is not None:
                    known = self.made.get(leaf)
                if known is not None and self.nodes[known].live:
                    found.add(known)
                elif leaf is None:
                    todo.append(behind)
        return found


def spelled(name: str) -> str:
    """Return one name for the function, method, operator and in-place form of an operation.

    >>> [spelled(name) for name in ("__iadd__", "add_", "__rsub__", "concat", "__getitem__")]
    ['add', 'add', 'rsub', 'cat', 'getitem']
    """
    bare = name.strip("_")
    if (name.startswith("__i") and bare[1:] in ("add", "sub", "mul", "truediv")) or bare in (
        "radd",
        "rmul",
    ):
        bare = bare[1:]
    return _SPELLINGS.get(bare, bare)


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in arguments or results, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[float]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield float(value)


def _source() -> str:
    """Return the nearest line of code outside torch and this package."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE)):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
