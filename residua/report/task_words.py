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
    "boundary_f1": Definition(
        "Boundary F1",
        "Of a class's boundary in the answer, the share that lies within the tolerance of the true "
        "one (q); of the true one, the share within it of the answer's (r): 2 q r / (q + r). The mean "
        "over pictures, then over classes but the first. A class absent from truth and answer is not "
        "counted; absent from one, 0.",
        "Csurka et al. 2013",
        "https://doi.org/10.5244/C.27.32",
    ),
    "surface_dice": Definition(
        "Surface Dice",
        "The points of both boundaries that lie within the tolerance of the other, over all points of "
        "both.",
        "Nikolov et al. 2018",
        "https://arxiv.org/abs/1809.04430",
    ),
    "mean_distance": Definition(
        "Mean distance",
        "How far the points of each boundary lie from the nearest of the other, the mean over both "
        "(average symmetric surface distance). None where the class is in the truth or the answer "
        "alone.",
    ),
    "hd95": Definition(
        "95 % distance",
        "The 95th percentile of those distances, of the boundary that is further off (Hausdorff 95).",
    ),
    "missed": Definition(
        "Without distance",
        "Pictures where the class is in the truth alone or in the answer alone: they have no "
        "distance, and its mean hides them.",
    ),
    "objects": Definition(
        "Objects",
        "Connected parts of a class, by faces; the first class and a class called border have none. A "
        "true and an answered object are a pair if their IoU is 0.5 or more, each in one pair at "
        "most.",
    ),
    "object_f1": Definition(
        "Object F1", "Twice the pairs of IoU 0.5 or more over the objects of truth and answer."
    ),
    "mean_ap": Definition(
        "Mean AP",
        "Pairs over pairs and objects without a partner, TP / (TP + FP + FN), the mean over IoU of "
        "0.5, 0.55, ..., 0.95.",
        "Caicedo et al. 2019",
        "https://doi.org/10.1038/s41592-019-0612-7",
    ),
    "pq": Definition(
        "PQ",
        "Panoptic quality: the IoU of pairs above 0.5, added up, over pairs and half of the objects "
        "without a partner.",
        "Kirillov et al. 2019",
        "https://arxiv.org/abs/1801.00868",
    ),
    "sq": Definition("IoU of pairs", "The mean IoU of pairs above 0.5 (segmentation quality)."),
    "object_precision": Definition("Right", "Of the answered objects, the share in a pair."),
    "object_recall": Definition("Found", "Of the true objects, the share in a pair."),
    "objects_true": Definition("True", "Objects in the truth."),
    "objects_predicted": Definition("Answered", "Objects in the answer."),
    "rand": Definition(
        "Rand score",
        "Of the pairs of pixels inside true segments that are in one segment in truth or in answer "
        "(mean of the two counts), the share that is so in both; borders are thinned away first.",
        "Arganda-Carreras et al. 2015",
        "https://doi.org/10.3389/fnana.2015.00142",
    ),
    "rand_split": Definition("Split score", "1 where no true segment is cut into several."),
    "rand_merge": Definition("Merge score", "1 where no two true segments are joined."),
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
        "forgives each joint by as much as people differ in marking it: a person's OKS is the mean over "
        "labelled joints of exp(-d² / (2 area (2σ)²)), d the distance and σ the joint's spread. Here "
        "everybody is looked for in the annotated box, so that nobody can be missed.",
        "COCO keypoint evaluation",
        "https://cocodataset.org/#keypoints-eval",
    ),
    "oks_ap50": Definition(
        "OKS-AP50", "The average precision at a similarity of 0.50: a loose fit."
    ),
    "oks_ap75": Definition(
        "OKS-AP75", "The average precision at a similarity of 0.75: a close fit."
    ),
    "oks_ar": Definition(
        "OKS-AR",
        "COCO's average recall: the mean over the same thresholds of the share of people found.",
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
