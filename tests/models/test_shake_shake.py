"""Shake-Shake networks: their shortcut, the rows of the paper's table as options, what training draws."""

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, record
from residua.models.shake_shake import TwoPaths, shake_shake
from residua.nn.norms import is_norm, make_norm
from residua.nn.recompute import Recomputed
from residua.nn.skip import Skip

WIDTHS = (32, 64, 96)


def small(**options):
    """The network with four channels in its first stage, three classes, one input channel."""
    torch.manual_seed(0)
    return shake_shake(width=4, num_classes=3, in_channels=1, **options)


def test_parameters_are_those_that_others_count_and_print():
    # 26 2x32d: the table of imgclsmob, another implementation, trained and published with its weights
    assert record("shake_shake26_2x32d_cifar").parameters == 2_923_162
    millions = [record(f"shake_shake26_2x{w}d_cifar").parameters / 1e6 for w in WIDTHS]
    assert millions == pytest.approx([2.9, 11.7, 26.2], abs=0.05)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_way_through_is_26_layers_deep(width):
    with torch.device("meta"):
        model = create_model(f"shake_shake26_2x{width}d_cifar")
    skips = [m for m in model.modules() if isinstance(m, Skip)]
    for skip in skips:
        assert len(skip.branch.paths) == 2
        for path in skip.branch.paths:
            convolutions = [m for m in path if isinstance(m, nn.Conv2d)]
            assert [c.kernel_size for c in convolutions] == [(3, 3), (3, 3)]
    assert 1 + 2 * len(skips) + 1 == 26
    assert model.stage_channels == (width, 2 * width, 4 * width)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (6, 7)])
def test_the_shortcuts_two_paths_see_pixels_one_apart(size, stride):
    torch.manual_seed(0)
    shortcut = TwoPaths(3, 5, stride, make_norm("none")).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    y = shortcut(x)
    assert y.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    zero = torch.zeros(2, 3, dtype=torch.float64)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            r, c = i * stride, j * stride
            there = x[:, :, r, c].relu()
            before = x[:, :, r - 1, c - 1].relu() if r > 0 and c > 0 else zero
            for path, conv, pixel in (
                (y[:, :2], shortcut.conv1, there),
                (y[:, 2:], shortcut.conv2, before),
            ):
                expected = pixel @ conv.weight[:, :, 0, 0].T + conv.bias
                torch.testing.assert_close(path[:, :, i, j], expected)


def test_only_blocks_that_change_the_channels_have_a_shortcut_of_weights():
    kinds = [type(m.shortcut) for m in small().modules() if isinstance(m, Skip)]
    assert kinds == [TwoPaths, *[nn.Identity] * 3] * 3


@torch.no_grad()
def test_the_shortcut_carries_the_input_as_it_was_before_the_branches_rectify_it():
    x = torch.randn(1, 4, 3, 3)
    block = small().eval().stages[0][1]
    kept = x.clone()
    y = block(x)
    f1, f2 = (path(kept) for path in block.branch.paths)
    torch.testing.assert_close(y, kept + 0.5 * f1 + 0.5 * f2)
    assert torch.equal(x, kept)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (17, 20)])
def test_any_size_gives_scores_and_maps_that_halve_rounding_up(size):
    model = small().eval()
    x = torch.randn(3, 1, *size)
    assert model(x).shape == (3, 3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))
    maps = small(features_only=True).eval()(x)
    for i, (found, channels) in enumerate(zip(maps, (4, 8, 16), strict=True)):
        assert found.shape == (3, channels, *(-(-side // 2**i) for side in size))
    assert maps[-1].min() >= 0  # the last one is rectified, the others are not
    assert maps[0].min() < 0


def frozen(model):
    """Return the model in training, but for its norms."""
    model.train()
    for layer in model.modules():
        if is_norm(layer):
            layer.eval()
    return model


@torch.no_grad()
@pytest.mark.parametrize("level", ["batch", "image"])
@pytest.mark.parametrize("forward, backward", [("even", "even"), ("even", "shake")])
def test_even_forward_computes_in_training_what_it_computes_in_evaluation(forward, backward, level):
    model = small(forward=forward, backward=backward, level=level).double().eval()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    evaluated = model(x)
    torch.testing.assert_close(frozen(model)(x), evaluated)


@torch.no_grad()
@pytest.mark.parametrize("level", ["batch", "image"])
@pytest.mark.parametrize("backward", ["even", "shake", "keep"])
def test_shake_forward_draws_in_training_and_the_seed_decides_what(backward, level):
    model = frozen(small(backward=backward, level=level).double())
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64).expand(2, -1, -1, -1)
    torch.manual_seed(1)
    first, second = model(x), model(x)
    torch.manual_seed(1)
    assert torch.equal(model(x), first)
    assert not torch.allclose(first, second)
    # The same picture twice: the same score only where both have one draw.
    assert torch.allclose(first[0], first[1]) == (level == "batch")


def test_recomputed_blocks_give_the_same_gradients_and_statistics_to_the_bit():
    plain, again = small().train(), small().train()
    again.stages = Recomputed(*again.stages, every=2)
    x, found = torch.randn(2, 1, 9, 9), []
    for model in (plain, again):
        torch.manual_seed(4)
        (model(x) ** 2).sum().backward()
        found.append([p.grad for p in model.parameters()] + list(model.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_gradient_reaches_every_parameter():
    model = small().double().train()
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    (model(x) * torch.randn(2, 3)).sum().backward()
    dead = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@torch.no_grad()
def test_zero_init_last_starts_every_block_as_its_shortcut():
    model = small(zero_init_last=True).eval()
    silent = []
    for skip in (m for m in model.modules() if isinstance(m, Skip)):
        skip.branch.register_forward_hook(lambda m, i, y: silent.append(not y.any()))
    model(torch.randn(1, 1, 8, 8))
    assert silent == [True] * 12


@pytest.mark.parametrize("norm", ["group", "none"])
def test_another_norm_takes_the_place_of_every_batch_norm(norm):
    usual, other = small(), small(norm=norm)
    kinds = {type(m) for m in other.modules() if is_norm(m)}
    count = sum(is_norm(m) for m in usual.modules())
    assert nn.BatchNorm2d not in kinds
    assert count == 1 + 12 * 4 + 3
    assert sum(is_norm(m) for m in other.modules()) == (0 if norm == "none" else count)
    assert other.eval()(torch.randn(1, 1, 5, 5)).isfinite().all()


def test_it_learns():
    model = small().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, labels = torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(
    "options, says",
    [
        ({"forward": "keep"}, "forward 'keep' is unknown: expected one of even, shake"),
        ({"backward": "none"}, "backward 'none' is unknown: expected one of even, shake, keep"),
        ({"level": "pixel"}, "level 'pixel' is unknown: expected one of batch, image"),
        ({"forward": "even", "backward": "keep"}, "forward even draws nothing"),
        ({"norm": "grup"}, "norm 'grup' is unknown"),
        ({"width": 8}, "unknown option 'width'"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(options, says):
    with pytest.raises(BadInput) as raised:
        create_model("shake_shake26_2x32d_cifar", **options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
