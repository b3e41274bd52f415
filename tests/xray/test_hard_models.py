"""Models that break other tools: the x-ray of each is right, or says one clear line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import residua
from residua.errors import BadInput
from residua.xray import XrayReport
from tests.xray.foreign import (
    FunctionalNet,
    HandwrittenHighway,
    Inception,
    ListDense,
    TinyUNet,
    Transformer,
)

PICTURES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Shared(nn.Module):
    """One layer used three times, with a functional norm, dropout and a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            y = self.drop(F.layer_norm(torch.tanh_(self.layer(x)), (6,)))
            y += x
            x = y
        return x


class ByData(nn.Module):
    """As many steps as the data ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(1 + int(x.abs().sum() > 0)):
            x = x + 0.1 * F.gelu(self.layer(x))
        return x


class Outputs(nn.Module):
    """A mapping of a tuple and a list, one part of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FunctionalNet()

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        y = self.net(x)
        return {"logits": (y,), "labels": [y.argmax(1)]}


MODELS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, int]] = {
    "functional norms, a reused ReLU, sums in place": (FunctionalNet, PICTURES, 3),
    "maps in a list": (ListDense, PICTURES, 3),
    "attention": (Transformer, PICTURES, 4),
    "gates written out": (HandwrittenHighway, VECTORS, 3),
    "no residual at all": (Inception, PICTURES, 0),
    "down and up": (TinyUNet, PICTURES, 2),
    "shared weights and dropout": (Shared, VECTORS, 3),
    "control flow on data": (ByData, VECTORS, 2),
    "outputs in a mapping": (Outputs, PICTURES, 3),
    "double precision": (lambda: FunctionalNet().double(), PICTURES.double(), 3),
    "bfloat16": (lambda: FunctionalNet().bfloat16(), PICTURES.bfloat16(), 3),
    "float16": (lambda: FunctionalNet().half(), PICTURES.half(), 3),
    "DataParallel": (lambda: nn.DataParallel(FunctionalNet()), PICTURES, 3),
    "compiled": (lambda: torch.compile(FunctionalNet()), PICTURES, 3),  # type: ignore[dict-item]
    "one linear layer": (lambda: nn.Linear(6, 2), VECTORS, 0),
    "no parameters": (lambda: nn.ReLU(), VECTORS, 0),
}


@pytest.mark.parametrize("what", MODELS)
@pytest.mark.parametrize("effort", ["quick", "normal"])
def test_the_x_ray_is_done_or_says_why_not(what: str, effort: str) -> None:
    torch.manual_seed(0)
    make, x, units = MODELS[what]
    report: XrayReport = residua.xray(make(), x, effort=effort)
    assert len(report.units) == units
    assert units or any("no addition or concatenation" in line for line in report.not_done)
    for line in report.not_done:
        assert "\n" not in line and "internal" not in line, line
    str(report)
    assert report.as_json()


def test_a_model_that_fails_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"does not run on this batch: RuntimeError"):
        residua.xray(FunctionalNet(), torch.randn(2, 1, 8, 8))


def test_nan_in_the_batch_is_said_and_not_hidden() -> None:
    x = PICTURES.clone()
    x[0, 0, 0, 0] = float("nan")
    try:
        report = residua.xray(FunctionalNet(), x, effort="quick")
    except BadInput as error:
        assert "finite" in str(error)
        return
    said = " ".join([*report.not_done, *report.notes, *(f.what for f in report.findings)]).lower()
    assert "nan" in said or "finite" in said or "no numbers" in said


@pytest.mark.slow
def test_a_thousand_units() -> None:
    model = residua.create_model("stable_resnet2002_cifar", num_classes=10)
    report = residua.xray(model, torch.randn(2, 3, 16, 16), effort="quick")
    assert len(report.units) == 1000
