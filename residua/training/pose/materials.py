"""What a training on joints is made of: checked people, their crops, the model's card."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from residua.data.check import Findings
from residua.data.drawn.named import POSED, drawn_folder
from residua.data.keypoints import Keypoints, PoseSplit, open_keypoints
from residua.data.keypoints_check import check_keypoints, readable_keypoints
from residua.errors import BadInput
from residua.models import record
from residua.training.cards import Normalisation, PoseCard
from residua.training.pose.augmentation import NONE, PoseAugmentation
from residua.training.pose.batches import MARGIN, PoseBatches
from residua.training.recipe import Recipe, with_batch_size
from residua.training.request import Request
from residua.training.state import Watcher

VALIDATION = 0.1  # of the training pictures are held out where the data brings no validation split
MOST_VALIDATION = 1000  # but no more
SIZES = (256, 128)  # pixels of a crop: with an accelerator, without
MODEL = "hourglass2"
WIDTHS = (256, 64)
KEPT_BYTES = 1 << 30  # of decoded pictures
MEASURED = 300  # crops that mean and standard deviation are measured on
MOST_WORKERS = 8


class KeptPictures:
    """A split whose decoded pictures are kept, the first ones, as far as they fit."""

    def __init__(self, split: PoseSplit, limit: int = KEPT_BYTES) -> None:
        self.split, self.limit = split, limit
        self.joints, self.boxes = split.joints, split.boxes
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.split)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Return the whole picture of person `i`, uint8 (H, W, C)."""
        name = str(self.split.paths[i])
        if name not in self._kept:
            picture = self.split.read(i)
            if self._bytes + picture.nbytes > self.limit:
                return picture
            self._kept[name] = picture
            self._bytes += picture.nbytes
        return self._kept[name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict(), "_bytes": 0}


@dataclass
class Material:
    """People that were checked, and the recipe with what depends on their number settled."""

    keypoints: Keypoints
    findings: Findings
    recipe: Recipe
    stores: dict[str, KeptPictures] = field(default_factory=dict)

    @property
    def split_record(self) -> dict[str, Any]:
        """Who is in which split, by name."""
        return self.keypoints.split_record

    @property
    def names(self) -> list[str]:
        """Names of the people to train on."""
        return self.keypoints.splits["train"].names

    @property
    def looks(self) -> dict[str, int]:
        """How many people there are of each split; mirrored ones count as well."""
        times = 2 if self.recipe.evaluation.flip and self.keypoints.may_flip else 1
        return {key: times * len(split) for key, split in self.keypoints.splits.items()}

    def open_stores(self) -> None:
        """Make every split ready to be read."""
        self.stores = {key: KeptPictures(split) for key, split in self.keypoints.splits.items()}


def source_of(source: str) -> Any:
    """Return the folder of a source; that of drawn samples is filled now if it is not there."""
    return drawn_folder(source) if source in POSED else source


def gather(request: Request, split_record: dict[str, Any] | None, watcher: Watcher) -> Material:
    """Open and check people, or draw them; raises BadInput for an error in them."""
    keypoints = open_keypoints(
        source_of(request.source),
        seed=request.seed,
        val_fraction=request.recipe.val_fraction or VALIDATION,
        most_val=None if request.recipe.val_fraction else MOST_VALIDATION,
        split_record=split_record,
    )
    found = check_keypoints(
        keypoints,
        skip_unreadable=request.skip_unreadable,
        progress=lambda done, total: watcher.progress("checking", done, total),
    )
    watcher.note(found.text())
    found.refuse()
    if found.unreadable:
        keypoints = readable_keypoints(keypoints, found)
        if not len(keypoints.splits["val"]):
            raise BadInput(f"{keypoints.location}: has no readable picture to validate on")
        if not len(keypoints.splits.get("test", keypoints.splits["val"])):
            del keypoints.splits["test"]
    return Material(
        keypoints, found, with_batch_size(request.recipe, len(keypoints.splits["train"]))
    )


def decide(
    material: Material, request: Request, device: torch.device, watcher: Watcher
) -> PoseCard:
    """Choose the network and the size of its crops, and measure them."""
    recipe, people = material.recipe, material.keypoints
    slow = device.type == "cpu"
    name, options = recipe.model or MODEL, dict(recipe.model_options)
    if recipe.model is None:
        options = {"width": WIDTHS[slow]} | options
    size = recipe.size or SIZES[slow]
    if size < record(name).smallest:
        raise BadInput(
            f"{name} takes crops of {record(name).smallest} pixels or more, and would be trained on"
            f" {size}: --set size=N"
        )
    if people.unpaired:
        watcher.note(
            f"no mirroring: {', '.join(people.unpaired[:3])} have a side in their name and no partner"
        )
    material.open_stores()
    channels = people.splits["train"].channels
    return PoseCard(
        name,
        options,
        people.joints,
        channels,
        size,
        _measured(material.stores["train"], size, channels, request.seed),
        people.skeleton,
        people.mirror,
        recipe.evaluation.flip and _mirrors(people, recipe),
        MARGIN,
    )


def _mirrors(people: Keypoints, recipe: Recipe) -> bool:
    """Return whether training mirrors crops."""
    return people.may_flip and recipe.augmentation.flip is not False


def _measured(people: KeptPictures, size: int, channels: int, seed: int) -> Normalisation:
    """Return mean and standard deviation of the channels over some crops, pixels in 0 .. 1."""
    batches = PoseBatches(
        people,
        batch_size=min(MEASURED, len(people)),
        seed=seed,
        train=True,
        size=size,
        augmentation=NONE,
    )
    pixels = batches.batch(0).pictures.reshape(-1, channels).double() / 255
    std = pixels.std(0)
    std = torch.where(std < 1e-3, torch.ones_like(std), std)
    return Normalisation(tuple(pixels.mean(0).tolist()), tuple(std.tolist()))


def training_batches(
    material: Material,
    card: PoseCard,
    request: Request,
    device: torch.device,
    rank: int,
    world: int,
) -> PoseBatches:
    """Return the training crops of one rank."""
    section = material.recipe.pose
    how = PoseAugmentation(rotation=section.rotation, scale=(1 - section.scale, 1 + section.scale))
    workers = request.workers
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        workers = 0 if device.type == "cpu" else max(1, min(MOST_WORKERS, cores - 1))
    return PoseBatches(
        material.stores["train"],
        batch_size=material.recipe.batch,
        seed=request.seed,
        train=True,
        size=card.size,
        mirror=card.mirror if _mirrors(material.keypoints, material.recipe) else None,
        augmentation=how if section.augmentation else NONE,
        margin=card.margin,
        rank=rank,
        world=world,
        workers=workers,
        device=device,
    )
