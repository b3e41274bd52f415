"""Parts by name, with numbers: "group(8)" is the part "group" made with 8.

`split("constant(0.5, 1)")` -> ("constant", (0.5, 1)). A part's own docstring says what its numbers are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Made = TypeVar("Made")

_NAME = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(?:\(([^()]*)\))?\s*")


def split(text: str) -> tuple[str, tuple[float, ...]]:
    """Return the name and the numbers of a part; ValueError if it does not read like one.

    >>> split("ghost(32)"), split("batch")
    (('ghost', (32,)), ('batch', ()))
    """
    match = _NAME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        numbers = tuple(_number(part) for part in (match[2] or "").split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a name or name(number, ...)") from None
    return match[1], numbers


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text else value


def lookup(what: str, text: str, known: Mapping[str, Made]) -> tuple[Made, tuple[float, ...]]:
    """Return what a name stands for, and its numbers; ValueError lists the names there are."""
    name, numbers = split(text)
    if name not in known:
        raise ValueError(unknown(what, text, known))
    return known[name], numbers


def unknown(what: str, given: object, known: Iterable[str]) -> str:
    """Return the sentence that says that a name is unknown, and which there are."""
    return f"{what} {given!r} is unknown: expected one of {', '.join(known)}"


def with_numbers(what: str, text: str, make: Callable[..., Made], *args: object) -> Made:
    """Return make(*args, *numbers of text); ValueError where it takes other numbers."""
    _, numbers = split(text)
    try:
        return make(*args, *numbers)
    except TypeError:
        raise ValueError(f"{what} {text!r} does not take the numbers {numbers}") from None
