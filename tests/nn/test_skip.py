"""y = merge(shortcut(x), branch(x)), and what the parts of it do."""

import torch
from torch import nn

from residua.nn import Add, KeepBranch, NoShortcut, Skip


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_a_skip_merges_its_shortcut_and_its_branch_in_that_order():
    class Difference(nn.Module):
        def forward(self, shortcut, branch):
            return shortcut - branch

    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(Skip(Times(2.0), Times(10.0), Difference())(x), 10.0 * x - 2.0 * x)


def test_add_applies_its_activation_after_the_addition():
    x = torch.tensor([-3.0, 1.0])
    assert Skip(Times(2.0), nn.Identity(), Add(nn.ReLU()))(x).tolist() == [0.0, 3.0]
    assert Skip(Times(2.0), nn.Identity(), Add())(x).tolist() == [-9.0, 3.0]


def test_a_plain_block_keeps_its_branch_alone():
    x = torch.tensor([-3.0, 1.0])
    assert Skip(Times(2.0), NoShortcut(), KeepBranch(nn.ReLU()))(x).tolist() == [0.0, 2.0]


def test_the_parts_are_to_be_found_by_their_three_names():
    skip = Skip(Times(2.0), nn.Identity(), Add())
    assert [name for name, _ in skip.named_children()] == ["branch", "shortcut", "merge"]
