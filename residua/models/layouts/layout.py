"""A layout: the names that another library gives to a network's tensors, and ours for the same.

    theirs                        ours
    layer{layer}.{block}.bn{i}.{leaf}    stages.{stage}.{block}.skip.branch.norm{i}.{leaf}

A table of such rows holds both directions: theirs -> ours for reading, ours -> theirs for writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

# Theirs count these from one, ours from nought.
SHIFTED = {"layer": "stage", "unit": "block"}


class Row(NamedTuple):
    """One name in both layouts. beside: read so only in a file that has this name of theirs too."""

    theirs: str
    ours: str
    beside: str = ""


@dataclass(frozen=True)
class Layout:
    """How some library names the tensors of some models.

    models: of each library, the best known one first, the patterns of the registered names that it writes so.
    mark: a regular expression that finds the layout in a file's names, one a line. rows: the table, the
    first row that matches counts. conv_head: whether the head is a 1x1 convolution.
    """

    models: Mapping[str, tuple[str, ...]]
    mark: str
    rows: tuple[Row, ...]
    conv_head: bool = False

    @property
    def name(self) -> str:
        """The library that a person will look for."""
        return next(iter(self.models))

    def is_of(self, names: Iterable[str]) -> bool:
        """Return whether a file with these names is in this layout."""
        return re.search(self.mark, "\n".join(names), re.MULTILINE) is not None

    def holds(self, model: str, peer: str | None = None) -> bool:
        """Return whether the registered model of that name is written so, by that library or by any."""
        found = self.models.values() if peer is None else [self.models.get(peer, ())]
        return any(fnmatchcase(model, pattern) for patterns in found for pattern in patterns)

    def to_ours(self, names: Iterable[str]) -> dict[str, str]:
        """Map their names to ours; a name that the layout does not have stays as it is."""
        names = list(names)
        known = set(names)
        return {name: self._to_ours(name, known) or name for name in names}

    def from_ours(self, names: Iterable[str]) -> dict[str, str | None]:
        """Map our names to theirs; None for what the layout has no name for."""
        return {name: self._from_ours(name) for name in names}

    def _to_ours(self, name: str, names: set[str]) -> str | None:
        for row in self.rows:
            parts = _match(row.theirs, name)
            if parts is not None and (not row.beside or row.beside.format(**parts) in names):
                return row.ours.format(**parts)
        return None

    def _from_ours(self, name: str) -> str | None:
        for row in self.rows:
            parts = _match(row.ours, name)
            if parts is not None:
                return row.theirs.format(**parts)
        return None


def _match(template: str, name: str) -> Mapping[str, str | int] | None:
    """Return what stands in the template's places, counted both ways, None if it does not fit."""
    match = _pattern(template).fullmatch(name)
    if match is None:
        return None
    parts: dict[str, str | int] = dict(match.groupdict())
    for theirs, ours in SHIFTED.items():
        if theirs in parts:
            parts[ours] = int(parts[theirs]) - 1
        elif ours in parts:
            parts[theirs] = int(parts[ours]) + 1
    return parts


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", _group, re.escape(template)))


def _group(placeholder: re.Match[str]) -> str:
    name = placeholder[1]
    return rf"(?P<{name}>{'[a-z_]+' if name == 'leaf' else '[0-9]+'})"
