"""The errors that a user sees: one line each, with the exit code of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ResiduaError(Exception):
    """A run that failed; the message is one line that says what and what to do. Exit code 1."""

    exit_code = 1


class BadInput(ResiduaError, ValueError):  # noqa: N818 - reads as what it is
    """Something that the user gave is wrong; the message names it and what was expected. Exit 2."""

    exit_code = 2


def nearest(name: str, names: Iterable[str], n: int = 3) -> str:
    """Return " Did you mean a, b?" with the names closest to `name`, or an empty string.

    >>> nearest("resnet5", ["resnet50", "unet"])
    ' Did you mean resnet50?'
    """
    close = difflib.get_close_matches(name, list(names), n=n, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""
