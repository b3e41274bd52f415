"""What the words on the pages of segmentation and pose mean, with their sources."""

from __future__ import annotations

from residua.report.words import DEFINITIONS, Definition

_SHARED = {
    key: DEFINITIONS[key]
    for key in ("lr", "speed", "parameters", "multiply_adds", "step", "epoch", "interval")
} | {
    "train_loss": Definition(
        "Training loss",
        "The loss on what it learns from, as the recipe defines it, augmentation included.",
    ),
    "val_loss": Definition(
        "Validation loss",
        "The same loss on pictures that are held out of training and only used to watch it.",
    ),
    "val_score": Definition(
        "Validation score",
        "The score on pictures that are held out of training and only used to watch it.",
    ),
    "loss": Definition("Loss", "What training makes small; the recipe below says which."),
    "drawn": Definition(
        "Drawn",
        "Made by a program, picture and truth alike; nothing was photographed. A score on drawn "
        "samples shows that the machinery works. It says nothing of real pictures.",
    ),
}

SEGMENTATION_DEFINITIONS: dict[str, Definition] = {
    "iou": Definition(
        "IoU",
        "Intersection over union: of all pixels that are this class in the truth or in the answer, "
        "the share that is so in both, TP / (TP + FP + FN). Also called Jaccard's index.",
    ),
    "dice": Definition(
        "Dice",
        "Twice the pixels that truth and answer share, over the pixels of both, "
        "2 TP / (2 TP + FP + FN). It is F1 of the pixels, and never below IoU: 2 IoU / (1 + IoU).",
    ),
    "mean_iou": Definition(
        "Mean IoU",
        "The mean of the classes' IoU over the classes that occur in the truth or in the answer. "
        "A class that occurs in neither is absent: it counts neither for nor against.",
    ),
    "mean_dice": Definition("Mean Dice", "The mean of Dice over the same classes."),
    "pixel_accuracy": Definition(
        "Pixel accuracy",
        "The share of pixels with the right class. A large background makes it high for little.",
    ),
    "precision": Definition("Precision", "Of the pixels called this class, the share that is."),
    "recall": Definition("Recall", "Of the pixels of this class, the share that is called so."),
    "support": Definition("Pixels", "Pixels (or voxels) of this class in the truth."),
    "confusion": Definition(
        "Confusion of pixels",
        "Row: the true class. Column: the answer. A cell is what share of the row's pixels went "
        "there, in per cent. Pixels that the truth leaves open are not counted.",
    ),
    "ignored": Definition(
        "Left open",
        "Pixels that the truth marks as counting for nothing: neither trained on nor scored.",
    ),
    "uncertainty": Definition(
        "Uncertainty",
        "How undecided the network is at a pixel: 0 where all weight is on one class, 1 where every "
        "class is as likely (or, of an ensemble, where its members disagree most).",
    ),
    "spacing": Definition(
        "Spacing", "The distance from the centre of one voxel to the next, along z, y and x."
    ),
    **_SHARED,
}

POSE_DEFINITIONS: dict[str, Definition] = {
    "pck": Definition(
        "PCK",
        "Percentage of correct keypoints: the share of labelled joints whose answer lies no further "
        "from the truth than the threshold times the length of the person's torso. (The name is from a "
        "paper that measured against the person's box.)",
        "Yang & Ramanan 2013",
        "https://doi.org/10.1109/TPAMI.2012.261",
    ),
    "pckh": Definition(
        "PCKh",
        "PCK measured against the length of the head instead of the torso.",
        "Andriluka et al. 2014",
        "https://doi.org/10.1109/CVPR.2014.471",
    ),
    "oks_ap": Definition(
        "OKS-AP",
        "COCO's average precision over thresholds of object keypoint similarity 0.50 to 0.95, which "
        "forgives each joint by as much as people differ in marking it.",
        "COCO keypoint evaluation",
        "https://cocodataset.org/#keypoints-eval",
    ),
    "threshold": Definition(
        "Threshold", "How far an answer may lie from the truth, as a share of the torso's length."
    ),
    "joint_error": Definition(
        "Median distance", "Half of the joints lie nearer to the truth than this, half further."
    ),
    "joints": Definition("Joints", "How many labelled joints of this kind were scored."),
    **_SHARED,
}
