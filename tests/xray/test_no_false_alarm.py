"""Fresh networks at their default initialisation get no severe finding and no warning without a law."""

from __future__ import annotations

import pytest
import torch

import residua
from residua.models.registry import list_models, records

# One network a family in every run of the tests, all of them before a release.
NAMES = list_models(task="classification")
FIRST = {
    min((n for n in NAMES if records()[n].family == family), key=lambda n: records()[n].parameters)
    for family in {records()[n].family for n in NAMES}
}
EXPLODES = (
    "plain",
)  # gradients of deep plain networks with batch norm grow by law: Yang et al. 2019


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
    alarms = [f for f in report.findings if f.severity == "severe"]
    if record.family not in EXPLODES:
        alarms += [f for f in report.findings if f.severity == "warning"]
    assert not alarms, [f"{f.check}: {f.what}" for f in alarms]
    assert not [line for line in report.not_done if "Error" in line], report.not_done
