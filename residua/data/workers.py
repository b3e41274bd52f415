"""Batches made ahead by other processes: `make(item)` for a list of items, in order.

What is made is a function of the item alone, so that workers only change when it is ready. They live from
one iteration to the next, draw nothing from the generators of this process, and ignore the signals that a
terminal or a scheduler sends to the whole group: training decides what follows.
"""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Made = TypeVar("Made")

_PREFETCH = 3  # batches in flight for each worker
_running: weakref.WeakSet[DataLoader[Any]] = weakref.WeakSet()


class Workers(Generic[Made]):
    """`count` processes (0: this one) that make what is asked for; made of tensors, None and tuples."""

    def __init__(self, make: Callable[[Any], Made], count: int, *, pin: bool = False) -> None:
        self.make, self.count, self.pin = make, count, pin
        self._loader: DataLoader[Made] | None = None

    def each(self, items: Iterable[Any]) -> Iterator[Made]:
        """Yield make(item) for each item, in order."""
        if not self.count:
            yield from map(self.make, items)
            return
        # A second iterator beside a running one gets its own workers.
        loader = self._new_loader() if self._loader is None else self._loader
        self._loader = None
        cast(_Items, loader.sampler).items = items
        yield from loader
        self._loader = loader

    def _new_loader(self) -> DataLoader[Made]:
        loader = DataLoader(
            _Made(self.make),
            sampler=_Items(),
            batch_size=None,
            num_workers=self.count,
            prefetch_factor=_PREFETCH,
            persistent_workers=True,
            worker_init_fn=_leave_signals_alone,
            pin_memory=self.pin,
            # its own generator: otherwise each iterator would draw from the global one, and workers
            # would change the dropout of the model
            generator=torch.Generator().manual_seed(0),
        )
        _running.add(loader)
        return loader

    def close(self) -> None:
        """Stop the processes, if there are any; a later iteration starts new ones."""
        self._loader = None


@atexit.register
def _stop_all() -> None:
    """Stop workers that an exception's traceback still holds: at exit Python would wait for them.

    It asks by SIGTERM, which they ignore.
    """
    for loader in list(_running):
        stop = getattr(loader._iterator, "_shutdown_workers", None)
        if stop is not None:
            stop()


def _leave_signals_alone(worker: int) -> None:
    """Ignore interrupts: a worker that died of one would take training along before it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Items(Sampler[Any]):
    """What is to be made; set before each iteration."""

    def __init__(self) -> None:
        self.items: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Made(Dataset[Made]):
    """What a worker does with an item."""

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self.make = make

    def __getitem__(self, item: Any) -> Made:
        return self.make(item)
