"""What is done when a training on masks ends: the finished model, its measures, the report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from residua.report.segmentation import SegmentationReport, write_segmentation_report
from residua.training.devices import first_does
from residua.training.facts import report_facts
from residua.training.folder import RunFolder, write_model
from residua.training.plan import Plan
from residua.training.segmentation.evaluation import Evaluation, evaluate_all
from residua.training.segmentation.materials import Material
from residua.training.segmentation.predicting import probabilities
from residua.training.segmentation.run import SegmentationRun
from residua.training.segmentation.shapes import shapes_of
from residua.training.state import State, Watcher

CASES = 12  # pictures in the report, worst first
LARGEST_CASE = (
    1024  # pixels of a side that the report shows; of larger ones every second, third ...
)


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
    found = evaluate_all(
        run.fabric,
        model,
        card,
        material.stores[name],
        flips=card.flips,
        shapes=shapes_of(material.pairs),
        spacing=material.pairs.splits[name].spacing,
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
        cases=_cases(found, material, name, run, model),
    )
    write_segmentation_report(folder.report, report)
    return measures


def _cases(
    found: Evaluation, material: Material, split: str, run: SegmentationRun, model: torch.nn.Module
) -> list[dict[str, Any]]:
    """Return the pictures with the worst mean IoU as the report shows them, looked at once more."""
    card, part = run.card, material.pairs.splits[split]
    cases = []
    for row in found.scores.rows()[:CASES]:
        i = int(row["key"])
        picture, truth = material.stores[split][i]
        p = probabilities(model, card, picture, run.fabric.device, flips=card.flips)
        unsure = torch.special.entr(p).sum(0) / math.log(max(2, len(card.classes)))
        step = tuple(slice(None, None, -(-n // LARGEST_CASE)) for n in truth.shape)
        cases.append(
            {
                "name": part.names[i],
                "picture": _shown(picture)[step],
                "truth": truth[step],
                "prediction": p.argmax(0).numpy().astype(np.uint8)[step],
                "uncertainty": unsure.clamp(0, 1).numpy()[step],
                "score": row["mean_iou"],
            }
        )
    return cases


def _shown(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture of 8 bits: others from their 0.5th to their 99.5th percentile; 1 or 3 channels."""
    if picture.dtype != np.uint8:
        low, high = np.percentile(picture, (0.5, 99.5))
        scaled = (picture - low) / max(float(high - low), 1e-12)
        picture = (255 * scaled.clip(0, 1)).astype(np.uint8)
    return picture if picture.shape[-1] in (1, 3) else picture[..., :1]
