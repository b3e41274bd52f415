"""Stochastic depth drops whole branches in training and is their expectation in evaluation."""

import pytest
import torch
from torch import nn

from residua.nn import StochasticDepth
from residua.nn.regularisers import linear_decay


def test_in_training_each_sample_is_kept_whole_or_dropped_whole():
    torch.manual_seed(0)
    y = StochasticDepth(0.75).train()(torch.ones(4000, 2, 3, 3))
    kept = y[:, 0, 0, 0] != 0
    assert torch.equal(y, torch.where(kept, 1 / 0.75, 0.0).reshape(-1, 1, 1, 1).expand_as(y))
    # 4,000 draws: the standard error of the share is 0.7 %.
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_the_expectation_in_training_is_the_value_in_evaluation():
    torch.manual_seed(0)
    layer = StochasticDepth(0.6)
    x = torch.randn(1, 3, 4, 4)
    mean = layer.train()(x.expand(20_000, -1, -1, -1)).mean(0, keepdim=True)
    assert torch.equal(layer.eval()(x), x)
    torch.testing.assert_close(mean, x, rtol=0.03, atol=0)  # standard error 0.6 %


def test_a_kept_branch_learns():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 1)
    nn.Sequential(conv, StochasticDepth(0.5)).train()(torch.ones(64, 3, 2, 2)).sum().backward()
    assert conv.weight.grad.abs().min() > 0


def test_survival_falls_linearly_to_the_last_block():
    assert [linear_decay(0.5, block, 5) for block in range(1, 6)] == pytest.approx(
        [0.9, 0.8, 0.7, 0.6, 0.5]
    )


@pytest.mark.parametrize("survival", [0.0, -0.1, 1.1])
def test_a_survival_probability_out_of_range_is_refused(survival):
    with pytest.raises(ValueError, match=r"not in \(0, 1\]"):
        StochasticDepth(survival)
