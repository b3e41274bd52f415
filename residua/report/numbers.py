"""Numbers as people read them: percentages, durations, counts; and what to print when one is absent.

Every function takes anything and answers with text; a value that is absent, not a number or not
finite reads "–". Units are joined to their number by a no-break space (U+00A0).
"""

from __future__ import annotations

import math
from numbers import Real

ABSENT = "–"
ROUNDING = 1e-9  # what floating point may leave of nothing
SPACE = "\N{NO-BREAK SPACE}"

WILSON_Z = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def finite(value: object) -> float | None:
    """Return `value` as a float if it is a finite real number, else None.

    >>> finite(3), finite(float("nan")), finite("3"), finite(None)
    (3.0, None, None, None)
    """
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    return None


def percent(value: object, digits: int = 1) -> str:
    """Write a share as a percentage; 100 and 0 are only printed for exactly all and nothing.

    >>> percent(0.9312), percent(0.99996), percent(1), percent(None)
    ('93.1\\xa0%', '99.996\\xa0%', '100\\xa0%', '–')
    """
    share = finite(value)
    if share is None:
        return ABSENT
    if min(abs(share), abs(share - 1)) < ROUNDING:
        return f"{abs(round(share)) * 100}{SPACE}%"
    while digits < 6 and f"{share * 100:.{digits}f}" in {f"{v:.{digits}f}" for v in (0, 100)}:
        digits += 1
    return f"{share * 100:.{digits}f}{SPACE}%"


def percent_range(low: object, high: object) -> str:
    """Write an interval of shares, the sign once.

    >>> percent_range(0.926, 0.936)
    '92.6 to 93.6\\xa0%'
    """
    return f"{percent(low).removesuffix(SPACE + '%')} to {percent(high)}"


def points(value: object) -> str:
    """Write a difference of shares in percentage points.

    >>> points(0.042)
    '4.2\\xa0percentage points'
    """
    share = finite(value)
    return ABSENT if share is None else f"{share * 100:.1f}{SPACE}percentage points"


def count(value: object) -> str:
    """Write a whole number with thousands separated.

    >>> count(10000)
    '10,000'
    """
    number = finite(value)
    return ABSENT if number is None else f"{number:,.0f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun.

    >>> plural(1, "picture"), plural(1200, "class", "classes")
    ('1\\xa0picture', '1,200\\xa0classes')
    """
    return f"{number:,}{SPACE}{one if number == 1 else many or one + 's'}"


def large(value: object) -> str:
    """Write a large count in words: thousand, million, billion.

    >>> large(272_474), large(11_173_962), large(4.1e9), large(640)
    ('272\\xa0thousand', '11.2\\xa0million', '4.1\\xa0billion', '640')
    """
    number = finite(value)
    if number is None:
        return ABSENT
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if abs(number) >= size:
            scaled = number / size
            return f"{scaled:.0f}{SPACE}{word}" if scaled >= 100 else f"{scaled:.1f}{SPACE}{word}"
    return f"{number:.0f}"


def significant(value: object, digits: int = 3) -> str:
    """Write a number to some significant digits, powers of ten outside 0.001 to 100,000.

    >>> significant(0.23418), significant(3.1e-7), significant(1234.5), significant(0)
    ('0.234', '3.1e-07', '1,234', '0')
    """
    number = finite(value)
    if number is None:
        return ABSENT
    if number == 0:
        return "0"
    if not 1e-3 <= abs(number) < 1e5:
        return f"{number:.{digits - 1}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"


def tidy(value: object) -> str:
    """Write a number with at most two decimals and no trailing zeros.

    >>> tidy(30.0), tidy(0.5), tidy(1234.567)
    ('30', '0.5', '1,234.57')
    """
    number = finite(value)
    if number is None:
        return ABSENT
    text = f"{number:,.2f}"
    return text.rstrip("0").rstrip(".")


def measured(value: object, digits: int = 3) -> str:
    """Write a measured number; whole ones as they are, infinite ones and those that are none in words.

    >>> measured(1.2112), measured(9.0), measured(float("inf")), measured(float("nan")), measured(None)
    ('1.21', '9', '∞', 'not a number', '–')
    """
    if isinstance(value, Real) and not math.isfinite(value):
        return {"inf": "∞", "-inf": "-∞"}.get(str(float(value)), "not a number")
    number = finite(value)
    whole = number is not None and number.is_integer() and abs(number) < 1e9
    return count(value) if whole else significant(value, digits)


def duration(seconds: object) -> str:
    """Write a duration with its two largest units.

    >>> duration(598), duration(42.3), duration(0.4), duration(7380), duration(200_000)
    ('9\\xa0min 58\\xa0s', '42\\xa0s', '0.4\\xa0s', '2\\xa0h 3\\xa0min', '2\\xa0d 7\\xa0h')
    """
    number = finite(seconds)
    if number is None or number < 0:
        return ABSENT
    if number < 10:
        return f"{number:.1f}{SPACE}s"
    whole = round(number)
    for size, unit, small_size, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            head = f"{whole // size}{SPACE}{unit}"
            return f"{head} {rest}{SPACE}{small}" if rest else head
    return f"{whole}{SPACE}s"


def wilson_interval(correct: float, n: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a share `correct / n` (Wilson 1927).

    >>> low, high = wilson_interval(9310, 10000)
    >>> round(low, 4), round(high, 4)
    (0.9259, 0.9358)
    """
    share, z2 = correct / n, WILSON_Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = WILSON_Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
