"""What is done when a training on joints ends: the finished model, its measures, the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua.data.keypoints import PoseSplit
from residua.report.pose import PoseReport, write_pose_report
from residua.training.cards import PoseCard
from residua.training.devices import first_does
from residua.training.facts import report_facts
from residua.training.folder import RunFolder, write_model
from residua.training.plan import Plan
from residua.training.pose.evaluation import TORSO, Found, find_all, measures
from residua.training.pose.materials import Material
from residua.training.pose.precision import average_precision, shown
from residua.training.pose.run import PoseRun
from residua.training.pose.scores import relative_errors
from residua.training.state import State, Watcher

CASES = 24  # people in the report, worst first


def finish(
    folder: RunFolder,
    config: dict[str, Any],
    material: Material,
    state: State,
    plan: Plan,
    run: PoseRun,
    watcher: Watcher,
) -> dict[str, Any]:
    """Keep the best weights as the model, measure them on the held-out people, write the report.

    Returns the measures. With several ranks all measure and the first one writes.
    """
    people = material.keypoints
    model, card, facts = first_does(lambda: run.opened(folder.best))
    name = "test" if "test" in people.splits else "val"
    part = people.splits[name]
    found = find_all(
        run.fabric,
        model.to(run.fabric.device),
        card,
        material.stores[name],
        flip=card.flip,
        progress=lambda done, total: watcher.progress(f"measuring ({name})", done, total),
    )
    reached = {"split": name} | measures(found, part, card)
    reached |= average_precision(found, part, card.classes)
    if not run.fabric.is_global_zero:
        return reached
    watcher.note(shown(reached))
    if reached["silent"]:
        watcher.warn(f"the heatmaps of {', '.join(reached['silent'][:3])} say nothing yet")
    write_model(folder.model, model.cpu(), card, facts | {"measures": reached})
    takes = {"size": card.size, "channels": card.channels}
    report = PoseReport(
        **report_facts(config, run, card, model, plan, state, takes=takes, score="val_pck"),
        data={
            "name": people.name,
            "location": people.location,
            "counts": {key: len(split) for key, split in people.splits.items()},
            "check": material.findings.text(),
            "notes": people.notes + material.findings.warnings,
            "sizes": material.findings.facts.get("sizes"),
        },
        score_name=f"PCK@{TORSO}",
        joints=list(card.classes),
        skeleton=card.skeleton,
        summary=reached,
        per_joint=reached["per_class"],
        curve=reached["curve"],
        cases=_cases(found, part, card, material),
    )
    write_pose_report(folder.report, report)
    return reached


def _cases(
    found: Found, part: PoseSplit, card: PoseCard, material: Material
) -> list[dict[str, Any]]:
    """Return the people with the smallest share of joints found, as the report shows them."""
    away = relative_errors(found.joints, part.joints, part.torsos)
    with np.errstate(invalid="ignore"):
        right = np.where(np.isnan(away), np.nan, away <= TORSO)
    known = np.flatnonzero(np.isfinite(away).any(1))
    scores = {int(i): float(np.nanmean(right[i])) for i in known}
    farthest = {i: -float(np.nanmean(away[i])) for i in scores}
    worst = sorted(scores, key=lambda i: (scores[i], farthest[i]))[:CASES]
    return [
        {
            "name": part.names[i],
            "picture": part.read(i),
            "truth": part.joints[i],
            "prediction": np.column_stack([found.joints[i], found.confidence[i]]),
            "size": float(part.torsos[i]),
            "score": scores[i],
        }
        for i in worst
    ]
