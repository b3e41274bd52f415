"""Every torch function that a network calls, with a key by which a later pass finds it again.

    key = (path of the innermost module, which call of that module, which operation in that call)

A torch function is what a user writes: `F.relu`, `x + y`, `torch.cat`, `F.batch_norm`; what it does inside
is not seen. So modules, functions, operators and in-place forms look alike, and whatever path a network with
control flow takes is the path that is seen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from residua.nn.recompute import nothing_recomputed
from residua.xray.modes import LastingMode

Key = tuple[str, int, int]
AT_EXIT = -1  # the third part of a key: the value that a module returned


class Calls(LastingMode):
    """Number the torch functions that are called while a module of the model runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(module): name for name, module in model.named_modules()}
        self.entered: Counter[str] = Counter()
        # of running modules: [path, which call, operations so far]
        self.frames: list[list[Any]] = []

    def see(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give the operation its key."""
        if not self.frames or func in _NOT_OPERATIONS or _counts(func, args):
            return func(*args, **kwargs)
        frame = self.frames[-1]
        key = (frame[0], frame[1], frame[2])
        frame[2] += 1
        return self.call(key, func, args, kwargs)

    @abstractmethod
    def call(self, key: Key, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Do the operation; what a subclass adds to it."""

    @abstractmethod
    def leave(self, key: Key, module: nn.Module, args: Any, output: Any) -> Any:
        """Return what takes the place of a module's output, or None."""

    def _enter(self, module: nn.Module, args: Any) -> None:
        name = self.names.get(id(module))
        if name is not None:
            self.frames.append([name, self.entered[name], 0])
            self.entered[name] += 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        if id(module) not in self.names or not self.frames:
            return None
        name, call, _ = self.frames.pop()
        return self.leave((name, call, AT_EXIT), module, args, output)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See what the model calls from here on; nothing of the model itself is changed."""
        self.frames.clear()
        self.entered.clear()
        with ExitStack() as stack:
            for handle in (
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.enter_context(_whole_layers())
            stack.enter_context(nothing_recomputed())
            stack.enter_context(self.lasting())
            yield


def _counts(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Say whether a norm counts its batches, which it does in training alone: no operation of the network."""
    if func not in (torch.Tensor.add_, torch.Tensor.__iadd__):
        return False
    total = args[0]
    return total.dim() == 0 and not total.is_floating_point()


def _getter(name: str) -> Any:
    return getattr(torch.Tensor, name).__get__


_NOT_OPERATIONS = {
    _getter(name) for name in ("shape", "dtype", "device", "requires_grad", "grad_fn", "is_nested")
} | {torch.Tensor.dim, torch.Tensor.size}


@contextmanager
def _whole_layers() -> Iterator[None]:
    """Keep torch from running a transformer's layer as one opaque operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
