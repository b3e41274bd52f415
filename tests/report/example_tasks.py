"""Trainings of segmentation and pose to look at: drawn samples, and answers spoilt as a network's are.

`python tests/report/example_tasks.py OUT.html [KIND]` writes the page; KIND is one of `KINDS`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from residua.data.drawn import cells, figures, tubes
from residua.report.pose import PoseReport, write_pose_report
from residua.report.segmentation import SegmentationReport, write_segmentation_report

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "{{ 7 * 7 }} & \"'",
]


def course(name: str) -> dict[str, Any]:
    """Draw a plausible course of a training."""
    rng = np.random.default_rng(0)
    history, steps = [], []
    for epoch in range(1, 21):
        part = epoch / 20
        loss = 0.9 * np.exp(-4 * part) + 0.12
        history.append(
            {"step": 50 * epoch, "epoch": float(epoch), "minutes": 0.5 * epoch, "lr": 0.01 * (1 - part),
             "train_loss": loss, "val_loss": loss * 1.1 + 0.02 * rng.random(),
             "val_score": 0.85 - 0.7 * np.exp(-4 * part) + 0.01 * rng.random()}
        )  # fmt: skip
    for step in range(1, 1001):
        loss = 0.9 * np.exp(-4 * step / 1000) + 0.12
        steps.append({"step": step, "loss": loss * np.exp(0.1 * rng.standard_normal())})
    return {
        "history": history,
        "steps": steps,
        "score_name": name,
        "command": "residua train cells --budget 10m",
        "versions": {"residua": "0.1.0", "torch": "2.13.0"},
        "device": "2 CPU cores",
        "duration_s": 600.0,
        "created": "2026-01-02",
        "recipe": {"loss": {"name": "dice+cross-entropy"}, "steps": 1000},
        "warnings": [{"step": 120, "text": "the gradient's norm rose to 40 times its median"}],
    }


def spoilt(
    mask: np.ndarray, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return an answer with smooth mistakes, and how undecided it is (0..1)."""
    size = (0, *[3.0] * mask.ndim)
    votes = np.stack([mask == k for k in range(classes)]).astype(float)
    noise = ndimage.gaussian_filter(rng.standard_normal(votes.shape), size)
    scores = ndimage.gaussian_filter(votes, (0, *[1.0] * mask.ndim)) + 0.25 * noise / noise.std()
    shares = np.exp(6 * scores) / np.exp(6 * scores).sum(0)
    entropy = -(shares * np.log(shares + 1e-9)).sum(0) / np.log(classes)
    return scores.argmax(0), entropy


def segmented(
    samples: list[tuple[str, np.ndarray, np.ndarray]], classes: int, absent: int = 0
) -> dict[str, Any]:
    """Return cases and confusion of spoilt answers to (name, picture, mask); more classes never occur."""
    rng = np.random.default_rng(1)
    cases, confusion = [], np.zeros((classes + absent, classes + absent), int)
    for name, picture, mask in samples:
        answer, undecided = spoilt(mask, classes, rng)
        counted = mask != 255
        np.add.at(confusion, (mask[counted], answer[counted]), 1)
        both = [((mask == k) & (answer == k)).sum() / ((mask == k) | (answer == k)).sum()
                for k in range(1, classes) if (mask == k).any()]  # fmt: skip
        cases.append({"name": name, "picture": picture, "truth": mask, "prediction": answer,
                      "uncertainty": undecided, "score": float(np.mean(both)) if both else None})  # fmt: skip
    return {"cases": cases, "confusion": confusion.tolist()}


def shapes(names: list[str], unit: str = "pixels") -> dict[str, Any]:
    """Return scores of boundaries, objects and segments; of the last class there are none."""
    *known, last = names
    none = dict.fromkeys(("boundary_f1", "surface_dice", "mean_distance", "hd95"))
    scored = {"boundary_f1": 0.71, "surface_dice": 0.74, "mean_distance": 1.31, "hd95": 4.2}
    found = {"f1": 0.62, "mean_ap": 0.31, "pq": 0.44, "sq": 0.8, "precision": 0.58, "recall": 0.66,
             "true": 312, "predicted": 355}  # fmt: skip
    absent = dict.fromkeys(found) | {"true": 0, "predicted": 0}
    counted = {"pictures": 29, "left_out": 1}
    return {
        "boundary": {**scored, "missed": 3, "tolerance": 2.0, "unit": unit, **counted,
                     "per_class": [*({"name": name, **scored, "missed": 1} for name in known),
                                   {"name": last, **none, "missed": 0}]},
        "objects": {**found, **counted,
                    "per_class": [*({"name": name, **found} for name in known), {"name": last, **absent}]},
        "rand": {"rand": 0.87, "split": 0.9, "merge": 0.84, **counted},
    }  # fmt: skip


def cell_pictures(n: int = 30) -> SegmentationReport:
    """Cells with a border class, some pixels left open, and a class that never occurs."""
    samples = []
    for index in range(n):
        sample = cells.draw(0, index, border=True)
        mask = sample.mask.astype(int)
        mask[:20, :40] = 255
        samples.append((f"test/images/{index:04d}.png", sample.picture, mask))
    return SegmentationReport(
        classes=[*cells.BORDER_CLASSES, "mitosis"],
        model={"name": "unet", "parameters": 1_940_000, "multiply_adds": 3.1e9,
               "paper": "https://arxiv.org/abs/1505.04597", "options": {"width": 16, "norm": "batch"}},
        data={"name": cells.NAME, "counts": {"train": 140, "val": 30, "test": n}, "dims": 2,
              "sizes": {"min": [256, 256], "median": [256, 256], "max": [256, 256]},
              "reasons": ["pictures, not stacks of slices: there is no third dimension"],
              "shares": {"background": 0.58, "cell": 0.36, "border": 0.06}},
        summary={"split": "test", "n": n, "loss": 0.21,
                 "more": [{"name": "Cells found", "value": 0.83, "what": "matched at IoU 0.5"}]},
        **segmented(samples, 3, absent=1), **course("mean IoU"), **shapes(["cell", "mitosis"]),
    )  # fmt: skip


def tube_volumes(n: int = 4) -> SegmentationReport:
    """Volumes whose slices are looked through."""
    drawn = [(f"test/images/{k:04d}.tif", tubes.draw(0, k)) for k in range(n)]
    samples = [(name, sample.volume, sample.mask.astype(int)) for name, sample in drawn]
    return SegmentationReport(
        classes=tubes.CLASSES,
        model={"name": "unet3d", "parameters": 1_400_000},
        data={"name": tubes.NAME, "counts": {"train": 40, "val": 8, "test": n}, "dims": 3,
              "reasons": ["slices lie 3 times as far apart as pixels: under the limit for 3-D"],
              "shares": [0.96, 0.03, 0.01], "spacing": drawn[0][1].spacing, "unit": "µm"},
        summary={"split": "test", "n": n},
        **segmented(samples, 3), **course("mean Dice"),
    )  # fmt: skip


def people(n: int = 40) -> PoseReport:
    """Figures and answers that stray, further for wrists and ankles."""
    rng = np.random.default_rng(2)
    stray = np.array([4, 2, 1.5, 1.5, 2, 4, 5, 3, 1.5, 1.5, 3, 5, 1, 1.5])
    cases, distances = [], []
    for index in range(n):
        sample = figures.draw(0, index)
        truth = sample.joints
        answer = truth.copy()
        size = float(np.hypot(*(truth[8, :2] - truth[3, :2]))) or 30.0
        answer[:, :2] += rng.standard_t(2, (14, 2)) * stray[:, None] * size / 40
        answer[:, 2] = rng.uniform(0.3, 1, 14)
        far = np.hypot(*(answer[:, :2] - truth[:, :2]).T) / size
        far[truth[:, 2] == 0] = np.nan
        distances.append(far)
        share = float(np.mean(far[truth[:, 2] > 0] <= 0.2))
        cases.append({"name": f"test/images/{index:04d}.png", "picture": sample.picture, "truth": truth,
                      "prediction": answer, "size": size, "score": share})  # fmt: skip
    far = np.array(distances)
    known = ~np.isnan(far)
    steps = np.linspace(0, 0.5, 26)

    def pck(values: np.ndarray, t: float) -> float:
        return float(np.mean(values[~np.isnan(values)] <= t))

    rows = [{"name": name, "pck": pck(far[:, k], 0.2), "error": float(np.nanmedian(far[:, k])),
             "support": int(known[:, k].sum())} for k, name in enumerate(figures.JOINTS)]  # fmt: skip
    lines = {
        kind: [pck(far[:, [kind in name for name in figures.JOINTS]], t) for t in steps]
        for kind in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder", "neck", "head")
    }
    curve = {"thresholds": steps.tolist(), "all": [pck(far, t) for t in steps], "joints": lines}
    return PoseReport(
        joints=figures.JOINTS, skeleton=figures.SKELETON, per_joint=rows, curve=curve, cases=cases,
        model={"name": "hourglass2", "parameters": 6_700_000},
        data={"name": figures.NAME, "counts": {"train": 400, "val": 50, "test": n}},
        summary={"pck": pck(far, 0.2), "threshold": 0.2, "pckh": 0.61, "oks_ap": 0.44,
                 "split": "test", "n": n, "joints": int(known.sum())},
        **course("PCK@0.2"),
    )  # fmt: skip


def hostile_segmentation() -> SegmentationReport:
    """Names that try to break the page."""
    facts = cell_pictures(3)
    facts.classes = [*HOSTILE, "plain"]
    facts.data = {"name": HOSTILE[0], "location": HOSTILE[1], "reasons": HOSTILE, "dims": 2,
                  "shares": dict.fromkeys(HOSTILE, 0.3), "notes": HOSTILE}  # fmt: skip
    facts.model = {
        "name": HOSTILE[1],
        "paper": "javascript:alert(3)",
        "options": {HOSTILE[0]: HOSTILE[1]},
    }
    facts.score_name = HOSTILE[1]
    for key, rows in shapes(HOSTILE, HOSTILE[0]).items():
        setattr(facts, key, rows)
    facts.cases = [{**case, "name": HOSTILE[1], "text": HOSTILE[0]} for case in facts.cases]
    facts.warnings = [{"step": 3, "text": text} for text in HOSTILE]
    facts.summary = {
        **facts.summary,
        "more": [{"name": HOSTILE[0], "value": 0.5, "what": HOSTILE[1]}],
    }
    return facts


def hostile_pose() -> PoseReport:
    """Names that try to break the page."""
    facts = people(3)
    facts.joints = [HOSTILE[k % 3] + str(k) for k in range(14)]
    facts.per_joint = [
        {**row, "name": name} for row, name in zip(facts.per_joint, facts.joints, strict=True)
    ]
    facts.curve = {**facts.curve, "joints": {HOSTILE[1]: facts.curve["all"]}}
    facts.cases = [{**case, "name": HOSTILE[1], "text": HOSTILE[0]} for case in facts.cases]
    facts.data = {"name": HOSTILE[1], "location": HOSTILE[0]}
    facts.title = HOSTILE[0]
    return facts


KINDS = {
    "cells": cell_pictures,
    "tubes": tube_volumes,
    "figures": people,
    "hostile-cells": hostile_segmentation,
    "hostile-figures": hostile_pose,
    "empty-cells": SegmentationReport,
    "empty-figures": PoseReport,
}

if __name__ == "__main__":
    facts = KINDS[sys.argv[2] if len(sys.argv) > 2 else "cells"]()
    write = write_pose_report if isinstance(facts, PoseReport) else write_segmentation_report
    write(Path(sys.argv[1]), facts)
