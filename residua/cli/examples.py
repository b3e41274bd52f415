"""The batches that a network is looked at with: a run's pictures, pictures of a folder, random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from residua.cli.dense import drawn_joints, drawn_masks, heatmap_error, pixel_cross_entropy
from residua.cli.targets import Target
from residua.data.batches import to_input
from residua.data.decode import EXTENSIONS
from residua.errors import BadInput
from residua.training.cards import Shape
from residua.training.classification.inputs import measure, picture_files
from residua.xray.subject import Loss, Subject

# task: (what compares, what the targets of a run are, what they are where they are drawn)
COMPARED: dict[str, tuple[Loss, str, str]] = {
    "segmentation": (
        pixel_cross_entropy,
        "the masks of the pictures",
        "masks of squares whose classes are drawn at random",
    ),
    "pose": (
        heatmap_error,
        "the joints of the pictures",
        "joints at places drawn at random",
    ),
}


@dataclass
class Examples:
    """Batches, where they come from, what their targets mean, and what compares them.

    loss: None: cross-entropy of classes, or none where there are no targets.
    """

    inputs: list[torch.Tensor]
    origin: str
    targets: torch.Tensor | None = None
    meaning: str = ""
    loss: Loss | None = None


def choose_examples(
    opened: Target, n: int, data: str | None, seed: int, device: torch.device, batches: int
) -> Examples:
    """Return up to `batches` batches of n samples, and targets for the first.

    Where nobody knows the labels, and the network is for a task or its output looks like scores of classes,
    they are drawn at random.
    """
    compared = COMPARED.get(opened.task)
    if opened.run is not None:
        opened.run.device = device.type
        pictures, labels = opened.run.sample(n * batches, data, seed=seed)
        origin = f"{len(pictures)} pictures of {data or 'the run'}"
        own = (compared[1], compared[0]) if compared else ("the labels of the pictures", None)
        return Examples(_parts(pictures, n), origin, labels[:n], *own)
    if data is not None:
        pictures = _folder(Path(data), opened.input, n * batches, seed).to(device)
        origin = f"{len(pictures)} pictures in {data}, normalised by their own mean and deviation"
        found = Examples(_parts(pictures, n), origin)
    else:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(batches, n, *opened.input, generator=generator).to(device)
        found = Examples(list(drawn), "random standard normal numbers")
    output = _output(opened.model, found.inputs[0], seed)
    generator = torch.Generator().manual_seed(seed)
    if compared and output is not None:
        found.loss, _, found.meaning = compared
        found.targets = _dense(opened.task, output, found.inputs[0], generator)
        return found
    found.targets = _random_classes(output, generator)
    found.meaning = "none" if found.targets is None else "classes drawn at random"
    return found


def _parts(pictures: torch.Tensor, n: int) -> list[torch.Tensor]:
    """Return whole batches of n; a first one that is short is all there is."""
    return [pictures[i : i + n] for i in range(0, max(len(pictures) - n, 0) + 1, n)]


def _folder(folder: Path, shape: tuple[int, ...], n: int, seed: int) -> torch.Tensor:
    """Return up to n pictures of a folder, drawn by the seed, as (n, C, size, size)."""
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] not in (1, 3):
        raise BadInput(
            "--data: pictures need an input of 1 or 3 channels and equal sides, as 3x224x224"
        )
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in EXTENSIONS]
    if not files:
        raise BadInput(f"{folder}: no pictures in this folder")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(files))[:n])
    store = picture_files(
        [files[i] for i in chosen], Shape(shape[1], shape[1], shape[0], True, 1.0)
    )
    pixels = torch.from_numpy(np.stack([store[i] for i in range(len(store))]))
    return to_input(pixels, *measure(store, shape[0], seed).tensors())


def _output(model: nn.Module, inputs: torch.Tensor, seed: int) -> torch.Tensor | None:
    """Return what the network gives in evaluation; None where it does not run, or gives no tensor."""
    subject = Subject(model, inputs, seed=seed)
    with subject.running(), torch.no_grad():
        try:
            output = subject.forward()
        except Exception:  # what is wrong is said where the model is x-rayed
            return None
    return output if isinstance(output, torch.Tensor) else None


def _dense(
    task: str, output: torch.Tensor, inputs: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return targets for a network with an answer a pixel."""
    if task == "pose":
        return drawn_joints(output, inputs.shape[2:], generator)
    return drawn_masks(output, generator)


def _random_classes(output: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor | None:
    """Return a class for each sample where the output is (N, C) with C > 1."""
    if output is None or output.dim() != 2 or output.shape[1] < 2:
        return None
    labels = torch.randint(output.shape[1], (len(output),), generator=generator)
    return labels.to(output.device)
