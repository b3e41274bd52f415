"""PyramidNets: how wide each block is, what its shortcut carries, what drops."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, record
from residua.models.pyramidnet import pyramidnet, width
from residua.nn.norms import is_norm
from residua.nn.regularisers import RandomDrop, ResDrop, SeparatedDrop, ShakeDrop, StochasticDepth
from residua.nn.skip import Skip

# Channels after the last block: the table in the authors' repository. Parameters: the table of imgclsmob,
# another implementation, published with its trained weights; the authors print 0.7 % (and 4 %, rounded) less.
PUBLISHED = {
    "pyramidnet110_a48_cifar": (64, 1_772_706, 1.7),
    "pyramidnet110_a84_cifar": (100, 3_904_446, 3.8),
    "pyramidnet110_a270_cifar": (286, 28_485_477, 28.3),
    "pyramidnet164_a270_cifar": (1144, 27_216_021, 27.0),
    "pyramidnet272_a200_cifar": (864, 26_210_842, 26.0),
}


def small(bottleneck=False, **options):
    """Three blocks a stage, 12 channels added in all; three classes, one input channel."""
    torch.manual_seed(0)
    depth = 29 if bottleneck else 20
    return pyramidnet(
        depth=depth, alpha=12, bottleneck=bottleneck, num_classes=3, in_channels=1, **options
    )


def skips(model):
    return [m for m in model.modules() if isinstance(m, Skip)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_last_channels_are_as_published(name):
    channels, parameters, millions = PUBLISHED[name]
    with torch.device("meta"):
        model = create_model(name)
    assert model.stage_channels[-1] == channels
    assert record(name).parameters == parameters
    assert parameters / 1e6 == pytest.approx(millions, rel=0.05)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_channels_grow_evenly_and_are_rounded_to_the_nearest(alpha, blocks, data):
    block = data.draw(st.integers(1, blocks))
    exact = 16 + Fraction(alpha * block, blocks)
    assert width(alpha, block, blocks) == math.floor(exact + Fraction(1, 2))
    assert width(alpha, blocks, blocks) == 16 + alpha
    assert width(alpha, 0, blocks) == 16


@pytest.mark.parametrize("name", ["pyramidnet110_a84_cifar", "pyramidnet272_a200_cifar"])
def test_every_block_widens_and_has_norms_at_both_ends_and_one_relu_less_than_norms_inside(name):
    with torch.device("meta"):
        model = create_model(name)
    alpha = int(name.split("_a")[1].split("_")[0])
    bottleneck = "272" in name
    blocks = skips(model)
    assert len(blocks) * (3 if bottleneck else 2) + 2 == record(name).preset["depth"]
    for k, skip in enumerate(blocks, start=1):
        outer = width(alpha, k, len(blocks)) * (4 if bottleneck else 1)
        kinds = [type(m) for m in skip.branch]
        inner = [nn.ReLU, nn.Conv2d, nn.BatchNorm2d] * (2 if bottleneck else 1)
        assert kinds == [nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d, *inner]
        assert skip.branch[-1].num_features == outer


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 4), (7, 3)])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_shortcut_averages_what_pixels_there_are_and_adds_channels_of_zeros(bottleneck, size):
    block = small(bottleneck).double().stages[1][0]
    channels = block.branch[0].num_features
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    y = block.shortcut(x)
    assert y.shape == block.branch(x).shape
    assert y.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            torch.testing.assert_close(y[:, :channels, i, j], window.mean((2, 3)))
    assert y.shape[1] > channels
    assert not y[:, channels:].any()


def test_a_zero_padded_shortcut_lets_the_gradient_through():
    for block in (small().stages[0][0], small().stages[1][0]):
        x = torch.randn(1, block.branch[0].num_features, 4, 4, requires_grad=True)
        block.shortcut(x).sum().backward()
        assert x.grad.min() > 0


@torch.no_grad()
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (17, 20)])
def test_any_size_gives_scores_and_maps_that_halve_rounding_up(size, bottleneck):
    model = small(bottleneck).eval()
    x = torch.randn(3, 1, *size)
    assert model(x).shape == (3, 3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))
    body = small(bottleneck, features_only=True).eval()
    maps = body(x)
    wide = [20, 24, 28]
    assert list(body.stage_channels) == [w * (4 if bottleneck else 1) for w in wide]
    for i, (found, channels) in enumerate(zip(maps, body.stage_channels, strict=True)):
        assert found.shape == (3, channels, *(-(-side // 2**i) for side in size))
    assert maps[-1].min() >= 0  # after the last norm and ReLU


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("options", [{}, {"norm": "none"}, {"norm": "group"}])
def test_gradient_reaches_every_parameter(bottleneck, options):
    model = small(bottleneck, **options).double().train()
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    (model(x) * torch.randn(2, 3)).sum().backward()
    dead = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@torch.no_grad()
def test_without_drop_training_and_evaluation_differ_in_the_norms_only():
    model = small().double().eval()
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    evaluated = model(x)
    model.train()
    for layer in model.modules():
        if is_norm(layer):
            layer.eval()
    assert torch.equal(model(x), evaluated)


DROPS = {
    "shake_drop": ShakeDrop,
    "stochastic_depth": StochasticDepth,
    "random_drop": RandomDrop,
    "res_drop": ResDrop,
    "separated_drop": SeparatedDrop,
}


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_a_drop_ends_every_branch_and_survival_is_as_published(drop, decay):
    model, usual = small(stochastic_depth=0.5, drop=drop, drop_decay=decay), small()
    found = [skip.branch.drop for skip in skips(model)]
    assert {type(layer) for layer in found} == {DROPS[drop]}
    expected = [1 - 0.5 * (k / 9 if decay == "linear" else 1) for k in range(1, 10)]
    assert [layer.survival for layer in found] == pytest.approx(expected)
    assert list(model.state_dict()) == list(usual.state_dict())


def test_shake_drop_is_the_default_and_separated_drop_knows_the_shortcuts_channels():
    shaken = skips(small(stochastic_depth=0.5, drop_per="pixel"))
    assert {(type(s.branch.drop), s.branch.drop.per) for s in shaken} == {(ShakeDrop, "pixel")}
    for skip in skips(small(stochastic_depth=0.5, drop="separated_drop")):
        assert skip.branch.drop.channels == skip.branch[0].num_features
    assert not any(hasattr(skip.branch, "drop") for skip in skips(small()))


@torch.no_grad()
@pytest.mark.parametrize("bottleneck", [False, True])
def test_zero_init_last_starts_every_block_as_its_shortcut(bottleneck):
    model = small(bottleneck, zero_init_last=True, stochastic_depth=0.5).eval()
    silent = []
    for skip in skips(model):
        skip.branch.register_forward_hook(lambda m, i, y: silent.append(not y.any()))
    model(torch.randn(1, 1, 8, 8))
    assert silent == [True] * 9


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("norm", ["group", "none"])
def test_another_norm_takes_the_place_of_every_batch_norm(norm, bottleneck):
    usual, other = small(bottleneck), small(bottleneck, norm=norm)
    count = sum(is_norm(m) for m in usual.modules())
    assert count == 2 + 9 * (4 if bottleneck else 3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in other.modules())
    assert sum(is_norm(m) for m in other.modules()) == (0 if norm == "none" else count)
    assert other.eval()(torch.randn(1, 1, 5, 5)).isfinite().all()


@pytest.mark.parametrize("drop", DROPS)
def test_it_learns_in_every_block_under_every_drop(drop):
    model = small(stochastic_depth=0.3, drop=drop).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, labels = torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    start = {k: p.detach().clone() for k, p in model.named_parameters()}
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert not any(torch.equal(p, start[k]) for k, p in model.named_parameters())


@pytest.mark.parametrize(
    "options, says",
    [
        ({"stochastic_depth": 1.0}, "stochastic_depth 1.0 is not in [0, 1)"),
        ({"drop": "shake"}, "drop 'shake' is unknown: expected one of stochastic_depth, "),
        ({"drop_per": "image"}, "drop_per 'image' is unknown: expected one of batch, sample, chan"),
        ({"drop_decay": "cosine"}, "drop_decay 'cosine' is unknown: expected one of linear, const"),
        ({"norm": "grup"}, "norm 'grup' is unknown"),
        ({"alpha": 90}, "unknown option 'alpha'"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(options, says):
    with pytest.raises(BadInput) as raised:
        create_model("pyramidnet110_a48_cifar", **options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
