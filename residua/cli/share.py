"""A progress bar for work that knows the share that is done; it appears after two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from residua.cli.output import remarks

LONG = 2.0  # seconds before there is anything to see


@contextmanager
def share_bar(quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """Give what is to be told (share done, what is being done); nothing is drawn when quiet."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=remarks(), transient=True)
    task = bar.add_task("", total=1.0)
    began = time.monotonic()

    def tell(done: float, what: str) -> None:
        bar.update(task, completed=done, description=what)
        if not quiet and not bar.live.is_started and time.monotonic() - began > LONG:
            bar.start()

    try:
        yield tell
    finally:
        bar.stop()
