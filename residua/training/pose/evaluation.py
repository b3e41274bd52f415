"""Looking at everybody of a split once: where the joints are, and how far off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from residua.data.batches import to_input
from residua.data.joints import sigmas_of
from residua.data.keypoints import PoseSplit
from residua.training.cards import PoseCard
from residua.training.pose.batches import People, PoseBatches
from residua.training.pose.decode import decode, flip_test, in_picture
from residua.training.pose.scores import box_sizes, oks, pck, pckh, relative_errors
from residua.training.pose.targets import collapsed_peaks, pose_loss

BATCH = 32
THRESHOLDS = tuple(np.linspace(0.0, 0.5, 26).round(2).tolist())  # of the torso: the report's curve
TORSO = 0.2
HEAD = 0.5

Floats = NDArray[np.float64]


@dataclass
class Found:
    """What a network found: joints (N, J, 2) in pixels of the pictures, confidence (N, J), loss (N,)."""

    joints: Floats
    confidence: NDArray[np.float32]
    loss: NDArray[np.float32]


@torch.no_grad()
def find_all(
    fabric: Fabric,
    model: nn.Module,
    card: PoseCard,
    people: People,
    *,
    flip: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Return where a network sees everybody's joints; over several ranks each looks at its share.

    The mode of every module is given back as it was.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    mean, std = (t.to(fabric.device) for t in card.normalisation.tensors())
    batches = PoseBatches(
        people,
        batch_size=BATCH,
        seed=0,
        train=False,
        size=card.size,
        margin=card.margin,
        rank=fabric.global_rank,
        world=fabric.world_size,
        device=fabric.device,
    )
    n, joints = len(people), len(card.classes)
    found = Found(
        np.zeros((n, joints, 2)), np.zeros((n, joints), np.float32), np.zeros(n, np.float32)
    )
    seen: list[int] = []
    for batch in batches.iterate(0, batches.steps_per_epoch):
        x = to_input(batch.pictures, mean, std)
        with fabric.autocast():
            maps = flip_test(model, x, card.mirror) if flip else model(x)
        maps = maps.float()
        places, confidence = decode(maps)
        found.joints[batch.indices] = in_picture(places, batch.maps)
        found.confidence[batch.indices] = confidence.cpu().numpy()
        for k, i in enumerate(batch.indices.tolist()):
            found.loss[i] = float(pose_loss(maps[k : k + 1], batch.labels[k : k + 1]))
        seen += batch.indices.tolist()
        if progress is not None:
            progress(len(seen), n)
    for module, mode in modes.items():
        module.training = mode
    if fabric.world_size > 1:
        gathered: list[tuple[list[int], Found] | None] = [None] * fabric.world_size
        torch.distributed.all_gather_object(gathered, (seen, found))
        for share in gathered:
            assert share is not None
            rows, other = share
            for name in ("joints", "confidence", "loss"):
                getattr(found, name)[rows] = getattr(other, name)[rows]
    return found


def measures(found: Found, people: PoseSplit, card: PoseCard) -> dict[str, Any]:
    """Return PCK at 0.2 of the torso, PCKh at 0.5 of the head, OKS, loss; joint by joint, over shares.

    Where no torso is known, PCK is of the box. silent: joints whose heatmaps say nothing, by name.
    """
    truth = people.joints
    known = bool(np.isfinite(people.torsos).any())  # not for joints of another kind than people's
    sizes = people.torsos.astype(np.float64) if known else box_sizes(people.boxes)
    at = pck(found.joints, truth, sizes, TORSO)
    heads = pckh(found.joints, truth, people.heads, HEAD)
    away = relative_errors(found.joints, truth, sizes)
    curves = [pck(found.joints, truth, sizes, share) for share in THRESHOLDS[1:]]
    alike = oks(found.joints, truth, people.areas, sigmas_of(card.classes))
    peaks = collapsed_peaks(
        torch.from_numpy(found.joints.round()), torch.from_numpy(found.confidence)
    )
    return {
        "pck": _number(at.mean) or 0.0,
        "normalised_by": "torso" if known else "box",
        "threshold": TORSO,
        "interval": [_number(bound) for bound in at.interval],
        "joints": int(sum(at.counted)),
        "n": len(people),
        "pckh": _number(heads.mean),
        "oks": _number(float(np.nanmean(alike))) if np.isfinite(alike).any() else None,
        "auc": _number(at.auc),
        "loss": float(found.loss.mean()),
        "silent": [name for name, bad in zip(card.classes, peaks.tolist(), strict=True) if bad],
        "per_class": [
            {
                "name": name,
                "pck": _number(at.per_joint[j]),
                "error": _number(float(np.nanmedian(away[:, j]))) if at.counted[j] else None,
                "support": int(at.counted[j]),
            }
            for j, name in enumerate(card.classes)
        ],
        "curve": {
            "thresholds": list(THRESHOLDS),
            "all": [0.0, *(_number(one.mean) for one in curves)],
            "joints": {
                name: [0.0, *(_number(one.per_joint[j]) for one in curves)]
                for j, name in enumerate(card.classes)
            },
        },
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
