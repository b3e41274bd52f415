"""SE networks: published counts, the gain of each channel, and where in the block it stands."""

import pytest
import torch
from torch import nn

from residua.models import create_model, record
from residua.nn import SqueezeExcitation

# as timm counts them
PUBLISHED = {
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "seresnext101_32x8d": 93_569_048,
    "seresnext101_64x4d": 88_232_984,
}


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


def test_every_block_has_one_and_its_inner_layer_is_a_sixteenth_to_the_nearest_8():
    inner = {}
    for name in ("seresnet18", "seresnet50"):
        with torch.device("meta"):
            model = create_model(name)
        for block in (block for stage in model.stages for block in stage):
            (gate,) = (m for m in block.modules() if isinstance(m, SqueezeExcitation))
            inner[gate.fc1.in_channels] = gate.fc1.out_channels
    assert inner == {64: 8, 128: 8, 256: 16, 512: 32, 1024: 64, 2048: 128}


@torch.no_grad()
def test_a_block_adds_its_branch_times_a_gain_that_sees_the_mean_of_every_channel():
    torch.manual_seed(0)
    block = create_model("seresnet18").stages[1][1].skip.double().eval()
    x = pictures(3, 128, 5, 4)
    gate = block.branch.attention
    before = block.branch[: list(dict(block.branch.named_children())).index("attention")]
    f = before(x)
    assert type(before[-1]) is nn.BatchNorm2d  # no ReLU between it and the gain
    w1, w2 = (fc.weight[:, :, 0, 0] for fc in (gate.fc1, gate.fc2))
    gate.fc1.bias.copy_(pictures(8))
    gate.fc2.bias.copy_(pictures(128))
    z = f.sum((2, 3)) / 20  # equation 2
    s = 1 / (1 + torch.exp(-((z @ w1.T + gate.fc1.bias).clamp_min(0) @ w2.T + gate.fc2.bias)))
    y = (x + s[:, :, None, None] * f).clamp_min(0)  # equations 3 and 4, figure 3
    torch.testing.assert_close(block(x), y)
    assert s.std() > 0.1
