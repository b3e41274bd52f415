"""A run that is asked to stop: signals are collected, the loop saves itself and says so."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from residua.errors import ResiduaError


class InterruptedRunError(ResiduaError):
    """The run was asked to stop and has saved itself."""

    exit_code = 130


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second SIGINT does interrupt."""
    received: list[int] = []

    def remember(number: int, _: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
