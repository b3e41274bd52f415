"""Cards: everything that is needed to build a trained model again and to feed it, one kind a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

from residua.models import create_model


@dataclass(frozen=True)
class Shape:
    """What the network is fed: (channels, size, size), and at what size it is evaluated."""

    size: int
    evaluation_size: int
    channels: int
    small: bool
    crop: float

    @property
    def stored(self) -> int:
        """Short side of a stored picture."""
        return self.size if self.small else round(self.evaluation_size / self.crop)


@dataclass(frozen=True)
class Normalisation:
    """Channel means and standard deviations of pixels in 0 .. 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both as float32 tensors (C,)."""
        return torch.tensor(self.mean), torch.tensor(self.std)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """Return what `dataclasses.asdict` made plain."""
        return cls(tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True)
class Card(ABC):
    """What every task's card holds; `task` says whose it is."""

    task: ClassVar[str]

    name: str
    options: dict[str, Any]
    classes: tuple[str, ...]  # what the scores are of: classes, or joints

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of a picture."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Pixels a side of what is trained on, before progressive resizing."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """What the network is fed in evaluation, without the batch: (C, *S)."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the card that `as_dict` gave."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"task": self.task} | asdict(self)

    def build(self) -> nn.Module:
        """Return the network with fresh weights, channels last."""
        model = create_model(self.name, len(self.classes), self.channels, **self.options)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class ModelCard(Card):
    """The card of a classifier."""

    task: ClassVar[str] = "classification"

    shape: Shape
    normalisation: Normalisation
    flip: bool  # evaluation also looks at the mirrored picture

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.shape.channels

    @property
    def size(self) -> int:
        """Pixels a side of what is trained on."""
        return self.shape.size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the network is fed in evaluation: (C, H, W)."""
        return (self.channels, self.shape.evaluation_size, self.shape.evaluation_size)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        """Return the card that `as_dict` gave."""
        return cls(
            values["name"],
            values["options"],
            tuple(values["classes"]),
            Shape(**values["shape"]),
            Normalisation.from_dict(values["normalisation"]),
            values["flip"],
        )


@dataclass(frozen=True)
class SegmentationCard(Card):
    """The card of a network that gives every pixel a class.

    patch: of training, margins included; margin: what a network without padding loses on every side.
    values: the masks' value of each class; ignore: the value that counts for nothing. flips: axes that
    training mirrored, along which evaluation looks at the mirrored picture, too.
    """

    task: ClassVar[str] = "segmentation"

    in_channels: int
    patch: tuple[int, ...]
    margin: tuple[int, ...]
    normalisation: Normalisation
    values: tuple[int, ...]
    ignore: int | None
    spacing: tuple[float, ...] | None
    flips: tuple[int, ...]
    deep: bool  # pictures are float32 in their own units, not uint8
    axis: int | None = (
        None  # along which volumes are sliced for a network of planes; older cards: 0
    )

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.in_channels

    @property
    def dims(self) -> int:
        """Axes of a picture: 2, or 3 for volumes."""
        return len(self.patch)

    @property
    def size(self) -> int:
        """The last side of a patch; a progressive phase scales it."""
        return self.patch[-1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a patch: (C, *S)."""
        return (self.channels, *self.patch)

    def build(self) -> nn.Module:
        """Return the network with fresh weights, channels last."""
        model = create_model(self.name, len(self.classes), self.channels, **self.options)
        layout = torch.channels_last if self.dims == 2 else torch.channels_last_3d
        return model.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SegmentationCard:
        """Return the card that `as_dict` gave."""
        spacing = values["spacing"]
        return cls(
            values["name"],
            values["options"],
            tuple(values["classes"]),
            values["in_channels"],
            tuple(values["patch"]),
            tuple(values["margin"]),
            Normalisation.from_dict(values["normalisation"]),
            tuple(values["values"]),
            values["ignore"],
            None if spacing is None else tuple(spacing),
            tuple(values["flips"]),
            values["deep"],
            values.get("axis"),
        )


@dataclass(frozen=True)
class PoseCard(Card):
    """The card of a network that finds joints, `classes`, of one person in the middle of a square crop.

    skeleton: pairs of joints that a line connects. mirror: the partner of each joint in a mirrored
    picture; flip: evaluation also looks at the mirrored crop. margin: a crop's side over the long side
    of the person's box.
    """

    task: ClassVar[str] = "pose"

    in_channels: int
    pixels: int
    normalisation: Normalisation
    skeleton: tuple[tuple[int, int], ...]
    mirror: tuple[int, ...]
    flip: bool
    margin: float

    @property
    def channels(self) -> int:
        """Channels of a picture."""
        return self.in_channels

    @property
    def size(self) -> int:
        """Pixels a side of a crop."""
        return self.pixels

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a crop: (C, H, W)."""
        return (self.channels, self.pixels, self.pixels)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PoseCard:
        """Return the card that `as_dict` gave."""
        return cls(
            values["name"],
            values["options"],
            tuple(values["classes"]),
            values["in_channels"],
            values["pixels"],
            Normalisation.from_dict(values["normalisation"]),
            tuple((a, b) for a, b in values["skeleton"]),
            tuple(values["mirror"]),
            values["flip"],
            values["margin"],
        )


CARDS: dict[str, type[Card]] = {kind.task: kind for kind in (ModelCard, SegmentationCard, PoseCard)}


def card_of(values: dict[str, Any]) -> Card:
    """Return the card that `Card.as_dict` gave, of whichever task."""
    return CARDS[values.get("task", ModelCard.task)].from_dict(values)  # older cards name none
