"""What is done when training ends: the finished model, its measures, the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.pictures import Split
from residua.report.training import TrainingReport, write_training_report
from residua.training.classification import inputs
from residua.training.classification.materials import Material
from residua.training.classification.measures import (
    Predictions,
    calibration,
    scores_by_class,
    summary,
)
from residua.training.classification.run import ClassificationRun, predict_with
from residua.training.devices import first_does
from residua.training.facts import report_facts
from residua.training.folder import RunFolder, write_model
from residua.training.plan import Plan
from residua.training.state import State, Watcher

MISTAKES = 48
MISTAKE_SIDE = 160  # pixels of the longer side of a picture in the report


def finish(
    folder: RunFolder,
    config: dict[str, Any],
    material: Material,
    state: State,
    plan: Plan,
    run: ClassificationRun,
    watcher: Watcher,
) -> dict[str, Any]:
    """Keep the best weights as the model, measure them on the held-out pictures, write the report.

    Returns the measures. With several ranks all measure and the first one writes.
    """
    pictures, findings = material.pictures, material.findings
    model, card, facts = first_does(lambda: run.opened(folder.best))
    name = "test" if "test" in pictures.splits else "val"
    part = pictures.splits[name]
    found = predict_with(
        run.fabric,
        model,
        card,
        material.stores[name],
        part.labels,
        progress=lambda done, total: watcher.progress(f"measuring ({name})", done, total),
    )
    measures = {"split": name} | summary(found, len(card.classes))
    if not run.fabric.is_global_zero:
        return measures
    write_model(folder.model, model, card, facts | {"measures": measures})
    by_class = scores_by_class(found, card.classes)
    takes = {"size": card.shape.size, "channels": card.shape.channels}
    shared = report_facts(config, run, card, model, plan, state, takes=takes)
    shared["command"] = shared["command"] or _command(config, folder)
    report = TrainingReport(
        **shared,
        data={
            "name": pictures.name,
            "location": pictures.location,
            "classes": list(card.classes),
            "counts": {key: split["classes"] for key, split in findings.facts["splits"].items()},
            "check": findings.text(),
            "notes": pictures.notes + findings.warnings,
            "sizes": findings.facts.get("sizes"),
        },
        classes=list(card.classes),
        confusion=by_class["confusion"],
        per_class=by_class["per_class"],
        calibration=calibration(found),
        mistakes=_mistakes(found, part, card.classes),
        summary=measures,
        recorder=state.traces.for_report(),
    )
    write_training_report(folder.report, report)
    return measures


def _command(config: dict[str, Any], folder: RunFolder) -> str:
    return f"residua train {config['source']} --out {folder.path} --seed {config['seed']}"


def _mistakes(found: Predictions, part: Split, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the pictures that the network is most sure and most wrong about, worst first."""
    wrong = np.flatnonzero(~found.correct)
    worst = wrong[np.argsort(-found.loss[wrong], kind="stable")][:MISTAKES]
    return [
        {
            "name": part.names[int(found.index[i])],
            "picture": _shown(part.read(int(found.index[i]))),
            "truth": classes[found.label[i]],
            "predicted": classes[found.predicted[i]],
            "confidence": float(found.confidence[i]),
            "truth_confidence": float(found.truth_confidence[i]),
        }
        for i in worst
    ]


def _shown(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    short = max(1, round(MISTAKE_SIDE * min(height, width) / max(height, width)))
    return inputs.reduced(picture, short)
