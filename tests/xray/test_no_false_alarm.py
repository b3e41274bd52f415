"""Fresh networks at their default initialisation get no severe finding and no warning without a law."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

import residua
from residua.cli.examples import choose_examples
from residua.cli.targets import open_target
from residua.models.registry import Record, list_models, records
from residua.xray import XrayReport

# One network a family in every run of the tests, all of them before a release.
NAMES = list_models(task="classification")
FIRST = {
    min((n for n in NAMES if records()[n].family == family), key=lambda n: records()[n].parameters)
    for family in {records()[n].family for n in NAMES}
}
BAD = ("severe", "warning")
EXPLODES = (
    "plain",
)  # gradients of deep plain networks with batch norm grow by law: Yang et al. 2019


def assert_healthy(report: XrayReport, bad: Sequence[str] = BAD) -> None:
    """Find nothing wrong, and nothing that could not be done."""
    alarms = [f for f in report.findings if f.severity in bad]
    assert not alarms, [f"{f.check}: {f.what}" for f in alarms]
    assert not [line for line in report.not_done if "Error" in line], report.not_done


@pytest.mark.parametrize(
    "name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_a_fresh_network_is_healthy(name: str) -> None:
    record = records()[name]
    torch.manual_seed(0)
    model = residua.create_model(name)
    side = max(record.smallest, 32)
    x = torch.randn(4, 3, side, side)
    report = residua.xray(model, x, torch.arange(4) % record.num_classes, effort="quick")
    assert_healthy(report, bad=("severe",) if record.family in EXPLODES else BAD)


# -- an answer a pixel ---------------------------------------------------------------------------------------

DENSE = [*list_models(task="segmentation"), *list_models(task="pose")]
LIGHT = {"encoder_unet", "resnet18_fpn", "unet1d", "unet3d", "unetpp", "hourglass1", "hourglass2"}


def side_of(record: Record) -> int:
    """Return a small side at which no map but an hourglass's last is a single pixel."""
    return max(record.smallest, 32 if record.dims == 3 else 64)


@pytest.mark.parametrize(
    "name", [n if n in LIGHT else pytest.param(n, marks=pytest.mark.slow) for n in DENSE]
)
def test_a_fresh_network_with_an_answer_a_pixel_is_healthy(name: str) -> None:
    record = records()[name]
    opened = open_target(name, shape=(3, *(side_of(record),) * record.dims))
    samples = 4 if record.smallest == 1 else 2  # valid convolutions need large pictures
    examples = choose_examples(opened, samples, None, 0, torch.device("cpu"), 1)
    report = residua.xray(
        opened.model, examples.inputs[0], examples.targets, examples.loss, effort="quick"
    )
    assert examples.loss is not None and not report.no_units
    assert_healthy(report)
