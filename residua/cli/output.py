"""What a verb prints: text through rich for people, one JSON value for machines.

Progress and remarks go to standard error and results to standard output, so that
`residua ... --json | jq` works. rich is imported when something is drawn, not before.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 200  # columns: a table in a file or a pipe is not cut to the width of no terminal


def is_tty() -> bool:
    """Say whether a person is looking: both output streams are a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


@cache
def console() -> Console:
    """Return the console of results (standard output): as wide as the terminal, wide in a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


@cache
def remarks() -> Console:
    """Return the console of progress and remarks (standard error)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON value on standard output: indented on a terminal, one line in a pipe.

    Numbers of numpy and torch become plain numbers and paths become strings; a number that is not
    finite becomes null, because JSON has no other way to say it.
    """
    text = json.dumps(
        _plain(value),
        ensure_ascii=False,
        allow_nan=False,
        indent=2 if sys.stdout.isatty() else None,
    )
    print(text)


def one_line(text: object) -> str:
    """Return `text` with every run of white space as one space.

    >>> one_line("a picture\\n  cannot be read")
    'a picture cannot be read'
    """
    return " ".join(str(text).split())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's and torch's arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)
