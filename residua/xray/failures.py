"""One line about an error that happened inside an analysis: its reason, or where and what went wrong."""

from __future__ import annotations

import traceback
from pathlib import Path

from residua.errors import ResiduaError


def in_one_line(error: Exception) -> str:
    """Return the reason of an error of ours; of any other its place, type and message.

    >>> in_one_line(ResiduaError("there are no residual units"))
    'there are no residual units'
    """
    text = " ".join(str(error).split())
    if isinstance(error, ResiduaError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"internal error{place}: {type(error).__name__}: {text}"
