"""The analyses in the order in which they run: a name is a file, imported when it is wanted.

`residua/xray/NAME.py` measures (`NAME(subject) -> Result`), `residua/xray/checks/NAME.py` judges
(`check(subject, result) -> list[Finding]`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from residua.errors import BadInput, nearest
from residua.xray.findings import Finding
from residua.xray.result import Result
from residua.xray.subject import Effort, Subject

Progress = Callable[[float, str], None]  # share done, what is being done


@dataclass(frozen=True)
class Analysis:
    """One way of looking at a network.

    quick: whether it is cheap enough for a quick look. function: where it is, if not in a file of its name.
    """

    name: str
    help: str
    quick: bool
    function: str = ""

    def run(self, subject: Subject, **known: Any) -> Result:
        """Measure; of what is known (progress, learning_rate, ...) it gets what it takes."""
        home = self.function or self.name
        function = getattr(import_module(f"residua.xray.{home}"), home)
        takes = inspect.signature(function).parameters
        result: Result = function(subject, **{k: v for k, v in known.items() if k in takes})
        return result

    def check(self, subject: Subject, result: Result) -> list[Finding]:
        """Judge; an analysis without verdicts has none."""
        home = f"residua.xray.checks.{self.name}"
        if find_spec(home) is None:
            return []
        found: list[Finding] = import_module(home).check(subject, result)
        for finding in found:
            finding.analysis = finding.analysis or self.name
        return found


_ALL = (
    Analysis("anatomy", "the residual units: trunk, branch, merge, stages", True, "structure"),
    Analysis("signal", "size of values and gradients by depth, and the law they follow", True),
    Analysis(
        "shattered", "whether the gradients of two inputs still have anything in common", False
    ),
    Analysis("paths", "how many paths there are, and which lengths carry the gradient", False),
    Analysis("lesions", "what is lost when units are deleted or exchanged", False),
    Analysis("activations", "channels that are dead, always on or saturated", True),
    Analysis("smoothness", "how loss and gradient change along the gradient step", False),
    Analysis("curvature", "extreme eigenvalues of the Hessian, trace and spectrum", False),
    Analysis("singularities", "units that are silent, alike or linearly dependent", True),
    Analysis("scale_freedom", "weights whose scale a norm undoes, and what L2 does to them", False),
    Analysis("cost", "parameters, multiply-adds, memory, receptive field and time", False),
)

ANALYSES = {analysis.name: analysis for analysis in _ALL}


def chosen(names: Sequence[str] | None, effort: Effort) -> list[Analysis]:
    """Return the analyses with these names, or those of an effort; BadInput for an unknown name."""
    if names is None:
        return [a for a in ANALYSES.values() if a.quick or effort == "normal"]
    for name in names:
        if name not in ANALYSES:
            raise BadInput(
                f"no analysis is called {name!r}.{nearest(name, ANALYSES)}"
                f" There are {', '.join(ANALYSES)}."
            )
    return [a for a in ANALYSES.values() if a.name in names]
