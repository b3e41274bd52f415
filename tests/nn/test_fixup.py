"""Fixup: the network starts as its shortcuts, and its branches' other layers are scaled by L^(-1/(2m-2))."""

import pytest
import torch
from torch import nn

from residua.nn import BasicBlock, BlockOptions, BottleneckBlock, make_norm
from residua.nn.init import fixup


def trunk(block, blocks, order="fixup", norm="none"):
    options = BlockOptions(make_norm(norm), order=order)
    channels = 16 * block.expansion
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        *(block(channels, 16, 1, options, k, blocks) for k in range(1, blocks + 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


@pytest.mark.parametrize("block, layers", [(BasicBlock, 2), (BottleneckBlock, 3)])
@pytest.mark.parametrize("blocks", [1, 9])
def test_all_but_the_last_convolution_of_a_branch_have_the_paper_s_variance(block, layers, blocks):
    torch.manual_seed(0)
    network = trunk(block, blocks)
    fixup(network)
    scale = blocks ** (-1 / (2 * layers - 2))
    for unit in network[1:-3]:
        *scaled, last = [m for m in unit.skip.branch if isinstance(m, nn.Conv2d)]
        assert len(scaled) == layers - 1
        assert not last.weight.any()
        for conv in scaled:
            fan_out = conv.out_channels * conv.kernel_size[0] ** 2
            expected = scale * (2 / fan_out) ** 0.5
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.15)
    he = (2 / (network[0].out_channels * 9)) ** 0.5
    assert network[0].weight.std().item() == pytest.approx(he, rel=0.1)


def test_every_block_starts_as_its_shortcut_and_the_scores_at_zero():
    torch.manual_seed(0)
    network = trunk(BasicBlock, 3)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    fixup(network)
    x = torch.randn(2, 16, 6, 6).relu()
    for unit in network[1:-3]:
        assert torch.equal(unit(x), x)
    assert not network(torch.randn(2, 3, 6, 6)).any()
    scalars = {k: p.item() for k, p in network.named_parameters() if p.dim() == 0}
    assert scalars and all(v == (1 if k.endswith("scale.scale") else 0) for k, v in scalars.items())


def test_one_step_moves_the_scores_alike_at_any_depth():
    """The paper's aim: an update of learning rate eta changes the output by Theta(eta)."""
    moved = []
    for blocks in (4, 64):
        torch.manual_seed(0)
        network = trunk(BasicBlock, blocks)
        fixup(network)
        x, target = torch.randn(8, 3, 6, 6), torch.randint(10, (8,))
        for _ in range(3):  # the head leaves zero at the first step, the branches at the second
            before = network(x)
            loss = nn.functional.cross_entropy(before, target)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                    parameter -= 0.05 * gradient
        moved.append((network(x) - before).norm().item())
    assert moved[1] == pytest.approx(moved[0], rel=1.0)


def test_a_network_without_branches_or_without_shortcuts_is_refused():
    with pytest.raises(ValueError, match="there is none"):
        fixup(nn.Linear(2, 2))
    plain = BasicBlock(8, 8, 1, BlockOptions(make_norm("none"), shortcut=None))
    with pytest.raises(ValueError, match="needs shortcuts"):
        fixup(plain)
