"""A skipping network gathers the pictures that keep a block; this is the masked form, written plainly."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.models.network import Network
from residua.models.skipping import SkippingNetwork
from residua.nn.skip import Skip

NETWORKS = {
    "v1, zero-padded": ("resnet20_cifar", {}),
    "v1, projections everywhere": ("resnet20_cifar", {"shortcut": "C"}),
    "v2, forks": ("preact_resnet20_cifar", {}),
    "v2 without norms": ("preact_resnet20_cifar", {"norm": "none", "init": "glorot"}),
    "bare skips": ("resnet9_cifar", {"width": 4}),
    "bottlenecks": ("resnet50", {"num_classes": 10}),
}


def masked(network: Network, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Compute every branch for every picture and select."""
    x = network.stem(x)
    column = 0
    for stage in network.stages:
        for block in stage:
            skip = getattr(block, "skip", block)
            if not isinstance(skip, Skip):
                x = block(x)
                continue
            if hasattr(block, "fork"):
                x = block.fork(x)
            shortcut = skip.shortcut(x)
            y = skip.merge(shortcut, skip.branch(x))
            x = torch.where(keep[:, column, None, None, None], y, shortcut)
            column += 1
    return network.head(network.tail(x))


def make(which: str) -> Network:
    name, options = NETWORKS[which]
    torch.manual_seed(0)
    network = create_model(name, **options).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: not the identity
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return make(request.param)


masks = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.just(n), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.4, 0.9, 1.0])
    )
)


@settings(deadline=None, max_examples=8)
@given(masks, st.booleans(), st.booleans())
def test_gathered_is_masked(
    network: Network, mask: tuple[int, int, float], channels_last: bool, gradient: bool
) -> None:
    n, seed, share = mask
    generator = torch.Generator().manual_seed(seed)
    skipping = SkippingNetwork(network)
    keep = torch.rand(n, skipping.blocks, generator=generator) < share
    x = torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    before = x.clone()
    with torch.set_grad_enabled(gradient):
        found, expected = skipping(x, keep), masked(network, x, keep)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(x, before)


def test_keeping_every_block_is_the_network(network: Network) -> None:
    skipping, x = SkippingNetwork(network), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    every = torch.ones(2, skipping.blocks, dtype=torch.bool)
    assert torch.equal(skipping(x, every), network(x))


def masks_skips(network: Network, keep: torch.Tensor) -> Network:
    """Return a copy of a network, of whatever blocks, whose skips select from their full output."""
    network = copy.deepcopy(network)
    skips = [module for module in network.modules() if isinstance(module, Skip)]
    for skip, column in zip(skips, keep.T, strict=True):

        def forward(
            x: torch.Tensor, skip: Skip = skip, column: torch.Tensor = column
        ) -> torch.Tensor:
            shortcut = skip.shortcut(x)
            merged = skip.merge(shortcut.clone(), skip.branch(x))
            return torch.where(column[:, None, None, None], merged, shortcut)

        skip.forward = forward  # type: ignore[method-assign]
    return network


@pytest.mark.parametrize(
    "name",
    [
        "fixup_resnet20_cifar",
        "nf_resnet20_cifar",
        "preact_resnet20_cifar",
        "shake_shake26_2x32d_cifar",
        "skipinit_resnet20_cifar",
        "stable_resnet20_cifar",
        "wrn16_4_cifar",
    ],
)
def test_families_that_add_lose_what_is_dropped_and_no_more(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name).double().eval()
    for parameter in network.parameters():  # zeros to start with would hide a dropped branch
        parameter.data += 0.05 * torch.randn_like(parameter)
    skipping = SkippingNetwork(network)
    keep = torch.rand(3, skipping.blocks) < 0.5
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(skipping(x, keep), masks_skips(network, keep)(x))


def test_a_block_that_nobody_keeps_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make("v1, zero-padded")
    ran: list[tuple[int, int]] = []
    column = 0
    for stage in network.stages:
        for block in stage:
            block.skip.branch.register_forward_hook(
                lambda _, inputs, __, column=column: ran.append((column, len(inputs[0])))
            )
            column += 1
    keep = torch.zeros(4, 9, dtype=torch.bool)
    keep[1, 2] = keep[:3, 5] = keep[:, 7] = True
    SkippingNetwork(network)(torch.randn(4, 3, 8, 8, dtype=torch.float64), keep)
    assert ran == [(2, 1), (5, 3), (7, 4)]


def test_several_choices_share_what_they_begin_with() -> None:
    network = make("v1, zero-padded")
    skipping = SkippingNetwork(network)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    keep = torch.rand(2, 3, 9) < 0.5
    keep[:, :, :4] = keep[0, :, :4]
    stems: list[int] = []
    network.stem.register_forward_hook(lambda _, inputs, __: stems.append(len(inputs[0])))
    found = skipping(x, keep)
    assert stems == [3]
    for choice, scores in zip(keep, found, strict=True):
        torch.testing.assert_close(scores, masked(network, x, choice))
    torch.testing.assert_close(skipping(x, keep[[0, 0]]), found[[0, 0]])


def test_gradients_are_those_of_the_masked_form() -> None:
    network = make("v2, forks")
    other = copy.deepcopy(network)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    keep = torch.rand(3, 9) < 0.6
    SkippingNetwork(network)(x, keep).square().sum().backward()
    masked(other, x, keep).square().sum().backward()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        expected = torch.zeros_like(ours) if theirs.grad is None else theirs.grad
        found = torch.zeros_like(ours) if ours.grad is None else ours.grad
        torch.testing.assert_close(found, expected)


def test_training_takes_the_statistics_of_those_that_keep_the_block() -> None:
    network = make("v1, zero-padded").train()
    block = network.stages[0][0]
    seen: list[torch.Tensor] = []
    block.skip.branch.conv1.register_forward_hook(lambda _, __, out: seen.append(out))
    norm = block.skip.branch.norm1
    before = norm.running_mean.clone()
    keep = torch.ones(4, 9, dtype=torch.bool)
    keep[2:, 0] = False
    SkippingNetwork(network)(torch.randn(4, 3, 8, 8, dtype=torch.float64), keep)
    assert len(seen[0]) == 2
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * seen[0].mean((0, 2, 3)))


def test_one_picture_alone_can_be_trained_on() -> None:
    network = create_model("resnet20_cifar").train()
    keep = torch.zeros(3, 9, dtype=torch.bool)
    keep[0] = True
    scores = SkippingNetwork(network)(torch.randn(3, 3, 1, 1), keep)  # maps of one value a channel
    scores.sum().backward()
    assert torch.isfinite(scores).all()


def test_in_bfloat16_the_memory_format_stays() -> None:
    network = create_model("resnet20_cifar").eval().to(memory_format=torch.channels_last)
    x = torch.randn(6, 3, 32, 32).to(memory_format=torch.channels_last)
    keep = torch.rand(6, 9) < 0.5
    formats: list[bool] = []
    network.tail.register_forward_hook(
        lambda _, __, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = SkippingNetwork(network)(x, keep)
        expected = masked(network, x, keep)
    assert formats == [True, True]
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def nested() -> Network:
    network = create_model("resnet20_cifar")
    network.stages[1] = nn.Sequential(network.stages[1])
    return network


def scaled() -> Network:
    network = create_model("resnet20_cifar")
    network.stages[0][1].skip.merge = Halved()
    return network


class Halved(nn.Module):
    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        return (shortcut + branch) / 2


@pytest.mark.parametrize(
    ("make_network", "says"),
    [
        (lambda: create_model("plain20_cifar"), "no shortcut"),
        (lambda: create_model("resnet20_cifar", features_only=True), "a classifier"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), "Sequential"),
        (lambda: create_model("densenet40_12_cifar"), "does not add"),
        (lambda: create_model("highway19_cifar"), "does not add"),
        (nested, "rows of residual blocks"),
        (scaled, "does not add"),
    ],
)
def test_what_cannot_be_dropped_is_one_line(make_network: object, says: str) -> None:
    with pytest.raises(BadInput, match=says) as error:
        SkippingNetwork(make_network())  # type: ignore[operator]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 8), (3, 9), (9,), (2, 2, 8)])
def test_a_choice_of_the_wrong_shape_is_one_line(shape: tuple[int, ...]) -> None:
    skipping = SkippingNetwork(create_model("resnet20_cifar"))
    with pytest.raises(BadInput, match=r"keep .* expected \(2, 9\)"):
        skipping(torch.randn(2, 3, 8, 8), torch.ones(shape, dtype=torch.bool))
