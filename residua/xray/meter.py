"""What a forward pass costs, operation by operation: seconds, and bytes that autograd keeps for backward.

A tensor's storage is counted once, where it is first kept, whole; those of parameters and buffers are not
counted: they are there anyway. The batch itself is, where the first layer keeps it. Seconds are those of
the operations as they are called, one after the other, without the Python between them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from residua.xray.trace.calls import AT_EXIT, Calls, Key


class Meter(Calls):
    """Note seconds and kept bytes by operation of what the model does inside `running`."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(model)
        self.device = device
        self.seconds: dict[Key, float] = defaultdict(float)
        self.kept: dict[Key, int] = defaultdict(int)
        self.now: Key = ("", 0, AT_EXIT)
        self.storages: dict[int, Any] = {}  # held, so that no address is used twice

    def call(self, key: Key, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Do the operation and take its time."""
        self.now = key
        began = time.perf_counter()
        result = func(*args, **kwargs)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[key] += time.perf_counter() - began
        return result

    def leave(self, key: Key, module: nn.Module, args: Any, output: Any) -> Any:
        """Leave the module's output as it is."""
        return None

    @contextmanager
    def running(self, model: nn.Module, keeps: bool) -> Iterator[None]:
        """Meter what happens inside; keeps: note what autograd keeps, too."""
        known = [*model.parameters(), *model.buffers()]
        self.storages = {t.untyped_storage().data_ptr(): None for t in known}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.storages:
                self.storages[storage.data_ptr()] = storage
                self.kept[self.now] += storage.nbytes()
            return tensor

        with ExitStack() as stack:
            if keeps:
                hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
                stack.enter_context(hooks)
            stack.enter_context(self.active())
            yield
        self.storages.clear()
