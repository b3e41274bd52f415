"""What a remedy would change, measured: apply it to a copy of the model and analyse the copy again.

The quantities compared are those of the finding's evidence that the analysis keeps in `Result.summary`;
seeds, batch and effort are the same on both sides, so the remedy alone differs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from numbers import Real
from typing import Any

from torch import nn

from residua.xray.analyses import ANALYSES
from residua.xray.failures import in_one_line
from residua.xray.findings import Change, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject

Prescribe = Callable[..., nn.Module]
Attempt = Result | str  # or the reason why there is none


def measure_remedies(
    subject: Subject,
    findings: Sequence[Finding],
    results: Mapping[str, Result],
    *,
    prescribe: Prescribe | None = None,
    known: Mapping[str, Any] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> list[str]:
    """Fill `change` of the findings whose prescription can be tried; return what could not, in words.

    prescribe: (model, remedy, example=inputs) -> the changed model; None: `residua.prescribe`. known:
    what else the analyses were given. A remedy is tried once for each analysis that asks for it, however
    many findings name it.
    """
    apply = prescribe or _prescribe()
    if apply is None:
        return []
    tried: dict[tuple[str, str], Attempt] = {}
    said: dict[str, None] = {}
    wanted = [finding for finding in findings if _quantity(finding, results) is not None]
    for i, finding in enumerate(wanted):
        remedy, analysis = str(finding.prescription), finding.analysis
        if progress is not None:
            progress(i / len(wanted), f"remedy {remedy}")
        if (remedy, analysis) not in tried:
            tried[remedy, analysis] = _attempt(subject, remedy, analysis, apply, known or {})
        after = tried[remedy, analysis]
        if isinstance(after, str):
            said[f"The remedy {remedy} could not be tried on a copy: {after}"] = None
            continue
        quantity = _quantity(finding, results)
        if quantity is not None and (value := _number(after.summary.get(quantity))) is not None:
            before = float(results[analysis].summary[quantity])
            finding.change = Change(quantity, before, value)
    return list(said)


def _quantity(finding: Finding, results: Mapping[str, Result]) -> str | None:
    """Return the quantity to measure again: the first of the evidence that the analysis sums up."""
    if finding.prescription is None or finding.analysis not in results:
        return None
    summary = results[finding.analysis].summary
    named = (evidence.quantity for evidence in finding.evidence)
    return next((name for name in named if _number(summary.get(name)) is not None), None)


def _attempt(
    subject: Subject, remedy: str, analysis: str, prescribe: Prescribe, known: Mapping[str, Any]
) -> Attempt:
    def changed(model: nn.Module) -> nn.Module:
        return prescribe(model, remedy, example=subject.inputs)

    build = subject.rebuild
    try:
        model = changed(copy.deepcopy(subject.model))
        twin = None if build is None else lambda seed: changed(build(seed))
        return ANALYSES[analysis].run(replace(subject, model=model, rebuild=twin), **known)
    except Exception as error:  # a remedy that fails costs its own line, not the report
        return in_one_line(error)


def _number(value: Any) -> float | None:
    if isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value):
        return float(value)
    return None


def _prescribe() -> Prescribe | None:
    if find_spec("residua.xray.prescribe") is None:
        return None
    from importlib import import_module

    found: Prescribe = import_module("residua.xray.prescribe").prescribe
    return found
