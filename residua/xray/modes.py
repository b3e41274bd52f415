"""A mode of torch functions that also holds in what a backward pass runs again.

torch takes every mode off while it runs `backward`; a checkpointed module's second forward pass would then
see another network than its first. Modules announce themselves by hooks there, and the mode is put on again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

_BACKWARD = {torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward}


class LastingMode(TorchFunctionMode, ABC):
    """See every torch function of what runs inside `lasting`; a subclass says what it does in `see`."""

    def __init__(self) -> None:
        super().__init__()
        self.backward = False  # a backward pass is under way
        self.again = 0  # modules that it runs again, one inside the other

    @abstractmethod
    def see(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the operation."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        if func not in _BACKWARD:
            return self.see(func, args, keywords)
        self.backward = True
        try:
            return func(*args, **keywords)
        finally:
            self.backward = False

    def _put_on(self, module: nn.Module, args: Any) -> None:
        if self.backward:
            if self.again == 0:
                self.__enter__()  # type: ignore[no-untyped-call]
            self.again += 1

    def _take_off(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.again:
            self.again -= 1
            if self.again == 0:
                self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Hold from here on, in backward passes too."""
        with ExitStack() as stack:
            for handle in (
                register_module_forward_pre_hook(self._put_on),
                register_module_forward_hook(self._take_off, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.enter_context(self)
            yield
