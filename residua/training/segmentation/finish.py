"""What is done when a training on masks ends: the finished model, its measures, the report."""

from __future__ import annotations

from typing import Any

import torch

from residua.report.segmentation import SegmentationReport, write_segmentation_report
from residua.training.devices import first_does
from residua.training.facts import report_facts
from residua.training.folder import RunFolder, write_model
from residua.training.plan import Plan
from residua.training.segmentation.cases import CASES, Worst, answer_of, case_of
from residua.training.segmentation.evaluation import Evaluation, evaluate_all
from residua.training.segmentation.materials import Material
from residua.training.segmentation.predicting import probabilities
from residua.training.segmentation.run import SegmentationRun
from residua.training.segmentation.shapes import shapes_of
from residua.training.state import State, Watcher


def finish(
    folder: RunFolder,
    config: dict[str, Any],
    material: Material,
    state: State,
    plan: Plan,
    run: SegmentationRun,
    watcher: Watcher,
) -> dict[str, Any]:
    """Keep the best weights as the model, measure them on the held-out pictures, write the report.

    Returns the measures. With several ranks all measure and the first one writes.
    """
    model, card, facts = first_does(lambda: run.opened(folder.best))
    name = "test" if "test" in material.pairs.splits else "val"
    model = model.to(run.fabric.device)
    worst = Worst(len(card.classes))
    found = evaluate_all(
        run.fabric,
        model,
        card,
        material.stores[name],
        flips=card.flips,
        shapes=shapes_of(material.pairs),
        spacing=material.pairs.splits[name].spacing,
        see=worst.see,
        progress=lambda done, total: watcher.progress(f"measuring ({name})", done, total),
    )
    measures = {"split": name} | found.measures()
    if not run.fabric.is_global_zero:
        return measures
    write_model(folder.model, model.cpu(), card, facts | {"measures": measures})
    model = model.to(run.fabric.device)
    data = material.findings.facts
    takes = {"patch": list(card.patch), "channels": card.channels}
    report = SegmentationReport(
        **report_facts(config, run, card, model, plan, state, takes=takes, score="val_iou"),
        data={
            "name": material.pairs.name,
            "location": material.pairs.location,
            "counts": {key: part["pictures"] for key, part in data["splits"].items()},
            "check": material.findings.text(),
            "notes": material.pairs.notes + material.findings.warnings,
            "sizes": data["sizes"],
            "dims": material.pairs.dims,
            "reasons": material.pairs.reasons,
            "shares": data["splits"]["train"]["shares"],
            "spacing": material.pairs.spacing,
            "unit": material.pairs.unit,
        },
        score_name="mean IoU",
        classes=list(card.classes),
        # a value says nothing of what is behind: the masks of membranes hold 0 on the membrane
        background=0 if card.classes[0].lower() == "background" else None,
        confusion=measures["confusion"],
        per_class=measures["per_class"],
        summary={
            **{key: measures[key] for key in ("iou", "dice", "pixel_accuracy", "loss", "n")},
            "split": name,
        },
        boundary=measures["boundary"] or {},
        objects=measures["objects"] or {},
        rand=measures["rand"] or {},
        cases=_cases(found, worst, material, name, run, model),
    )
    write_segmentation_report(folder.report, report)
    return measures


def _cases(
    found: Evaluation,
    worst: Worst,
    material: Material,
    split: str,
    run: SegmentationRun,
    model: torch.nn.Module,
) -> list[dict[str, Any]]:
    """Return the pictures with the worst mean IoU; those of other ranks are looked at once more."""
    card, part = run.card, material.pairs.splits[split]
    cases = []
    for row in found.scores.rows()[:CASES]:
        i = int(row["key"])
        picture, truth = material.stores[split][i]
        answer = worst.answer(i)
        if answer is None:
            p = probabilities(model, card, picture, run.fabric.device, flips=card.flips)
            answer = answer_of(p)
        cases.append(case_of(part, i, answer, picture, truth) | {"score": row["mean_iou"]})
    return cases
