"""What the numbers of a training say, as sentences: the headline, confusions, calibration, balance.

Every sentence is made from the facts alone; where a fact is absent, the sentence is absent too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from residua.report.numbers import (
    count,
    duration,
    finite,
    percent,
    plural,
    points,
    significant,
    wilson_interval,
)

Facts = Mapping[str, Any]

SPLIT_WORDS = {"test": "test", "val": "validation", "train": "training"}


@dataclass(frozen=True)
class Headline:
    """The sentence at the top: what comes before the figure, the figure itself, the rest."""

    before: str
    figure: str = ""
    after: str = ""

    def __str__(self) -> str:
        return self.before + self.figure + self.after


def split_word(split: object) -> str:
    """Return the plain word for a split.

    >>> split_word("val")
    'validation'
    """
    return SPLIT_WORDS.get(str(split), str(split)) if split else ""


def interval(summary: Facts) -> tuple[float, float] | None:
    """Return the 95 % interval of the accuracy: the one given, else Wilson's from the count."""
    given = summary.get("interval")
    if given is not None and len(given) == 2:
        low, high = finite(given[0]), finite(given[1])
        if low is not None and high is not None:
            return low, high
    share, n = finite(summary.get("accuracy")), finite(summary.get("n"))
    if share is None or not n:
        return None
    return wilson_interval(share * n, int(n))


@dataclass(frozen=True)
class Confusion:
    """One pair of classes that is confused: `number` of `total` pictures of `truth`."""

    truth: str
    answer: str
    number: int
    total: int

    @property
    def share(self) -> float:
        """The share of the true class that went there."""
        return self.number / self.total if self.total else 0.0


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix as its non-zero cells (truth, answer) -> pictures, with row totals."""

    names: Sequence[str]
    cells: Mapping[tuple[int, int], int]
    totals: Sequence[int]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], classes: Sequence[str]) -> Matrix:
        """Read rows of counts (rows are the truth); a class without a name gets its number."""
        size = max([len(rows), len(classes), *(len(row) for row in rows)], default=0)
        names = [classes[i] if i < len(classes) else f"class {i}" for i in range(size)]
        cells = {
            (truth, answer): int(number)
            for truth, row in enumerate(rows)
            for answer, value in enumerate(row)
            if (number := finite(value))
        }
        totals = [0] * size
        for (truth, _), number in cells.items():
            totals[truth] += number
        return cls(names, cells, totals)

    @property
    def pictures(self) -> int:
        """How many pictures were scored."""
        return sum(self.totals)

    @property
    def mistakes(self) -> int:
        """How many of them went to another class."""
        return sum(number for (t, a), number in self.cells.items() if t != a)

    @property
    def commonest_share(self) -> float | None:
        """The accuracy of always answering the commonest class."""
        return max(self.totals) / self.pictures if self.pictures else None

    def top(self, most: int) -> list[Confusion]:
        """Return the pairs with the most mistakes, ties by share and then by order of classes."""
        return [
            Confusion(self.names[truth], self.names[answer], number, self.totals[truth])
            for (truth, answer), number in self._wrong()[:most]
        ]

    def _wrong(self) -> list[tuple[tuple[int, int], int]]:
        """Return the cells off the diagonal, most pictures first."""
        wrong = [(cell, number) for cell, number in self.cells.items() if cell[0] != cell[1]]
        return sorted(
            wrong, key=lambda item: (-item[1], -item[1] / self.totals[item[0][0]], item[0])
        )

    def most_confused(self, most: int) -> list[int]:
        """Return the classes of the pairs with the most mistakes, in label order."""
        chosen: set[int] = set()
        for (truth, answer), _ in self._wrong():
            if len(chosen | {truth, answer}) <= most:
                chosen |= {truth, answer}
        return sorted(chosen)


def calibration_sentence(calibration: Facts) -> str:
    """Say whether the network claims more than it holds, or less."""
    ece = finite(calibration.get("ece"))
    rows = [
        (finite(row.get("confidence")), finite(row.get("accuracy")), finite(row.get("count")))
        for row in calibration.get("bins") or ()
    ]
    full = [(c, a, n) for c, a, n in rows if c is not None and a is not None and n]
    if ece is None and not full:
        return ""
    size = f"Bin by bin, the two lie {points(ece)} apart on average." if ece is not None else ""
    if not full:
        return size
    total = sum(n for _, _, n in full)
    lean = sum((c - a) * n for c, a, n in full) / total
    said, right = (sum(row[i] * row[2] for row in full) / total for i in (0, 1))
    claim = f"It says {percent(said)} on average and is right {percent(right)} of the time"
    if abs(lean) < 0.005:
        return f"{claim}: as sure as it should be. {size}".strip()
    word = "too sure of itself" if lean > 0 else "more often right than it claims"
    return f"{claim}: {word}. {size}".strip()


def learning_sentences(
    history: Sequence[Facts], score: str = "val_accuracy", name: str = "validation accuracy"
) -> list[str]:
    """Say when the score, a share, was best, and whether the loss turned up after its best."""
    sentences = []
    scored = [row for row in history if finite(row.get(score)) is not None]
    if scored:
        best = max(scored, key=lambda row: row[score])
        reached, place = percent(best[score]), _moment(best)
        where = f" ({place})" if place else ""
        subject = name[:1].upper() + name[1:]
        if len(scored) == 1:
            sentences.append(f"One evaluation{where}: {name} {reached}.")
        elif best is scored[-1]:
            sentences.append(f"{subject} was best at the end{where}: {reached}.")
        else:
            end = percent(scored[-1][score])
            sentences.append(f"{subject} was best{where} at {reached}; it ended at {end}.")
    lossy = [row for row in history if finite(row.get("val_loss")) is not None]
    if len(lossy) > 2:
        best = min(lossy, key=lambda row: row["val_loss"])
        rise = lossy[-1]["val_loss"] / best["val_loss"] - 1 if best["val_loss"] > 0 else 0.0
        if rise > 0.05:
            sentences.append(
                f"Validation loss was lowest ({significant(best['val_loss'])}) at {_moment(best)} "
                f"and rose by {percent(rise, 0)} after it: a sign of overfitting, or of growing "
                "confidence in the same mistakes."
            )
    return sentences


def _moment(row: Facts) -> str:
    """Name the moment of a history row by what it has."""
    parts = []
    if (epoch := finite(row.get("epoch"))) is not None:
        parts.append(f"epoch {epoch:g}" if epoch == round(epoch) else f"epoch {epoch:.1f}")
    elif (step := finite(row.get("step"))) is not None:
        parts.append(f"step {step:,.0f}")
    if (minutes := finite(row.get("minutes"))) is not None:
        parts.append(duration(minutes * 60))
    return ", ".join(parts)


def class_sentence(per_class: Sequence[Facts]) -> str:
    """Name the best and the weakest class by recall."""
    scored = [row for row in per_class if finite(row.get("recall")) is not None]
    if len(scored) < 2:
        return ""
    weak = min(scored, key=lambda row: row["recall"])
    best = max(scored, key=lambda row: row["recall"])
    if weak["recall"] == best["recall"]:
        return f"Every class is found equally often: {percent(best['recall'])}."
    return (
        f"Best found: {best['name']} ({percent(best['recall'])}). "
        f"Most often missed: {weak['name']} ({percent(weak['recall'])} found)."
    )


def balance_sentence(names: Sequence[str], numbers: Iterable[int]) -> str:
    """Say how evenly the training pictures are spread over the classes."""
    pairs = list(zip(numbers, names, strict=False))
    if len(pairs) < 2:
        return ""
    (low, fewest), (high, commonest) = min(pairs), max(pairs)
    if low == high:
        return f"Every class has {plural(low, 'training picture')}."
    return (
        f"Training pictures of a class: from {count(low)} (“{fewest}”) "
        f"to {count(high)} (“{commonest}”)."
    )


def size_sentence(sizes: Any) -> str:
    """Say how large the pictures are; sizes holds [height, width] as min, median and max."""
    if not isinstance(sizes, Mapping):
        return ""
    words = {
        key: f"{pair[1]} × {pair[0]}"
        for key in ("min", "median", "max")
        if (pair := sizes.get(key)) is not None and len(pair) == 2
    }
    if not words:
        return ""
    if len(set(words.values())) == 1:
        return f"{next(iter(words.values()))} pixels"
    text = " to ".join(words[key] for key in ("min", "max") if key in words)
    if "median" in words:
        text += f", median {words['median']}" if text else words["median"]
    return f"{text} pixels"
