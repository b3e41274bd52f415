"""What every number on a report means, in plain words, with its source.

`DEFINITIONS` holds the terms that a reader can tap; `QUANTITIES` the traces of the flight recorder
with the law that each is expected to follow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """A term: its name on the page, one or two sentences, and where it comes from."""

    name: str
    text: str
    source: str = ""
    link: str = ""


DEFINITIONS: dict[str, Definition] = {
    "accuracy": Definition(
        "Accuracy",
        "The share of pictures whose most probable class is the true one.",
    ),
    "interval": Definition(
        "95 % interval",
        "Another set of as many pictures of the same kind would move the accuracy a little. This "
        "is Wilson's range for that chance alone: it knows nothing of pictures of another kind, "
        "nor of another training seed.",
        "Wilson 1927",
        "https://doi.org/10.1080/01621459.1927.10502953",
    ),
    "baseline": Definition(
        "Guessing",
        "The accuracy of always answering the class that is commonest among these pictures.",
    ),
    "top5": Definition(
        "Top-5 accuracy",
        "The share of pictures whose true class is among the five most probable ones.",
    ),
    "loss": Definition(
        "Loss",
        "Mean cross-entropy: minus the natural logarithm of the probability given to the true "
        "class. 0 is certain and right; ln(number of classes) is knowing nothing.",
    ),
    "train_loss": Definition(
        "Training loss",
        "The loss on the pictures it learns from, as the recipe defines it: mixing and label "
        "smoothing included, so it may stay above the validation loss.",
    ),
    "val_loss": Definition(
        "Validation loss",
        "Cross-entropy on pictures that are held out of training and only used to watch it.",
    ),
    "val_accuracy": Definition(
        "Validation accuracy",
        "The accuracy on pictures that are held out of training and only used to watch it.",
    ),
    "lr": Definition(
        "Learning rate",
        "How far each step moves the weights along the gradient.",
    ),
    "speed": Definition(
        "Pictures a second",
        "Training pictures per second of wall clock, forward, backward and update together.",
    ),
    "parameters": Definition("Parameters", "The numbers that training adjusts."),
    "multiply_adds": Definition(
        "Multiply-adds",
        "Multiplications, each with its addition, for one picture through the network. Some "
        "papers call it FLOPs; others count two FLOPs for each.",
    ),
    "precision": Definition(
        "Precision",
        "Of the pictures called this class, the share that truly is.",
    ),
    "recall": Definition(
        "Recall",
        "Of the pictures truly of this class, the share that is called so.",
    ),
    "f1": Definition(
        "F1",
        "The harmonic mean of precision and recall: 2·P·R / (P + R).",
    ),
    "support": Definition("Pictures", "How many pictures of this class were scored."),
    "confidence": Definition(
        "Confidence",
        "The probability (softmax) that the network gives to its answer.",
    ),
    "ece": Definition(
        "Calibration error (ECE)",
        "Expected calibration error: pictures are put into bins by confidence; the distance "
        "between mean confidence and accuracy of each bin is averaged, weighted by the pictures "
        "in it. 0 is honest.",
        "Guo et al. 2017",
        "https://arxiv.org/abs/1706.04599",
    ),
    "confusion": Definition(
        "Confusion matrix",
        "Row: the true class. Column: the answer. A cell counts the pictures; its colour is "
        "their share of the row.",
    ),
    "step": Definition("Step", "One update of the weights, from one batch of pictures."),
    "epoch": Definition("Epoch", "As many steps as it takes to see every training picture once."),
}


@dataclass(frozen=True)
class Quantity:
    """A trace of the flight recorder: what is measured, what is healthy, which law it follows."""

    name: str
    what: str
    healthy: str
    law: str = ""
    source: str = ""
    link: str = ""
    logarithmic: bool = True
    share: bool = False


QUANTITIES: dict[str, Quantity] = {
    "gradient_norm": Quantity(
        "Gradient norm",
        "The length (L2 norm) of the loss gradient over all weights of a stage.",
        "Stages stay within a factor of ten or so of each other. An early stage that sinks towards "
        "zero is starved (vanishing); lines that climb by orders of magnitude explode.",
        "Through identity shortcuts the gradient arrives undiminished, whatever the branches do: "
        "∂E/∂x_l = ∂E/∂x_L · (1 + ∂/∂x_l Σ F).",
        "He et al. 2016b, equation 5",
        "https://arxiv.org/abs/1603.05027",
    ),
    "shortcut_second_moment": Quantity(
        "Shortcut: second moment",
        "The mean square of what the shortcuts of a stage carry, E[x²].",
        "Grows slowly from block to block and settles as training goes on.",
        "With normalised branches it grows by about one a block, so linearly with depth; without "
        "normalisation it doubles with each block.",
        "De & Smith 2020; Zhang et al. 2019 (Fixup)",
        "https://arxiv.org/abs/2002.10444",
    ),
    "branch_second_moment": Quantity(
        "Branch: second moment",
        "The mean square of what the branches of a stage add, E[F(x)²].",
        "Starts at zero where the last norm of a branch is initialised to zero, then grows. A branch "
        "that stays at zero does nothing: its block is the identity.",
        "Branch over shortcut is how far a block is from the identity; deep normalised networks "
        "start near it, which is why they train.",
        "De & Smith 2020",
        "https://arxiv.org/abs/2002.10444",
    ),
    "dead_share": Quantity(
        "Dead units",
        "The share of channels of the stage's last block whose ReLU gave zero at every position of "
        "every picture of the batch.",
        "A few per cent are harmless. A line that climbs and never comes back is capacity lost, "
        "most often to a learning rate that was too high.",
        "A channel that is zero everywhere has no gradient, so it cannot come back by itself.",
        "Lu et al. 2019",
        "https://arxiv.org/abs/1903.06733",
        logarithmic=False,
        share=True,
    ),
    "update_ratio": Quantity(
        "Update to weight",
        "The length of one update over the length of the weights it changes, ‖Δw‖ / ‖w‖.",
        "Around one in a thousand while learning. Far above: the learning rate is too high for this "
        "stage; far below: it hardly learns. It falls with the learning rate at the end.",
        "A rule of thumb, not a law; layer-wise optimisers (LARS, LAMB) hold this ratio on purpose.",
        "You et al. 2017 (LARS)",
        "https://arxiv.org/abs/1708.03888",
    ),
}


def quantity(key: str) -> Quantity:
    """Return what is known about a recorded quantity; an unknown one reads by its key."""
    return QUANTITIES.get(key) or Quantity(key.replace("_", " ").capitalize(), "", "")
