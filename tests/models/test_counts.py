"""Parameters and multiply-adds of every model: the record, the network itself, and independent arithmetic.

`counts/` has a file a family that computes them from the papers' tables, in plain arithmetic that shares
nothing with the code under test; published counts and closed forms are below.
"""

import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from residua.models import create_model, list_models, record
from residua.nn import BlockOptions, BottleneckBlock, Preactivation, make_norm

FILES = sorted((Path(__file__).parent / "counts").glob("*.py"))
FOUND = [(name, *both) for file in FILES for name, both in runpy.run_path(file)["COUNTS"].items()]
COUNTS = {name: tuple(both) for name, *both in FOUND}

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
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet110_cifar": 1_727_962,
    "resnet1202_cifar": 19_421_274,
    "preact_resnet164_cifar": 1_703_258,
    "preact_resnet1001_cifar": 10_327_706,
    "wrn28_10_cifar": 36_479_194,
    "densenet_bc100_12_cifar": 769_162,
}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def measured(name):
    """Count parameters, and multiply-adds by running the model on a picture without contents.

    A convolution's weight holds what each output pixel costs, also where it is grouped; that of a
    transposed convolution what each input pixel costs.
    """
    adds = 0

    def count(layer, inputs, output):
        nonlocal adds
        places = inputs[0] if isinstance(layer, _ConvTransposeNd) else output
        sides = places.shape[1:-1] if isinstance(layer, nn.Linear) else places.shape[2:]
        adds += layer.weight.numel() * sides.numel()

    with torch.device("meta"):
        model = create_model(name).eval()
        for layer in model.modules():
            if isinstance(layer, _ConvNd | nn.Linear):
                layer.register_forward_hook(count)
        model(torch.empty(1, 3, *[record(name).input_size] * record(name).dims))
    return parameters(model), adds


def test_every_model_is_counted_once_and_nothing_else_is():
    missing = sorted(set(list_models()) - set(COUNTS))
    unknown = sorted(set(COUNTS) - set(list_models()))
    twice = [name for name, n in Counter(name for name, *_ in FOUND).items() if n > 1]
    assert (missing, unknown, twice) == ([], [], []), "tests/models/counts: a file a family"


@pytest.mark.parametrize("name", list_models())
def test_the_record_the_network_and_the_papers_table_agree(name):
    if name not in COUNTS:
        pytest.fail(f"{name} has no independent count: put one into a file in {FILES[0].parent}")
    known = record(name)
    assert (known.parameters, known.multiply_adds) == COUNTS[name]
    assert measured(name) == COUNTS[name]


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


# -- the textbook's closed forms (Prince, Understanding Deep Learning, chapter 11), with our parts --------


def test_ten_fully_connected_layers_of_20_units_have_3841_parameters_and_4241_with_norms():
    def network(norms):
        layers, width = [], 1
        for _ in range(10):
            layers += [nn.Linear(width, 20), *([nn.BatchNorm1d(20)] if norms else [])]
            width = 20
        return nn.Sequential(*layers, nn.Linear(20, 1))

    closed = 2 * 20 + 9 * (20 * 20 + 20) + 20 + 1
    assert parameters(network(norms=False)) == closed == 3_841
    assert parameters(network(norms=True)) == closed + 10 * 2 * 20 == 4_241


def test_a_pre_activated_3x3_convolution_of_512_channels_has_2359808_parameters():
    norm = make_norm("batch")
    conv = norm.conv(512, 512, 3, bias=True)
    assert parameters(conv) == 9 * 512**2 + 512 == 2_359_808
    assert parameters(nn.Sequential(Preactivation(512, norm), conv)) == 2_359_808 + 1_024


def test_a_pre_activated_bottleneck_of_512_128_512_has_279296_parameters():
    norm = make_norm("batch")
    shapes = ((512, 128, 1), (128, 128, 3), (128, 512, 1))
    closed = 512 * 128 + 128 + 9 * 128**2 + 128 + 128 * 512 + 512
    biased = [norm.conv(*shape, bias=True) for shape in shapes]
    assert sum(map(parameters, biased)) == closed == 279_296
    assert sum(parameters(Preactivation(conv.in_channels, norm)) for conv in biased) == 1_536
    # Our block's convolutions have no biases where norms are.
    block = BottleneckBlock(512, 128, 1, BlockOptions(norm=norm, order="preactivation"))
    assert parameters(block) == closed - (128 + 128 + 512) + 1_536
