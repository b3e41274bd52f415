"""Wide residual networks: published counts, what comes before the fork, and where the dropout is."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.models import create_model, list_models, record

PUBLISHED = {  # as torchvision counts them; WRN-28-10 of the authors' code
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "wrn28_10_cifar": 36_479_194,
}
MILLIONS = {  # the paper's tables 4 and 5
    "wrn40_1_cifar": 0.6,
    "wrn40_2_cifar": 2.2,
    "wrn40_4_cifar": 8.9,
    "wrn40_8_cifar": 35.7,
    "wrn28_10_cifar": 36.5,
    "wrn28_12_cifar": 52.5,
    "wrn22_8_cifar": 17.2,
    "wrn16_8_cifar": 11.0,
}


def built(name, **options):
    torch.manual_seed(0)
    return create_model(name, **options).double()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_counts_are_those_of_the_papers_tables(name):
    assert round(record(name).parameters / 1e6, 1) == MILLIONS[name]


@pytest.mark.parametrize("name", list_models("wrn*"))
def test_the_name_says_depth_and_width(name):
    depth, k = map(int, re.findall(r"\d+", name))
    with torch.device("meta"):
        model = create_model(name)
    layers = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    # the stem, the blocks' convolutions and the three projections; at k = 1 the first is an identity
    assert layers == depth - (k == 1)
    assert model.stem.conv.out_channels == 16
    assert model.stage_channels == (16 * k, 32 * k, 64 * k)


@torch.no_grad()
def test_the_first_block_activates_before_the_fork_although_it_does_not_stride():
    stage = built("wrn16_4_cifar").eval().stages[0]
    norm = stage[0].fork.norm
    norm.running_mean.copy_(pictures(16))
    x = pictures(2, 16, 6, 6)
    a = F.relu((x - norm.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5)
    branch, shortcut = stage[0].skip.branch, stage[0].skip.shortcut
    f = F.conv2d(a, branch.conv1.weight, padding=1)
    f = F.conv2d(F.relu(f / (1 + 1e-5) ** 0.5), branch.conv2.weight, padding=1)
    y = F.conv2d(a, shortcut.conv.weight) + f
    torch.testing.assert_close(stage[0](x), y)
    assert not hasattr(stage[1], "fork")
    assert not hasattr(built("wrn40_1_cifar").stages[0][0], "fork")  # 16 -> 16: the identity


def test_dropout_acts_on_the_activation_between_the_convolutions_of_every_block():
    model = built("wrn16_4_cifar", dropout=0.3)
    blocks = [block.skip.branch for stage in model.stages for block in stage]
    for branch in blocks:
        names = list(dict(branch.named_children()))
        assert names[-4:] == ["conv1", "pre2", "dropout", "conv2"]
        assert branch.dropout.p == 0.3
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == len(blocks)
    seen = []
    blocks[0].conv2.register_forward_pre_hook(lambda layer, x: seen.append(x[0]))
    model(pictures(8, 3, 16, 16))
    model.eval()(pictures(8, 3, 16, 16))
    dropped, whole = ((x == 0).double().mean().item() for x in seen)
    assert dropped == pytest.approx(1 - 0.7 * (1 - whole), abs=0.06)  # of what a ReLU leaves over


@torch.no_grad()
def test_dropout_changes_neither_the_evaluation_nor_the_state():
    x = pictures(2, 3, 16, 16)
    plain, dropped = built("wrn16_4_cifar").eval(), built("wrn16_4_cifar", dropout=0.3).eval()
    assert list(plain.state_dict()) == list(dropped.state_dict())
    assert torch.equal(plain(x), dropped(x))


def test_the_224_pixel_networks_are_wide_inside_only():
    with torch.device("meta"):
        wide, usual = create_model("wide_resnet50_2"), create_model("resnet50")
    assert wide.stage_channels == usual.stage_channels
    for a, b in zip(wide.stages, usual.stages, strict=True):
        inner = [stage[0].skip.branch.conv2.out_channels for stage in (a, b)]
        assert inner[0] == 2 * inner[1]
