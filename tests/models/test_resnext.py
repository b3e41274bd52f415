"""ResNeXt: published counts, equal cost at every cardinality, and the networks of each name."""

import re

import pytest
import torch
from torch import nn

from residua.models import create_model, list_models, record

# as torchvision counts them; 101_32x4d as timm does
PUBLISHED = {
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
}
MILLIONS = {"resnext29_8x64d_cifar": 34.4, "resnext29_16x64d_cifar": 68.1}  # the paper's table 7


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_counts_for_small_pictures_are_those_of_the_papers_table(name):
    # The paper prints 68.1 for 68.155: cut, not rounded.
    assert int(record(name).parameters / 1e5) / 10 == MILLIONS[name]


@pytest.mark.parametrize("depth", [50, 101])
def test_networks_of_tables_2_and_3_cost_what_the_resnet_costs(depth):
    resnet = record(f"resnet{depth}")
    for width in ("2x40d", "4x24d", "8x14d", "32x4d"):
        found = record(f"resnext{depth}_{width}")
        assert found.parameters == pytest.approx(resnet.parameters, rel=0.025)
        assert found.multiply_adds == pytest.approx(resnet.multiply_adds, rel=0.05)
    for width in ("2x64d", "64x4d") if depth == 101 else ():
        found = record(f"resnext{depth}_{width}")
        assert found.multiply_adds == pytest.approx(2 * resnet.multiply_adds, rel=0.05)


@pytest.mark.parametrize("name", list_models("*resnext*_*d*", task="classification"))
def test_the_name_says_depth_cardinality_and_width(name):
    depth, cardinality, width = map(int, re.search(r"(\d+)[dt]?_(\d+)x(\d+)d", name).groups())
    with torch.device("meta"):
        model = create_model(name)
    small = name.endswith("_cifar")
    blocks = [block.skip.branch for stage in model.stages for block in stage]
    assert 3 * len(blocks) + 2 == (203 if depth == 201 else depth)  # timm's name counts short
    inner = [stage[0].skip.branch.conv2 for stage in model.stages]
    assert [c.groups for c in inner] == [cardinality] * len(inner)
    assert [c.out_channels // c.groups for c in inner] == [width * 2**s for s in range(len(inner))]
    assert model.stage_channels == ((256, 512, 1024) if small else (256, 512, 1024, 2048))
    convolutions = [m for m in model.stem if isinstance(m, nn.Conv2d)]
    assert convolutions[-1].out_channels == (128 if depth == 201 else 64)
    firsts = [stage[0].skip.branch for stage in model.stages]
    strides = [2 if hasattr(first, "pool") else first.conv2.stride[0] for first in firsts]
    assert strides == [1] + [2] * (len(strides) - 1)


def test_each_path_sees_its_own_channels_of_the_first_convolution_only():
    torch.manual_seed(0)
    branch = create_model("resnext50_32x4d").stages[0][0].skip.branch.double()
    convolution = branch.conv2
    assert isinstance(convolution, nn.Conv2d)
    x = torch.randn(1, 128, 6, 6, dtype=torch.float64, requires_grad=True)
    convolution(x)[:, 4:8].sum().backward()  # the second of 32 paths, 4 channels wide
    seen = x.grad.abs().sum((0, 2, 3)) > 0
    assert seen.nonzero().flatten().tolist() == [4, 5, 6, 7]
