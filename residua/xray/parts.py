"""Other batches to measure a subject on: those that it brought, or parts of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from residua.xray.subject import Subject

LEAST = 4  # samples of a part: fewer make no batch statistics


def parts_of_batch(subject: Subject, count: int) -> Iterator[tuple[Subject, bool]]:
    """Yield subjects on other inputs, and whether their loss is known.

    The subject's further inputs, which have no targets; where there are none, `count` parts of the batch, or
    as many as leave 4 samples in each; none where that is fewer than two.
    """
    if subject.more_inputs and count:
        for inputs in subject.more_inputs:
            known = subject.targets is None and subject.loss is None
            yield replace(subject, inputs=inputs, more_inputs=()), known
        return
    count = min(count, subject.samples // LEAST)
    if count < 2:
        return
    size = subject.samples // count
    for i in range(count):
        at = slice(i * size, (i + 1) * size)
        yield (
            replace(
                subject,
                inputs=_cut(subject.inputs, at, subject.samples),
                targets=_cut(subject.targets, at, subject.samples),
            ),
            True,
        )


def first_samples(subject: Subject, count: int) -> Subject:
    """Return the subject on its first `count` samples and no other inputs."""
    at = slice(0, count)
    return replace(
        subject,
        inputs=_cut(subject.inputs, at, subject.samples),
        targets=_cut(subject.targets, at, subject.samples),
        more_inputs=(),
    )


def _cut(value: Any, at: slice, samples: int) -> Any:
    """Cut every tensor that has one entry a sample."""
    if isinstance(value, torch.Tensor):
        return value[at] if value.dim() and len(value) == samples else value
    if isinstance(value, Mapping):
        return {key: _cut(item, at, samples) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cut(item, at, samples) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(item, at, samples) for item in value)
    return value
