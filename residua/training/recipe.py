"""Recipes: everything that decides a training run, as typed configuration.

A recipe is a tree of frozen pydantic models; an unknown key or a value out of range is one clear line
that names the key. `with_overrides(recipe, ["optimiser.lr=0.05"])` is what `--set` does. The recipes by
name are in `recipes.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from residua.errors import BadInput, nearest
from residua.models import record

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Operations = Annotated[int, Field(ge=1, le=15)]
Magnitude = Annotated[int, Field(ge=1, le=9)]  # of 10, as timm counts

ClassificationLoss = Literal["cross_entropy", "binary_cross_entropy"]
SegmentationLoss = Literal[
    "cross_entropy",
    "dice",
    "dice+cross_entropy",
    "focal",
    "tversky",
    "focal_tversky",
    "boundary",
]
PoseLoss = Literal["heatmaps"]
Loss = Literal[ClassificationLoss, SegmentationLoss, PoseLoss]

LOSSES: dict[str, tuple[str, ...]] = {
    "classification": get_args(ClassificationLoss),
    "segmentation": get_args(SegmentationLoss),
    "pose": get_args(PoseLoss),
}


class Section(BaseModel):
    """A part of a recipe: frozen, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimiserSection(Section):
    """The optimiser: SGD with (Nesterov) momentum, AdamW, or LAMB."""

    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    lr: Positive | Literal["auto"] = 0.1  # peak; "auto" runs a learning-rate range test first
    momentum: Share = 0.9
    nesterov: bool = True
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-4
    decay_norms_and_biases: bool = False


class ScheduleSection(Section):
    """The learning rate as a share of its peak, a function of the step alone."""

    name: Literal["cosine", "step", "one_cycle", "constant"] = "cosine"
    warmup_epochs: NotNegative = 0.0  # linear from warmup_start to the peak
    warmup_start: Share = 0.0
    milestones: tuple[Share, ...] = (0.5, 0.75)  # shares of the run at which "step" multiplies
    gamma: Positive = 0.1
    peak: Share = 0.2  # the share of the run at which "one_cycle" is at its peak
    final: Share = 0.0  # of the peak, at the end of cosine and one_cycle


class AugmentationSection(Section):
    """What is done to a training picture; see `residua.data.augmentation` for each."""

    crop_padding: int = Field(0, ge=0)
    padding_mode: Literal["zero", "reflect"] = "zero"
    flip: bool | Literal["auto"] = "auto"  # auto: unless the class names speak of digits or sides
    random_resized_crop: tuple[Share, Share] | None = None
    randaugment: tuple[Operations, Magnitude] | None = None  # each picture
    random_erasing: Share = 0.0
    cutout: int = Field(0, ge=0)
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    repeats: int = Field(1, ge=1)  # repeated augmentation: copies of a picture in a batch


class SegmentationSection(Section):
    """What is special to masks: patches, classes of unequal size, how volumes are seen."""

    dims: Literal[2, 3] | None = None  # None: from the data
    ignore: int | None = None  # value in the masks that counts for nothing
    augmentation: Literal["none", "light", "strong"] = "strong"
    foreground: Share = 1 / 3  # of the patches, centred on a pixel of a rarer class
    balance: Literal["none", "median_frequency", "inverse_sqrt"] = "none"
    border_weights: bool = False  # U-Net's weighted border loss, for touching objects


class PoseSection(Section):
    """What is special to joints."""

    sigma: Positive = 1.0  # of the target's Gaussian, in pixels of the heatmap
    augmentation: bool = True
    rotation: NotNegative = 30.0  # degrees, at most
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25  # at most 1 +- this


class EvaluationSection(Section):
    """How pictures are looked at outside training."""

    size: int | None = Field(None, ge=1)  # None: the training size
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.875  # centre crop, share of the short side
    flip: bool = False  # average with the mirrored picture, only if training mirrored
    batch_size: int | None = Field(None, ge=1)
    every_epochs: Positive = 1.0


class Recipe(Section):
    """A training run. Exactly one of `epochs`, `steps` and `budget` sets its length."""

    name: str = "custom"
    model: str | None = None  # None: chosen for the pictures' size
    model_options: dict[str, Any] = Field(default_factory=dict)
    size: int | None = Field(None, ge=1)  # pixels a side; None: from the data

    epochs: Positive | None = None
    steps: int | None = Field(None, ge=1)
    budget: str | None = None  # wall clock of the whole training, as "10m", "90s", "1.5h"
    max_epochs: Positive | None = None  # a budget is not used up beyond this many passes

    # What one update sees, over all ranks. "auto": a power of two up to 512 and a 16th of the set;
    # the learning rate is then that of a batch of 512 and is scaled with it (Goyal et al. 2017).
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 128
    accumulate: int = Field(1, ge=1)  # parts that a batch is computed in, to save memory
    optimiser: OptimiserSection = OptimiserSection()
    schedule: ScheduleSection = ScheduleSection()
    augmentation: AugmentationSection = AugmentationSection()
    evaluation: EvaluationSection = EvaluationSection()
    segmentation: SegmentationSection = SegmentationSection()
    pose: PoseSection = PoseSection()

    loss: Loss = "cross_entropy"  # see LOSSES for whose is which
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # decay a step; 0: none
    # binary_cross_entropy: the target of every class with more than this share of a mixed picture is 1
    target_threshold: Share | None = None
    clip_gradient: Positive | None = None  # largest norm of the whole gradient
    precise_bn: int = Field(0, ge=0)  # batches to measure norm statistics on after training
    progressive: tuple[tuple[Share, Positive], ...] = ()  # (until share of run, scale of size)
    freeze: tuple[str, ...] = ()  # prefixes of module names, e.g. "stem", "stages.0"

    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: Literal["auto", "yes", "no"] = "auto"
    non_finite: Literal["stop", "skip"] = "stop"
    checkpoint_seconds: Positive = 60.0
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # None: a tenth, <= 2500

    @property
    def batch(self) -> int:
        """The batch size, once it is settled: `with_batch_size` settles "auto"."""
        if self.batch_size == "auto":
            raise ValueError("the batch size is not settled yet")
        return self.batch_size

    @field_validator("compile", mode="before")
    @classmethod
    def _yes_and_no(cls, value: Any) -> Any:
        """Take back what YAML 1.1 makes of yes and no."""
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        given = [key for key in ("epochs", "steps", "budget") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of epochs, steps and budget (found {found})")
        if self.budget is not None:
            seconds(self.budget)
        shares = [share for share, _ in self.progressive]
        if shares != sorted(shares):
            raise ValueError("progressive: the shares of the run must rise")
        if self.batch_size != "auto" and self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate ({self.accumulate}) must divide batch_size ({self.batch_size})"
            )
        return self


def check_task(recipe: Recipe, task: str) -> None:
    """Raise BadInput where the recipe is for another task than the data."""
    if recipe.loss not in LOSSES[task]:
        raise BadInput(
            f"recipe {recipe.name}: loss {recipe.loss} is not one for {task}: expected"
            f" {', '.join(LOSSES[task])}"
        )
    if recipe.model is not None and (found := record(recipe.model).task) != task:
        raise BadInput(
            f"{recipe.model} is a network for {found}, and the data is for {task}:"
            f" `residua models --task {task}` lists those that fit"
        )


LARGEST_AUTO, SMALLEST_AUTO, AUTO_SHARE = 512, 16, 16


def with_batch_size(recipe: Recipe, pictures: int) -> Recipe:
    """Return the recipe with an "auto" batch size settled for this many training pictures."""
    if recipe.batch_size != "auto":
        return recipe
    size = LARGEST_AUTO
    while size > SMALLEST_AUTO and size * AUTO_SHARE > pictures:
        size //= 2
    size = max(size, recipe.accumulate)
    optimiser = recipe.optimiser
    if optimiser.lr != "auto":
        scaled = optimiser.lr * size / LARGEST_AUTO
        optimiser = optimiser.model_copy(update={"lr": scaled})
    return recipe.model_copy(update={"batch_size": size, "optimiser": optimiser})


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LENGTHS = ("epochs", "steps", "budget")


def seconds(text: str) -> float:
    """Return a duration such as "90s", "10m" or "1.5h" in seconds.

    >>> seconds("1.5h")
    5400.0
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    if not match or float(match[1]) == 0:
        raise BadInput(f"budget {text!r} is not a duration: expected e.g. 90s, 10m or 1.5h")
    return float(match[1]) * _UNITS[match[2]]


def build(values: dict[str, Any], where: str) -> Recipe:
    """Return the recipe with these values; BadInput names the first wrong key and `where`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{where}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ""
    for part in map(str, first["loc"]):  # the rest of loc names pydantic's own alternatives
        longer = f"{key}.{part}" if key else part
        if not any(known.startswith(longer) for known in all_keys()):
            break
        key = longer
    if first["type"] == "extra_forbidden":
        unknown = ".".join(map(str, first["loc"]))
        return f"unknown key {unknown!r}.{nearest(unknown, all_keys())}"
    message = first["msg"].removeprefix("Value error, ")
    value = f", not {first['input']!r}" if key and not isinstance(first["input"], dict) else ""
    return f"{key}: {message[0].lower()}{message[1:]}{value}" if key else message


def all_keys(section: type[Section] = Recipe, prefix: str = "") -> list[str]:
    """Return every key of a recipe, nested ones with dots."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Section):
            keys += all_keys(nested, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def with_overrides(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Return the recipe with each "dotted.key=value" applied; values are read as YAML.

    Setting one of epochs, steps and budget takes the place of the other two.
    """
    values = recipe.model_dump()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise BadInput(f"--set {assignment!r}: expected key=value, e.g. optimiser.lr=0.05")
        if key not in all_keys() and not key.startswith("model_options."):
            raise BadInput(f"--set {assignment}: unknown key {key!r}.{nearest(key, all_keys())}")
        if key in LENGTHS:
            values.update(dict.fromkeys(LENGTHS))
        _set(values, key, _value(text, assignment), assignment)
    return build(values, f"--set {' '.join(assignments)}" if assignments else "recipe")


def _set(values: dict[str, Any], key: str, value: Any, assignment: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        if not isinstance(inner, dict):
            raise BadInput(f"--set {assignment}: there is nothing in {section!r} to set")
        values = inner
    values[last] = value


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2 and everywhere else."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _value(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise BadInput(f"--set {where}: the value is not YAML") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; BadInput if there is no file or no mapping in it."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = f" at line {line + 1}" if line is not None else ""
        raise BadInput(f"{path}: not valid YAML{at}") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: expected a mapping of keys to values")
    return values
