"""Dropped branches: gone whole in training, their expectation in evaluation, by each published name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn.merges import Add
from residua.nn.regularisers import (
    DROPS,
    RandomDrop,
    ResDrop,
    SeparatedDrop,
    ShakeDrop,
    ShakeShake,
    StochasticDepth,
    constant_decay,
    linear_decay,
    make_drop,
)
from residua.nn.skip import Skip


def drop(kind, rate=0.4, per="sample"):
    return make_drop(kind, rate, 3, 3, per=per, shortcut_channels=2)


def test_in_training_each_sample_is_kept_whole_or_dropped_whole():
    torch.manual_seed(0)
    y = StochasticDepth(0.75).train()(torch.ones(4000, 2, 3, 3))
    kept = y[:, 0, 0, 0] != 0
    assert torch.equal(y, torch.where(kept, 1 / 0.75, 0.0).reshape(-1, 1, 1, 1).expand_as(y))
    # 4,000 draws: the standard error of the share is 0.7 %.
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_the_published_forms_do_not_scale_what_they_keep():
    torch.manual_seed(0)
    y = RandomDrop(0.75).train()(torch.ones(4000, 2, 3, 3))
    kept = y[:, 0, 0, 0] == 1
    assert torch.equal(y, kept.float().reshape(-1, 1, 1, 1).expand_as(y))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(RandomDrop(0.75).eval()(x), 0.75 * x)
    assert torch.equal(ResDrop(0.75).eval()(x), 0.75 * x)


@pytest.mark.parametrize(
    "layer", [StochasticDepth(0.5, per="batch"), RandomDrop(0.5, per="batch"), ResDrop(0.5)]
)
def test_one_draw_a_batch_keeps_or_drops_all_samples_together(layer):
    torch.manual_seed(0)
    kept = torch.stack([layer.train()(torch.ones(8, 1, 1, 1)) != 0 for _ in range(400)])
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    # 400 draws: standard error 2.5 %
    assert kept[:, 0].float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_separated_drop_draws_for_the_shortcuts_channels_and_for_its_padding():
    torch.manual_seed(0)
    y = SeparatedDrop(0.7, channels=2, per="sample").train()(torch.ones(4000, 5, 1, 1)).squeeze()
    low, high = y[:, 0], y[:, 2]
    assert torch.equal(y, torch.stack([low, low, high, high, high], 1))
    # Independent: both are kept in 0.7 squared of all cases; standard error 0.8 %.
    assert (low * high).mean().item() == pytest.approx(0.49, abs=0.03)
    assert low.mean().item() == pytest.approx(0.7, abs=0.03)
    assert high.mean().item() == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.parametrize("kind", DROPS)
def test_the_expectation_in_training_is_the_value_in_evaluation(kind, per):
    torch.manual_seed(0)
    layer, n = drop(kind, per=per), 4000
    x = torch.randn(1, 4, 1, 2, dtype=torch.float64)
    if per == "batch" or kind == "res_drop":
        values = torch.cat([layer.train()(x) for _ in range(n)])
    elif kind == "shake_drop":  # keeps or shakes the batch as a whole
        values = torch.cat([layer.train()(x.expand(4, -1, -1, -1)) for _ in range(n)])
    else:
        values = layer.train()(x.expand(n, -1, -1, -1))
    # Within 4.5 standard errors of a mean of n draws; the values are b x, |x| of order 1.
    error = values.std(0, keepdim=True) / n**0.5
    assert ((values.mean(0, keepdim=True) - layer.eval()(x)).abs() < 4.5 * error).all()


@pytest.mark.parametrize("kind", DROPS)
def test_the_seed_decides_the_draws_and_evaluation_makes_none(kind):
    layer, x = drop(kind), torch.randn(16, 4, 3, 3)
    torch.manual_seed(3)
    first, second = layer.train()(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer(x), second)
    state = torch.get_rng_state()
    layer.eval()(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", DROPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_precision_of_the_branch_stays(kind, dtype):
    torch.manual_seed(0)
    x = torch.ones(4, 4, 2, 2, dtype=dtype)
    assert drop(kind).train()(x).dtype == dtype
    assert drop(kind).eval()(x).dtype == dtype


def block(kind):
    """A residual block of 4 channels under a regulariser: conv norm relu conv norm drop."""

    def branch():
        return nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
        )

    if kind == "shake_shake":
        return Skip(ShakeShake(branch(), branch()), nn.Identity(), Add())
    return Skip(branch().append(drop(kind, 0.3)), nn.Identity(), Add())


@pytest.mark.parametrize("kind", [*DROPS, "shake_shake"])
def test_a_block_under_each_regulariser_learns_with_all_its_parameters(kind):
    torch.manual_seed(0)
    net = nn.Sequential(block(kind), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    # Two classes of noise of one mean and another spread: not to be told apart without the block.
    labels = torch.arange(32) % 2
    x = torch.randn(32, 4, 6, 6) * (1 + labels).reshape(-1, 1, 1, 1)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}

    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    assert not any(torch.equal(p, start[name]) for name, p in net.named_parameters())
    loss = nn.functional.cross_entropy(net.eval()(x), labels).item()
    assert loss < 0.2  # chance is log 2 = 0.69


def test_survival_falls_linearly_to_the_last_block_or_is_constant():
    linear = [linear_decay(0.5, block, 5) for block in range(1, 6)]
    assert linear == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert [constant_decay(0.5, block, 5) for block in range(1, 6)] == [0.5] * 5


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(DROPS),
    rate=st.floats(0, 0.99),
    blocks=st.integers(1, 100),
    decay=st.sampled_from(["linear", "constant"]),
    per=st.sampled_from(["sample", "batch"]),
    data=st.data(),
)
def test_a_drop_is_made_for_any_block_and_is_left_out_where_it_does_nothing(
    kind, rate, blocks, decay, per, data
):
    place = data.draw(st.integers(1, blocks))
    layer = make_drop(kind, rate, place, blocks, decay, per, shortcut_channels=3)
    survival = 1 - rate * (place / blocks if decay == "linear" else 1)
    if layer is None:
        assert survival == 1
    else:
        assert layer.survival == pytest.approx(survival)
        assert layer.per == ("batch" if kind == "res_drop" else per)
        assert list(layer.state_dict()) == []


def test_each_name_makes_its_module():
    kinds = [StochasticDepth, RandomDrop, ResDrop, SeparatedDrop, ShakeDrop]
    assert [type(drop(kind)) for kind in DROPS] == kinds
    assert make_drop("shake_drop", 0.5, 1, 1, per="pixel").per == "pixel"


@pytest.mark.parametrize("survival", [0.0, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("layer", [StochasticDepth, RandomDrop, ResDrop, ShakeDrop])
def test_a_survival_probability_out_of_range_is_refused(layer, survival):
    with pytest.raises(ValueError, match=r"not in \(0, 1\]"):
        layer(survival)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"kind": "dropout"}, "drop 'dropout' is unknown: expected one of stochastic_depth, "),
        ({"decay": "cosine"}, "drop_decay 'cosine' is unknown: expected one of linear, constant"),
        ({"per": "image"}, "drop_per 'image' is unknown: expected one of sample, batch"),
        ({"per": "pixel"}, "drop_per 'pixel' is unknown: expected one of sample, batch"),
        ({"rate": 1.0}, "stochastic_depth 1.0 is not in [0, 1)"),
        ({"rate": -0.1}, "stochastic_depth -0.1 is not in [0, 1)"),
        ({"rate": float("nan")}, "stochastic_depth nan is not in [0, 1)"),
        ({"kind": "separated_drop"}, "separated_drop is for networks whose shortcuts are zero-pad"),
        ({"kind": "shake_drop", "per": "map"}, "one of batch, sample, channel, pixel with shake_d"),
    ],
)
def test_an_unknown_name_or_a_rate_out_of_range_is_refused_in_one_line(change, says):
    settings = {"kind": "stochastic_depth", "rate": 0.5, "block": 1, "blocks": 2} | change
    with pytest.raises(ValueError) as raised:
        make_drop(**settings)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_separated_drop_needs_a_shortcut_with_channels():
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        SeparatedDrop(0.5, 0)
