"""What a training on masks is made of: checked pictures with masks, patches, the model's card."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from residua.data.border_weights import border_weights
from residua.data.check import Findings
from residua.data.decoded import Decoded, measure_pixels
from residua.data.drawn.named import SEGMENTED, drawn_folder
from residua.data.pairs import Pairs, PairSplit, check_pairs, open_pairs
from residua.data.patch_augmentation import ANISOTROPIC, PatchAugmentation
from residua.data.patches import Patches
from residua.errors import BadInput
from residua.models import create_model, record
from residua.tiles.geometry import geometry_of
from residua.training.cards import Normalisation, SegmentationCard
from residua.training.classification.inputs import mirrors_matter
from residua.training.recipe import Recipe, with_batch_size
from residua.training.request import Request
from residua.training.segmentation.batches import SizedPatches
from residua.training.segmentation.losses import class_weights
from residua.training.state import Watcher

VALIDATION = 0.2  # of the training pictures are held out where the data brings no validation split
MULTIPLE = 16  # of a patch's sides: four times halved, nothing is cut
SIDES = {2: (256, 128), 3: (96, 64)}  # of a patch: with an accelerator, without
SLICES = {True: (32, 16), False: (96, 64)}  # of a patch of a volume: anisotropic, or not
WIDTHS = {2: (64, 16), 3: (32, 8)}  # of the network at full resolution
MODELS = {2: "unet", 3: "unet3d"}
DEPTH = 5  # their levels
WEIGHTS_KEPT = 64  # maps of border weights


@dataclass
class Material:
    """Pictures with masks that were checked, and the recipe with what depends on them settled."""

    pairs: Pairs
    findings: Findings
    recipe: Recipe
    stores: dict[str, Decoded] = field(default_factory=dict)  # by split, once decided
    patch: tuple[int, ...] = ()  # pixels, once decided

    @property
    def split_record(self) -> dict[str, Any]:
        """Which picture is in which split, by name."""
        return self.pairs.split_record

    @property
    def names(self) -> list[str]:
        """Names of the training pictures."""
        return self.pairs.splits["train"].names

    @property
    def looks(self) -> dict[str, int]:
        """How many patches cover the pictures of each split, about; at the end mirrored ones, too."""
        area = math.prod(self.patch)
        found = {
            key: sum(-(-math.prod(split.shape(i)) // area) for i in range(len(split)))
            for key, split in self.pairs.splits.items()
        }
        axes = augmentation_of(self.pairs, self.recipe).flip_axes(self.pairs.dims)
        times = 2 ** len(axes) if self.recipe.evaluation.flip else 1
        return found | {"test": 2 * times * found.get("test", found["val"])}

    def open_stores(self) -> None:
        """Make every split ready to be read: decoded once, kept as far as memory allows."""
        self.stores = {key: Decoded(split) for key, split in self.pairs.splits.items()}


def gather(request: Request, split_record: dict[str, Any] | None, watcher: Watcher) -> Material:
    """Open and check pictures and masks, or draw them; raises BadInput for an error in them."""
    section = request.recipe.segmentation
    pairs = open_pairs(
        source_of(request.source),
        seed=request.seed,
        val_fraction=request.recipe.val_fraction or VALIDATION,
        split_record=split_record,
        ignore=section.ignore,
        dims=section.dims,
        progress=lambda done, total: watcher.progress("reading", done, total),
    )
    found = check_pairs(
        pairs,
        skip_unreadable=request.skip_unreadable,
        progress=lambda done, total: watcher.progress("checking", done, total),
    )
    watcher.note(found.text())
    found.refuse()
    return Material(pairs, found, with_batch_size(request.recipe, len(pairs.splits["train"])))


def source_of(source: str) -> str | Path:
    """Return the folder of a source; that of drawn samples is filled now if it is not there."""
    return drawn_folder(source) if source in SEGMENTED else source


def decide(
    material: Material, request: Request, device: torch.device, watcher: Watcher
) -> SegmentationCard:
    """Choose the network and its patches, decode the pictures, measure them."""
    recipe, pairs = material.recipe, material.pairs
    slow = device.type == "cpu"
    if slow and pairs.dims == 3 and recipe.precision == "auto":
        # torch 2.13's gradients of 3-D convolutions in bfloat16 are garbage on maps two voxels deep
        recipe = material.recipe = recipe.model_copy(update={"precision": "32-true"})
    name = recipe.model or MODELS[pairs.dims]
    if record(name).dims != pairs.dims:
        raise BadInput(
            f"{name} is for pictures of {record(name).dims} dimensions, and these have {pairs.dims}:"
            " choose another model, or --set segmentation.dims=2 to see volumes slice by slice"
        )
    options = dict(recipe.model_options)
    if recipe.model is None:
        options = {"width": WIDTHS[pairs.dims][slow]} | options
    inner = _patch(pairs, recipe, slow)
    if recipe.model is None and pairs.dims == 3 and (apart := _flat(pairs, inner, options)):
        options = {"flat": apart} | options
        watcher.note(f"slices are thick: the network's first {apart} levels leave them apart")
    margin = _margin(name, options, inner, pairs.channels, len(pairs.classes))
    patch = tuple(n + 2 * m for n, m in zip(inner, margin, strict=True))
    material.patch = inner
    material.open_stores()
    material.stores["train"].fill(lambda done, n: watcher.progress("decoding", done, n))
    augmentation = augmentation_of(pairs, recipe)
    mean, std = measure_pixels(material.stores["train"], pairs.channels, request.seed)
    return SegmentationCard(
        name,
        options,
        pairs.classes,
        pairs.channels,
        patch,
        margin,
        Normalisation(mean, std),
        pairs.values,
        pairs.ignore,
        pairs.spacing if pairs.dims == 3 else None,
        augmentation.flip_axes(pairs.dims) if recipe.evaluation.flip else (),
        pairs.splits["train"].deep,
        pairs.axis if pairs.dims == 2 else None,
    )


def _patch(pairs: Pairs, recipe: Recipe, slow: bool) -> tuple[int, ...]:
    """Return the sides of a patch: as large as is affordable, not larger than the pictures."""
    split = pairs.splits["train"]
    shapes = np.array([split.shape(i) for i in range(len(split))])
    usual = np.median(shapes, axis=0).astype(int).tolist()
    side = recipe.size or SIDES[pairs.dims][slow]
    wanted = [side] * pairs.dims
    if pairs.dims == 3:
        wanted[0] = min(side, SLICES[_anisotropic(pairs, usual)][slow])
    return tuple(
        min(want, -(-have // MULTIPLE) * MULTIPLE) for want, have in zip(wanted, usual, strict=True)
    )


def _anisotropic(pairs: Pairs, usual: list[int]) -> bool:
    """Return whether volumes are rather stacks of slices: by their spacing, else by their shape."""
    if pairs.spacing is not None:
        return max(pairs.spacing) / min(pairs.spacing) > ANISOTROPIC
    return max(usual) / min(usual) > ANISOTROPIC


def _flat(pairs: Pairs, patch: tuple[int, ...], options: dict[str, Any]) -> int:
    """Return how many levels of a network for volumes leave slices apart, at least one not.

    As many as it takes until pixels are half as wide as slices are thick, or wider (Isensee et al. 2021,
    nnU-Net); where no spacing is known, until a patch is as many pixels wide as it has slices.
    """
    if pairs.spacing is None:
        levels = int(math.log2(min(patch[1:]) / patch[0]))
    else:
        levels = math.ceil(math.log2(pairs.spacing[0] / (2 * max(pairs.spacing[1:]))))
    depth: int = options.get("depth", DEPTH)
    return max(0, min(levels, depth - 1))


def _margin(
    name: str, options: dict[str, Any], inner: tuple[int, ...], channels: int, classes: int
) -> tuple[int, ...]:
    """Return what the network loses on each side of a patch: nothing where it pads."""
    with torch.device("meta"):
        model = create_model(name, classes, channels, **options)
    return geometry_of(model, channels, len(inner)).margin


def augmentation_of(pairs: Pairs, recipe: Recipe) -> PatchAugmentation:
    """Return what is done to patches: mirrored along all axes unless the classes know sides.

    Pictures in colour are mirrored left and right only: sky stays above.
    """
    section, flip = recipe.segmentation, recipe.augmentation.flip
    made: dict[str, Callable[[], PatchAugmentation]] = {
        "none": PatchAugmentation,
        "light": PatchAugmentation.light,
        "strong": PatchAugmentation.strong,
    }
    augmentation = made[section.augmentation]()
    axes: tuple[int, ...] = tuple(range(pairs.dims))
    if flip is False or (flip == "auto" and mirrors_matter(pairs.classes)):
        axes = ()
    elif pairs.channels == 3 and pairs.dims == 2:
        axes = (1,)
    turned = augmentation.rotate90 and len(axes) == pairs.dims
    return replace(augmentation, flip=axes if augmentation.flip else False, rotate90=turned)


class BorderWeights:
    """U-Net's weights for the gaps between touching objects, made when asked for."""

    def __init__(self, split: PairSplit) -> None:
        self.split = split
        self._made = functools.lru_cache(maxsize=WEIGHTS_KEPT)(self._make)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self._made(index)

    def _make(self, index: int) -> NDArray[np.float32]:
        return border_weights(self.split.mask(index))

    def __getstate__(self) -> dict[str, Any]:
        return {"split": self.split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["split"])  # type: ignore[misc]


def training_batches(
    material: Material,
    card: SegmentationCard,
    request: Request,
    device: torch.device,
    rank: int,
    world: int,
) -> SizedPatches:
    """Return the training patches of one rank."""
    recipe, section = material.recipe, material.recipe.segmentation
    weighted = section.border_weights or recipe.loss == "boundary"
    return SizedPatches(
        Patches(
            material.stores["train"],
            batch_size=recipe.batch,
            seed=request.seed,
            size=card.patch,
            train=True,
            classes=len(card.classes),
            augmentation=augmentation_of(material.pairs, recipe),
            foreground=section.foreground,
            rank=rank,
            world=world,
            workers=request.workers or 0,
            device=device,
            weights=BorderWeights(material.pairs.splits["train"]) if weighted else None,
            margin=card.margin,
            spacing=card.spacing,
        )
    )


def balance(material: Material, device: torch.device) -> torch.Tensor | None:
    """Return the weights of the classes that the recipe asks for, from the training masks' pixels."""
    rule = material.recipe.segmentation.balance
    if rule == "none":
        return None
    shares = material.findings.facts["splits"]["train"]["shares"]
    return class_weights(list(shares.values()), rule).to(device)
