"""Parameters and multiply-adds of every model: the record, the network itself, and the papers' tables.

The tables are written out here as lists of convolutions, in plain arithmetic that shares nothing with
the code under test.
"""

import re

import pytest
import torch
from torch import nn

from residua.models import create_model, list_models, record

# Printed by the papers, torchvision and timm, or closed forms; see docs for each source.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet200": 64_673_832,
    "plain18": 11_515_688,
    "plain34": 21_623_848,
    "resnetv2_50": 25_549_352,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "resnet1202_cifar": 19_421_274,
    "preact_resnet164_cifar": 1_703_258,
    "preact_resnet1001_cifar": 10_327_706,
}

# He et al. 2015, table 1 (and 2016b for 200): blocks in conv2_x .. conv5_x.
TABLE_1 = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def convolutions(name):
    """List (kind, in, out, kernel, output pixels) of each convolution; kind "stem", "conv", "proj"."""
    depth = int(re.search(r"\d+", name.replace("resnetv2", ""))[0])
    if name.endswith("_cifar"):
        bottleneck = depth in (164, 1001)
        stages = [
            ((depth - 2) // (9 if bottleneck else 6), 16 * 2**s, 32 // 2**s) for s in range(3)
        ]
        found = [("stem", 3, 16, 3, 32**2)]
    else:
        bottleneck = depth >= 50
        stages = [(n, 64 * 2**s, 56 // 2**s) for s, n in enumerate(TABLE_1[depth])]
        found = [("stem", 3, 64, 7, 112**2)]
    projects = not name.startswith("plain") and (bottleneck or not name.endswith("_cifar"))
    channels, side = found[0][2], stages[0][2]
    for blocks, width, out in stages:
        for _ in range(blocks):
            outer = 4 * width if bottleneck else width
            if bottleneck:
                found.append(("conv", channels, width, 1, side**2))  # the 3x3 strides
                found.append(("conv", width, width, 3, out**2))
                found.append(("conv", width, outer, 1, out**2))
            else:
                found.append(("conv", channels, width, 3, out**2))
                found.append(("conv", width, width, 3, out**2))
            if projects and outer != channels:
                found.append(("proj", channels, outer, 1, out**2))
            channels, side = outer, out
    return found


def expected(name):
    """Return (parameters, multiply-adds) of a model at its paper's size and classes."""
    if name == "resnet9_cifar":
        return resnet9()
    table = convolutions(name)
    classes = 10 if name.endswith("_cifar") else 1000
    last = table[-1][2] if table[-1][0] == "conv" else table[-2][2]
    weights = sum(cin * cout * k * k for _, cin, cout, k, _ in table) + last * classes
    if (
        "resnetv2" in name or "preact" in name
    ):  # a norm before each convolution of a branch, one last
        norms = sum(cin for kind, cin, *_ in table if kind == "conv") + last
    else:  # a norm after every convolution
        norms = sum(cout for _, _, cout, *_ in table)
    adds = sum(cin * cout * k * k * pixels for _, cin, cout, k, pixels in table) + last * classes
    return weights + 2 * norms + classes, adds


def resnet9():
    """Eight 3x3 convolutions and a linear layer without bias (Page 2018)."""
    table = [
        (3, 64, 32),
        (64, 128, 32),
        (128, 128, 16),
        (128, 128, 16),
        (128, 256, 16),
        (256, 512, 8),
        (512, 512, 4),
        (512, 512, 4),
    ]
    weights = sum(9 * cin * cout for cin, cout, _ in table) + 512 * 10
    norms = 2 * sum(cout for _, cout, _ in table)
    return weights + norms, sum(9 * i * o * s * s for i, o, s in table) + 512 * 10


def measured(name):
    """Count parameters, and multiply-adds by running the model on a picture without contents."""
    adds = 0

    def count(layer, inputs, output):
        nonlocal adds
        adds += layer.weight.numel() * (output.shape[2:].numel() if output.dim() == 4 else 1)

    with torch.device("meta"):
        model = create_model(name).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        model(torch.empty(1, 3, record(name).input_size, record(name).input_size))
    return sum(p.numel() for p in model.parameters()), adds


@pytest.mark.parametrize("name", list_models())
def test_the_record_the_network_and_the_papers_table_agree(name):
    known = record(name)
    assert (known.parameters, known.multiply_adds) == expected(name)
    assert (known.parameters, known.multiply_adds) == measured(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_record_is_the_published_count(name):
    assert record(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("n", [3, 5, 7, 9, 18, 200])
def test_option_a_networks_for_small_pictures_follow_the_formula_in_n(n):
    def stage(cin, w):
        return 9 * cin * w + (2 * n - 1) * 9 * w * w

    norms = 2 * (16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n)
    count = 9 * 3 * 16 + stage(16, 16) + stage(16, 32) + stage(32, 64) + norms + 64 * 10 + 10
    depth = 6 * n + 2
    assert record(f"resnet{depth}_cifar").parameters == count
    assert record(f"preact_resnet{depth}_cifar").parameters == count
    if n <= 18:
        assert record(f"plain{depth}_cifar").parameters == count


@pytest.mark.parametrize("name", ["resnet50", "resnetv2_50", "preact_resnet164_cifar"])
def test_where_the_stride_sits_changes_no_parameter_but_the_work(name):
    with torch.device("meta"):
        three, one = create_model(name), create_model(name, stride_on="1x1")
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (three, one)]
    assert shapes[0] == shapes[1]
    assert [m.stride for m in three.modules() if isinstance(m, nn.Conv2d)] != [
        m.stride for m in one.modules() if isinstance(m, nn.Conv2d)
    ]
