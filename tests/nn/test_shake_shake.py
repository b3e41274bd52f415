"""Shake-Shake: what each row of the paper's table 1 does to the output and to the gradients."""

import copy
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from residua.nn.regularisers import ShakeShake

ROWS = [("even", "even", "image")]
ROWS += product(["even"], ["shake"], ["batch", "image"])
ROWS += product(["shake"], ["even", "shake", "keep"], ["batch", "image"])


def mix(row, first=None, second=None):
    return ShakeShake(first or nn.Identity(), second or nn.Identity(), *row)


class Times(nn.Module):
    """A branch of one parameter, so that its gradient shows what came back to it."""

    def __init__(self, start):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x):
        return self.by * x


def test_the_papers_table_1_has_nine_rows():
    assert len(ROWS) == 9


@pytest.mark.parametrize("row", ROWS)
def test_the_output_and_the_gradients_follow_the_equation_with_the_draws_given(row):
    torch.manual_seed(0)
    x, g = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    layer = mix(row, Times(2.0), Times(-3.0)).train()
    torch.manual_seed(7)
    alpha, beta = layer.draw(x)
    torch.manual_seed(7)
    y = layer(x)
    alpha, beta = alpha.double(), beta.double()
    if row[:2] == ("even", "even"):
        alpha, beta = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(y, alpha * 2 * x + (1 - alpha) * -3 * x, rtol=1e-12, atol=1e-12)
    (y * g).sum().backward()
    by = [path.by.grad for path in layer.paths]
    torch.testing.assert_close(by[0], (beta * g * x).sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by[1], ((1 - beta) * g * x).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_draws_what_its_name_says(row):
    forward, backward, level = row
    torch.manual_seed(0)
    alpha, beta = mix(row).train().draw(torch.ones(5000, 3, 2, 2))
    assert alpha.shape == beta.shape == ((5000 if level == "image" else 1), 1, 1, 1)
    for name, value in (("forward", alpha), ("backward", beta)):
        if row[name == "backward"] == "even":
            assert torch.equal(value, torch.full_like(value, 0.5))
        elif level == "image":  # U(0, 1): standard errors 0.4 % and 0.4 %
            assert value.mean().item() == pytest.approx(1 / 2, abs=0.02)
            assert value.std().item() == pytest.approx(12**-0.5, abs=0.02)
    assert torch.equal(alpha, beta) == (backward == "keep" or (forward, backward) == ("even",) * 2)


@pytest.mark.parametrize("row", ROWS)
def test_the_expectation_in_training_is_the_value_in_evaluation(row):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    layer, n = mix(row, Times(2.0), Times(-3.0)), 5000
    many = x.expand(n, -1, -1, -1)  # one draw a sample, or many batches of one
    with torch.no_grad():
        batches = [many] if row[2] == "image" else [x] * n
        values = torch.cat([layer.train()(batch) for batch in batches])
        evaluated = layer.eval()(x)
    torch.testing.assert_close(evaluated, -x / 2)
    error = values.std(0, keepdim=True) / n**0.5  # 4.5 of them, and a rounding where all are equal
    assert ((values.mean(0, keepdim=True) - evaluated).abs() <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("row", ROWS)
def test_the_seed_decides_forward_and_backward_and_evaluation_draws_nothing(row):
    layer = mix(row, nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    x = torch.randn(4, 3, 2, 2)
    first = gradients(layer.train(), x, lambda f, x: f(x))
    assert torch.equal(first, gradients(layer, x, lambda f, x: f(x)))
    state = torch.get_rng_state()
    layer.eval()(x)
    assert torch.equal(torch.get_rng_state(), state)


def gradients(layer, x, call):
    """Return all gradients of one step, with the seed set before the forward pass only."""
    layer.zero_grad()
    torch.manual_seed(5)
    y = call(layer, x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    return torch.cat([p.grad.flatten() for p in layer.parameters()])


@pytest.mark.parametrize("row", ROWS)
def test_recomputation_repeats_both_draws_to_the_bit(row):
    layer = mix(row, nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).train()
    x = torch.randn(4, 3, 2, 2)
    usual = gradients(layer, x, lambda f, x: f(x))
    again = gradients(layer, x, lambda f, x: checkpoint(f, x, use_reentrant=False))
    assert torch.equal(again, usual)


def test_no_draw_is_made_in_the_backward_pass():
    layer = mix(("shake", "shake", "image"), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).train()
    y = layer(torch.randn(4, 3, 2, 2))
    state = torch.get_rng_state()
    y.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("row", ROWS)
def test_bf16_autocast_trains_in_bf16_and_close_to_float32(row):
    torch.manual_seed(0)
    layer = mix(row, nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).train()
    x = torch.randn(16, 3, 4, 4)

    def autocast(f, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = f(x)
        assert y.dtype == torch.bfloat16
        return y.float()

    usual, low = gradients(layer, x, lambda f, x: f(x)), gradients(layer, x, autocast)
    assert (low - usual).norm() < 0.02 * usual.norm()  # bf16 rounds to 0.4 %


def test_a_copy_and_another_memory_format_compute_the_same():
    layer = mix(("shake", "shake", "image"), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    results = []
    for module, y in (
        (layer, x),
        (copy.deepcopy(layer), x),
        (layer, x.to(memory_format=torch.channels_last)),
    ):
        torch.manual_seed(1)
        results.append(module.train()(y))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "row, says",
    [
        (("odd", "shake", "image"), "forward 'odd' is unknown: expected one of even, shake"),
        (("keep", "shake", "image"), "forward 'keep' is unknown: expected one of even, shake"),
        (("shake", "odd", "image"), "backward 'odd' is unknown: expected one of even, shake, keep"),
        (("shake", "shake", "pixel"), "level 'pixel' is unknown: expected one of batch, image"),
        (("even", "keep", "image"), "forward even draws nothing that backward keep could keep"),
    ],
)
def test_a_row_that_table_1_does_not_have_is_refused(row, says):
    with pytest.raises(ValueError, match=says):
        mix(row)
