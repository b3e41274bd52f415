"""What the report of a training says whatever its task: how it was made, its network, its course."""

from __future__ import annotations

import datetime
from typing import Any, TypedDict

from torch import nn

from residua.models import record
from residua.training.cards import Card
from residua.training.devices import describe_device
from residua.training.plan import Plan
from residua.training.run import Run
from residua.training.state import State
from residua.training.versions import versions


class ReportFacts(TypedDict):
    """The fields that the reports of all tasks have; see `residua.report` for what is in each."""

    command: str
    versions: dict[str, str]
    created: str
    device: str
    duration_s: float
    model: dict[str, Any]
    recipe: dict[str, Any]
    history: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    warnings: list[dict[str, Any]]


def report_facts(
    config: dict[str, Any],
    run: Run[Any],
    card: Card,
    model: nn.Module,
    plan: Plan,
    state: State,
    *,
    takes: dict[str, Any],
    score: str | None = None,
) -> ReportFacts:
    """Return the facts of a training that has ended.

    takes: what the network is fed, shown beside its options. score: the column of the history that is
    repeated as "val_score"; None: the report has a name of its own for it.
    """
    known = record(card.name)
    history = state.history
    if score is not None:
        history = [row | {"val_score": row[score]} for row in history]
    return {
        "command": str(config["command"] or ""),
        "versions": versions(),
        "created": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "device": describe_device(run.fabric.device),
        "duration_s": state.seconds,
        "model": {
            "name": card.name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "multiply_adds": known.multiply_adds if not card.options else None,
            "paper": known.paper,
            "options": card.options | takes,
        },
        "recipe": config["recipe"] | {"plan": plan.as_dict(), "seed": config["seed"]},
        "history": history,
        "steps": state.steps,
        "warnings": state.warnings,
    }
