"""Networks without norms: how they start, that depth does not matter to it, and that they learn."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, list_models, record
from residua.nn import Skip, is_norm

DEEPEST = "stable_resnet2002_cifar"
NAMES = [n for kind in ("stable", "skipinit", "fixup") for n in list_models(f"{kind}_resnet*")]
QUICK = [n for n in NAMES if "2002" not in n or n == DEEPEST]
SMALL = ["stable_resnet20_cifar", "skipinit_resnet20_cifar", "fixup_resnet20_cifar"]


def built(name, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=5, **options).double()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def second_moments(model, x):
    with torch.no_grad():
        maps = model.forward_stages(x)
    return {name: found.square().mean().item() for name, found in maps.items()}


@functools.cache
def without_contents(name):
    with torch.device("meta"):
        return create_model(name)


@pytest.mark.parametrize("name", QUICK)
def test_there_is_no_norm_and_the_name_says_how_many_blocks(name):
    model = without_contents(name)
    assert not any(is_norm(m) for m in model.modules())
    depth = int(name.removesuffix("_cifar").rpartition("resnet")[2])
    blocks = sum(isinstance(m, Skip) for m in model.modules())
    assert depth == (2 * blocks + 2 if record(name).input_size == 32 else 3 * blocks + 2)


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_a_stable_network_lets_the_second_moment_grow_by_the_cube_root_of_e_in_a_stage(depth):
    moments = second_moments(built(f"stable_resnet{depth}_cifar"), pictures(16, 3, 32, 32))
    growth = moments["stages.0"] / moments["stem"]
    blocks = (depth - 2) // 2
    # f is as large as x: each ReLU halves the second moment, He's weights double it. Not exactly,
    # because x is not symmetric about zero; the first stage has a third of the blocks.
    assert growth == pytest.approx((1 + 1 / blocks) ** (blocks / 3), rel=0.15)


def test_every_branch_is_divided_by_the_root_of_the_number_of_blocks():
    skips = _skips(without_contents(DEEPEST))
    scales = {(m.merge.shortcut_scale, m.merge.branch_scale) for m in skips}
    assert scales == {(1.0, 1 / math.sqrt(1000))}


@pytest.mark.parametrize("name", ["skipinit_resnet20_cifar", "fixup_resnet20_cifar"])
def test_every_block_starts_as_its_shortcut(name):
    model, x = built(name), pictures(2, 3, 16, 16)
    shown = []
    for skip in _skips(model):
        skip.register_forward_hook(
            lambda skip, x, y: shown.append(torch.equal(y, skip.shortcut(x[0])))
        )
    with torch.no_grad():
        model(x)
    assert shown == [True] * 9


def test_fixup_starts_with_the_loss_of_a_constant():
    model, x = built("fixup_resnet110_cifar"), pictures(10, 3, 32, 32)
    loss = F.cross_entropy(model(x), torch.arange(10) % 5)
    assert loss.item() == pytest.approx(math.log(5), abs=1e-12)


@torch.no_grad()
def test_a_fixup_network_computes_the_authors_equations():
    model = built("fixup_resnet20_cifar")
    for p in model.parameters():  # every scalar counts
        p.add_(0.1 * torch.randn_like(p))
    state, x = model.state_dict(), pictures(2, 3, 9, 12)
    expected = F.relu(F.conv2d(x, state["stem.conv.weight"], padding=1) + state["stem.bias.bias"])
    for stage in range(3):
        for block in range(3):
            at, new = f"stages.{stage}.{block}.", stage > 0 and block == 0
            branch = f"{at}skip.branch."
            first = state[f"{at}fork.bias" if new else f"{branch}before1.bias"]
            a = expected + first
            f = F.conv2d(a, state[f"{branch}conv1.weight"], stride=1 + new, padding=1)
            f = F.relu(f + state[f"{branch}after1.bias"]) + state[f"{branch}before2.bias"]
            f = F.conv2d(f, state[f"{branch}conv2.weight"], padding=1)
            f = f * state[f"{branch}scale.scale"] + state[f"{branch}scale.bias"]
            if new:  # zero-padded: what the first bias gave to the old channels stays
                a = a[:, :, ::2, ::2]
                expected = torch.cat((a, torch.zeros_like(a)), 1)
            expected = F.relu(expected + f)
    features = expected.mean((2, 3)) + state["tail.bias"]
    scores = F.linear(features, state["head.fc.weight"], state["head.fc.bias"])
    torch.testing.assert_close(model(x), scores)


@pytest.mark.parametrize("name", SMALL)
def test_ten_steps_lower_the_loss(name):
    torch.manual_seed(0)
    model, x, labels = create_model(name), pictures(20, 3, 16, 16).float(), torch.arange(20) % 10
    x = x + labels[:, None, None, None] / 5  # brighter from class to class
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < min(losses[0], math.log(10)) - 0.01


@pytest.mark.parametrize("name", SMALL)
def test_after_a_few_steps_every_parameter_has_a_gradient(name):
    model, x, labels = built(name), pictures(10, 3, 16, 16), torch.arange(10) % 5
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimiser.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimiser.step()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("fixup_resnet20_cifar", {"norm": "batch"}, "order 'fixup' is there to train without norm"),
        ("fixup_resnet20_cifar", {"init": "he"}, "unknown option 'init'"),
        ("stable_resnet20_cifar", {"merge": "add"}, "unknown option 'merge'"),
    ],
)
def test_what_makes_them_these_networks_is_refused_another_value(name, options, says):
    with pytest.raises(BadInput, match=says):
        create_model(name, **options)


def test_fixup_is_an_initialisation_of_any_residual_network_without_norms():
    model = create_model("preact_resnet20_cifar", norm="none", init="fixup")
    assert not model.head.fc.weight.any()
    assert not any(skip.branch.conv2.weight.any() for skip in _skips(model))
    with pytest.raises(BadInput, match="shortcut"):
        create_model("plain20_cifar", norm="none", init="fixup")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stable", "skipinit", "fixup"])
def test_a_thousand_blocks_start_no_larger_than_a_hundred(kind):
    x = pictures(1, 3, 8, 8)
    with torch.no_grad():
        scores = [built(f"{kind}_resnet{d}_cifar")(x).square().mean() for d in (110, 2002)]
    assert scores[1].isfinite()
    assert scores[1] <= 10 * scores[0] + 1e-12


def _skips(model: nn.Module):
    return [m for m in model.modules() if isinstance(m, Skip)]
