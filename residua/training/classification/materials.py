"""What a training is made of before it begins: checked pictures, decoded stores, the model's card."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from residua.data.batches import Batches
from residua.data.check import Findings, check, readable
from residua.data.pictures import Pictures, open_pictures
from residua.errors import BadInput
from residua.models import record
from residua.training.cards import ModelCard, Shape
from residua.training.classification import inputs
from residua.training.recipe import Recipe, with_batch_size
from residua.training.request import Request
from residua.training.state import Watcher

VALIDATION = 0.1  # of the training pictures are held out where the data brings no validation split
MOST_VALIDATION = 2500  # but no more: 0.6 points of standard error at 90 %
QUICK_WIDTH_ON_CPU = 32  # of resnet9_cifar; elsewhere its own 64
MOST_WORKERS = 8


@dataclass
class Material:
    """Pictures that were checked, and the recipe with what depends on their number settled."""

    pictures: Pictures
    findings: Findings
    recipe: Recipe
    stores: dict[str, Any] = field(default_factory=dict)  # by split, once `decode` has run

    @property
    def split_record(self) -> dict[str, Any]:
        """Which picture is in which split, by name."""
        return self.pictures.split_record

    @property
    def names(self) -> list[str]:
        """Names of the training pictures."""
        return self.pictures.splits["train"].names

    @property
    def looks(self) -> dict[str, int]:
        """How many pictures there are of each split; mirrored ones count as well."""
        times = 2 if self.recipe.evaluation.flip else 1
        return {key: times * len(split) for key, split in self.pictures.splits.items()}

    @property
    def median(self) -> tuple[int, int]:
        """The median height and width of the pictures."""
        height, width = self.findings.facts["sizes"]["median"]
        return height, width

    def decode(self, shape: Shape, watcher: Watcher) -> None:
        """Decode every split at the size that is trained on, or find it in the cache."""
        for key, split in self.pictures.splits.items():
            self.stores[key] = inputs.open_store(split, shape, self.median, watcher.progress)
            if self.stores[key].note:
                watcher.note(self.stores[key].note)


def gather(request: Request, split_record: dict[str, Any] | None, watcher: Watcher) -> Material:
    """Open and check the pictures; raises BadInput for an error in them."""
    pictures = open_pictures(
        request.source,
        data=None if request.data is None else Path(request.data),
        seed=request.seed,
        val_fraction=request.recipe.val_fraction or VALIDATION,
        most_val=None if request.recipe.val_fraction else MOST_VALIDATION,
        split_record=split_record,
    )
    found = check(
        pictures,
        skip_unreadable=request.skip_unreadable,
        progress=lambda done, total: watcher.progress("checking", done, total),
    )
    watcher.note(found.text())
    found.refuse()
    if found.unreadable:
        pictures = readable(pictures, found)
    recipe = with_batch_size(request.recipe, len(pictures.splits["train"]))
    return Material(pictures, found, recipe)


def decide(
    material: Material, request: Request, device: torch.device, watcher: Watcher
) -> ModelCard:
    """Choose size and model, decode the pictures, measure them."""
    recipe, pictures = material.recipe, material.pictures
    shape = inputs.decide_shape(recipe, material.median, pictures.channels, device.type != "cpu")
    name, options = _choose_model(recipe, shape, device)
    _check_size(name, shape.size, recipe)
    material.decode(shape, watcher)
    augmentation = inputs.augmentation_of(recipe, pictures.classes, shape)
    return ModelCard(
        name,
        options,
        pictures.classes,
        shape,
        inputs.measure(material.stores["train"], shape.channels, request.seed),
        flip=recipe.evaluation.flip and augmentation.flip,
    )


def _check_size(name: str, size: int, recipe: Recipe) -> None:
    """Refuse pictures, also those of a progressive phase, that are too small for the network."""
    smallest = record(name).smallest
    least = min([size, *(round(size * scale) for _, scale in recipe.progressive)])
    if least < smallest:
        raise BadInput(
            f"{name} takes pictures of {smallest} pixels a side or more, and would be trained on"
            f" {least}: choose another model, or enlarge them with --set size=N"
        )


def _choose_model(recipe: Recipe, shape: Shape, device: torch.device) -> tuple[str, dict[str, Any]]:
    options = dict(recipe.model_options)
    if recipe.model is not None:
        record(recipe.model)  # says at once if there is no such model
        return recipe.model, options
    if not shape.small:
        return "resnet18", options
    width = {"width": QUICK_WIDTH_ON_CPU} if device.type == "cpu" else {}
    return "resnet9_cifar", width | options


def training_batches(
    material: Material,
    card: ModelCard,
    request: Request,
    device: torch.device,
    rank: int,
    world: int,
) -> Batches:
    """Return the training batches of one rank."""
    recipe, store = material.recipe, material.stores["train"]
    augmentation = inputs.augmentation_of(recipe, card.classes, card.shape)
    workers = request.workers
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        light = store.uniform and augmentation.vectorised
        workers = 0 if light else max(1, min(MOST_WORKERS, cores - 1))
    return Batches(
        store,
        material.pictures.splits["train"].labels,
        batch_size=recipe.batch,
        seed=request.seed,
        augmentation=augmentation,
        size=card.shape.size,
        train=True,
        rank=rank,
        world=world,
        workers=workers,
        device=device,
        repeats=recipe.augmentation.repeats,
    )
