"""Names that people read: natural order ("2" before "10") and text that stays on one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that compares runs of digits as numbers and letters without regard to case.

    >>> sorted(["10", "2", "b1", "A3"], key=natural_key)
    ['2', '10', 'A3', 'b1']
    """
    parts = _DIGITS.split(name)  # text and digits alternate, so that equal places compare
    key = tuple(int(p) if i % 2 else p.casefold() for i, p in enumerate(parts))
    return key, name


def natural_sort(names: Iterable[str]) -> list[str]:
    """Return the names in natural order.

    >>> natural_sort(["img10", "img9"])
    ['img9', 'img10']
    """
    return sorted(names, key=natural_key)


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text for a message: one line, and printable whatever the file is called.

    >>> shown("a" + chr(10) + "b.png")
    'a\\\\nb.png'
    """
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def some(names: Iterable[str], n: int = 3) -> str:
    """Return up to `n` names as text, and how many more there are.

    >>> some(["a", "b", "c"], n=2)
    'a, b and 1 more'
    """
    every = list(names)
    more = f" and {len(every) - n:,} more" if len(every) > n else ""
    return ", ".join(shown(name) for name in every[:n]) + more
