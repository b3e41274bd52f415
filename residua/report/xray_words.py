"""What the words on an x-ray's page mean."""

from __future__ import annotations

from residua.report.words import Definition

XRAY_DEFINITIONS: dict[str, Definition] = {
    "severity": Definition(
        "Severity",
        "Severe: the network will not train, or its result is wrong. Warning: it costs accuracy or"
        " speed. Note: worth knowing.",
    ),
    "confidence": Definition(
        "Confidence",
        "How sure the verdict is. High: the measured interval lies clear of what the law allows.",
    ),
    "evidence": Definition(
        "Evidence",
        "A number measured on this network, beside what a law expects of a healthy one.",
    ),
    "measured": Definition("Measured", "The number as it is in this network, on this batch."),
    "interval": Definition(
        "95 % interval",
        "Where the measured number would lie in 95 of 100 repetitions, over the batches, seeds or"
        " units that are named beside it.",
    ),
    "expected": Definition(
        "Law",
        "What the equation named beside it gives. Without a number the law is a bound.",
    ),
    "remedy": Definition(
        "Remedy",
        "What to change. Where the remedy has a name, residua.prescribe(model, name) applies it.",
    ),
    "change": Definition(
        "Measured change",
        "The remedy was applied to a copy of this very network and the quantity measured again, with"
        " the same batch and seed.",
    ),
    "unit": Definition(
        "Residual unit",
        "y = merge(shortcut(x), branch(x)): a branch of layers, a way around it, and where they meet.",
        "He et al. 2015, equation 1",
        "https://arxiv.org/abs/1512.03385",
    ),
    "stage": Definition(
        "Stage", "Units in a row that work at the same resolution, counted from 0."
    ),
    "paths": Definition(
        "Paths",
        "A signal takes either side at every unit, so K units in a row make 2^K ways from input to"
        " output; a path's length is the number of branches on it.",
        "Veit et al. 2016",
        "https://arxiv.org/abs/1605.06431",
    ),
    "parameters": Definition("Parameters", "The numbers that training adjusts."),
    "batch": Definition(
        "Batch", "What the network was run on: shapes, the number of samples first."
    ),
    "pictures": Definition("Inputs", "Where the batch came from."),
    "targets": Definition(
        "Targets",
        "What the loss compares the output with. Drawn at random, they stand for a task that the network"
        " has yet to learn.",
    ),
    "outputs": Definition("Output", "Shapes of what the network gave for the batch."),
    "gradient_of": Definition(
        "Gradients of",
        "The number whose gradients are examined. Without targets it is the sum of the output times"
        " random signs, which are the same in every analysis.",
    ),
    "effort": Definition(
        "Effort",
        "Normal runs every analysis and tries the remedies on a copy; quick runs the cheap ones.",
    ),
    "seed": Definition("Seed", "Decides everything that is drawn at random."),
}
