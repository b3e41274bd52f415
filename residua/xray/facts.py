"""What a report says of the network and of how it was measured, in plain values."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from residua.xray.failures import in_one_line
from residua.xray.paths.counting import nesting
from residua.xray.subject import Subject, tensors_in

PACKAGES = ("residua", "torch", "numpy")


def facts_of(subject: Subject, output: Any) -> dict[str, Any]:
    """Return sizes, device and what gradients are of; shapes include the batch (N, ...)."""
    parameters = list(subject.model.parameters())
    return {
        "model": type(subject.model).__name__,
        "parameters": sum(p.numel() for p in parameters),
        "modules": sum(1 for _ in subject.model.modules()),
        "dtype": str(parameters[0].dtype).removeprefix("torch.") if parameters else "",
        "inputs": [list(t.shape) for t in tensors_in(subject.inputs)],
        "outputs": [list(t.shape) for t in tensors_in(output)],
        "samples": subject.samples,
        "batches": 1 + len(subject.more_inputs),
        "gradient_of": _gradient_of(subject),
        "device": str(subject.device),
    }


def versions() -> dict[str, str]:
    """Return {package: version} of what the numbers depend on."""
    found = {name: version(name) for name in PACKAGES}
    return found | {"python": platform.python_version(), "system": platform.platform(terse=True)}


def units_of(subject: Subject) -> tuple[list[dict[str, Any]], list[int], str]:
    """Return what a page draws of each residual unit, the paths by length, and why there are none."""
    try:
        anatomy = subject.anatomy
    except Exception as error:
        return [], [], in_one_line(error)
    fields = ("index", "name", "source", "stage", "merge", "shortcut", "order", "text", "parent")
    rows = [{name: getattr(unit, name) for name in fields} for unit in anatomy.units]
    for row, unit in zip(rows, anatomy.units, strict=True):
        row["shape"] = list(unit.shape)
    if not rows:
        return rows, [], anatomy.reason
    nest = nesting(anatomy)
    return rows, nest.paths(nest.trunk), anatomy.reason


def _gradient_of(subject: Subject) -> str:
    if subject.loss is not None:
        return getattr(subject.loss, "__name__", type(subject.loss).__name__)
    if subject.targets is not None:
        return "cross-entropy"
    return "the output times fixed random signs"
