"""X-ray a network: run the analyses, judge, try the remedies on a copy, report.

The model comes back as it was, whatever happens. An analysis that cannot be done on this model, or that
fails, is a line of the report and costs the others nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.xray.analyses import Analysis, Progress, chosen
from residua.xray.facts import facts_of, units_of
from residua.xray.failures import in_one_line
from residua.xray.findings import Finding
from residua.xray.ranking import ranked
from residua.xray.remedies import measure_remedies
from residua.xray.report import XrayReport
from residua.xray.subject import Effort, Loss, Subject

EFFORTS = ("quick", "normal")
REMEDIES = 0.75  # the share of the progress bar at which the analyses are done


def xray(
    model: nn.Module,
    batch: Any,
    targets: Any = None,
    loss: Loss | None = None,
    *,
    analyses: Sequence[str] | None = None,
    effort: Effort = "normal",
    seed: int = 0,
    rebuild: Callable[[int], nn.Module] | None = None,
    more_batches: Sequence[Any] = (),
    learning_rate: float | None = None,
    momentum: float = 0.0,
    weight_decay: float | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> XrayReport:
    """Say what is wrong with a network, where, how sure, and what to change.

    Args:
        model: any module; it comes back untouched.
        batch: what its forward takes: a tensor (N, ...), a tuple of arguments, a mapping of keywords.
        targets: what the loss compares the output with; None: gradients are those of the output times
            fixed random signs.
        loss: (output, targets) -> scalar; None with targets: cross-entropy of logits (N, C), or of scores a
            pixel (N, C, *S), the mean over all outputs of the targets' size.
        analyses: names; None: all that the effort allows.
        effort: "normal", or "quick": fewer analyses, fewer repetitions, no remedies tried.
        seed: decides everything that is drawn.
        rebuild: seed -> a freshly initialised twin of the model, for spreads over seeds.
        more_batches: further batches like `batch`, for intervals.
        learning_rate, momentum, weight_decay: of gradient descent with L2, where they are known: what
            its steps will do is judged.
        progress: is told the share that is done and what is being done.

    Raises:
        BadInput: an unknown analysis or effort; a model that does not run on this batch, or a loss that does
            not take its output, with the reason.
    """
    if effort not in EFFORTS:
        raise BadInput(f"effort {effort!r} is unknown: expected {' or '.join(EFFORTS)}")
    if not isinstance(model, nn.Module):
        raise BadInput(f"expected a torch.nn.Module to x-ray, not {type(model).__name__}")
    wanted = chosen(analyses, effort)
    subject = Subject(model, batch, targets, loss, rebuild, seed, effort, name, tuple(more_batches))
    output = _first_run(subject)
    report = XrayReport(subject.name, seed=seed, effort=effort, facts=facts_of(subject, output))
    tell = progress or (lambda done, what: None)
    end = REMEDIES if effort == "normal" else 1.0
    known = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    found: list[Finding] = []
    for i, analysis in enumerate(wanted):
        found += _one(analysis, subject, report, _part(tell, i, len(wanted), end), known)
    report.findings = ranked(found)
    report.units, report.path_counts, report.no_units = units_of(subject)
    if effort == "normal":
        report.notes += measure_remedies(
            subject,
            report.findings,
            report.results,
            known=known,
            progress=lambda done, what: tell(end + (1 - end) * done, what),
        )
    elif any(finding.prescription for finding in report.findings):
        report.notes.append("A quick look tries no remedies: what they change is not measured.")
    tell(1.0, "done")
    return report


def _one(
    analysis: Analysis,
    subject: Subject,
    report: XrayReport,
    progress: Progress,
    known: Mapping[str, Any],
) -> list[Finding]:
    """Run one analysis into the report and return its findings."""
    progress(0.0, analysis.name)
    began = time.perf_counter()
    try:
        result = analysis.run(subject, progress=progress, **known)
        report.results[analysis.name] = result
        return analysis.check(subject, result)
    except Exception as error:
        report.not_done.append(f"{analysis.name}: {in_one_line(error)}")
        return []
    finally:
        report.seconds[analysis.name] = time.perf_counter() - began


def _first_run(subject: Subject) -> Any:
    """Return the output; BadInput where the model does not take the batch or the loss not the output."""
    with subject.running(), torch.no_grad():
        try:
            output = subject.forward()
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(f"{subject.name} does not run on this batch: {_cause(error)}") from error
        try:
            subject.scalar(output)
        except Exception as error:
            raise BadInput(f"the loss cannot be computed: {_cause(error)}") from error
    return output


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _part(tell: Progress, i: int, n: int, end: float) -> Progress:
    """Return the progress of one of n analyses, as a share of the whole."""
    return lambda done, what: tell(end * (i + done) / n, what)
