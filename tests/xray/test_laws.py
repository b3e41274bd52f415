"""The laws at initialisation, measured on wide networks within their sampling error.

n in each test: independent draws of the weights; an error is the t-interval over them.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from residua.errors import BadInput
from residua.xray.intervals import growth_interval, mean_interval
from residua.xray.laws.correlation import (
    arc_cosine,
    both_active,
    gradient_correlations,
    published_correlation,
)
from residua.xray.laws.explosion import LARGE_BATCH_GROWTH, norm_gradient_growth
from residua.xray.laws.moments import (
    CONSTANT_SCALE,
    normed_second_moment,
    overflow_depth,
    residual_batch_variance,
    residual_second_moment,
)

WIDTH = 256


def _he(width: int = WIDTH) -> torch.Tensor:
    return torch.randn(width, width) * math.sqrt(2 / width)


def _trunk(seed: int, blocks: int, scale: float, normed: bool) -> list[torch.Tensor]:
    """y after each block of y = scale (x + W relu(x)), or y = x + W relu(norm(x)): (64, WIDTH)."""
    torch.manual_seed(seed)
    x = torch.randn(64, WIDTH)
    found = [x]
    for _ in range(blocks):
        inside = F.batch_norm(x, None, None, training=True) if normed else x
        x = scale * (x + inside.relu() @ _he())
        found.append(x)
    return found


def _moments(blocks: int, scale: float = 1.0, normed: bool = False, n: int = 8) -> np.ndarray:
    return np.array(
        [[y.pow(2).mean().item() for y in _trunk(s, blocks, scale, normed)] for s in range(n)]
    )


def test_the_second_moment_doubles_with_each_block_over_8_networks() -> None:
    estimate = growth_interval(_moments(12))
    assert math.log(2) in estimate
    assert estimate.high - estimate.low < 0.05
    assert residual_second_moment(12) == 2**12


def test_the_scale_of_one_over_root_2_keeps_the_second_moment_over_8_networks() -> None:
    estimate = growth_interval(_moments(12, CONSTANT_SCALE))
    assert 0.0 in estimate
    assert estimate.high - estimate.low < 0.05
    assert residual_second_moment(12, scale=CONSTANT_SCALE) == pytest.approx(1)


def test_a_norm_first_in_the_branch_makes_it_grow_by_one_a_block_over_8_networks() -> None:
    steps = np.diff(_moments(12, normed=True), axis=1).mean(1)
    assert 1.0 in mean_interval(steps)
    assert steps.std() < 0.1
    assert normed_second_moment(12) == 13


def test_the_variance_over_the_batch_grows_more_slowly_than_the_second_moment() -> None:
    """Both ways of measuring: their ratio is 1 - c of the arc-cosine recursion."""
    blocks, n = 8, 8
    measured = [
        _trunk(seed, blocks, 1.0, False)[-1].var(0).mean().item() / 2**blocks for seed in range(n)
    ]
    law = residual_batch_variance(blocks) / 2**blocks
    assert law in mean_interval(measured)
    assert law < 0.5


def _explosion(seed: int, batch: int, layers: int = 14, width: int = WIDTH) -> float:
    """Log of the gradient's growth a BN-ReLU layer; the first three and last two layers left out."""
    torch.manual_seed(seed)
    h = torch.randn(batch, width, requires_grad=True)
    inputs = [h]
    for _ in range(layers):
        h = F.batch_norm(h, None, None, training=True, eps=1e-12).relu() @ _he(width)
        inputs.append(h)
    gradients = torch.autograd.grad((h * torch.randn_like(h)).sum(), inputs)
    first, last = gradients[3].norm().item(), gradients[layers - 2].norm().item()
    return math.log(first / last) / (layers - 5)


def test_the_gradient_of_BN_ReLU_networks_grows_by_1_2112_a_layer_over_6_networks() -> None:
    measured = mean_interval([_explosion(seed, 512) for seed in range(6)])
    assert math.log(norm_gradient_growth(512)) in measured
    assert math.exp(measured.value) == pytest.approx(LARGE_BATCH_GROWTH, rel=0.01)
    assert pytest.approx(1.2112, abs=5e-5) == LARGE_BATCH_GROWTH


@pytest.mark.parametrize("batch", [8, 16, 64])
def test_the_gradient_grows_faster_in_small_batches_as_the_closed_form_says(batch: int) -> None:
    """n = 12 networks; the mean over weights is of the square, so it is averaged before the root."""
    measured = mean_interval([_explosion(seed, batch) for seed in range(12)])
    law = norm_gradient_growth(batch)
    assert math.exp(measured.value) == pytest.approx(law, rel=0.012)
    assert math.exp(measured.low) > LARGE_BATCH_GROWTH


def test_the_growth_has_no_mean_below_four_inputs() -> None:
    with pytest.raises(BadInput, match="4 is the least"):
        norm_gradient_growth(3)


def _pair(c: float, width: int) -> torch.Tensor:
    """Two inputs (2, width) whose correlation is exactly c."""
    basis = torch.linalg.qr(torch.randn(width, 2)).Q.T * math.sqrt(width)
    return torch.stack([basis[0], c * basis[0] + math.sqrt(1 - c * c) * basis[1]])


def _measured(seed: int, layers: int, c: float, kind: str, width: int = 384) -> list[float]:
    """R at every depth of a bias-free He network, plain or residual."""
    torch.manual_seed(seed)
    x = _pair(c, width).requires_grad_()
    inputs = [x]
    for _ in range(layers):
        branch = x.relu() @ _he(width)
        x = branch if kind == "plain" else x + branch
        inputs.append(x)
    gradients = torch.autograd.grad((x @ torch.randn(width)).sum(), inputs)
    return [F.cosine_similarity(*g, dim=0).item() for g in gradients]


@pytest.mark.parametrize("c", [0.0, 0.6])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_gradients_correlate_as_the_arc_cosine_recursion_says_over_20_networks(
    kind: str, c: float
) -> None:
    layers, n = 6, 20
    measured = np.array([_measured(seed, layers, c, kind) for seed in range(n)])
    law = gradient_correlations(layers, c, kind)
    for depth in range(layers):
        spread = measured[:, depth].std(ddof=1) / math.sqrt(n)
        assert abs(measured[:, depth].mean() - law[depth]) < 4 * spread + 0.01  # 0.01: finite width
    assert law[layers] == 1


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_the_published_law_is_exact_for_one_layer_only(kind: str) -> None:
    assert gradient_correlations(1, 0.0, kind)[0] == pytest.approx(published_correlation(1, kind))
    for layers in (2, 5, 50):
        law = gradient_correlations(layers, 0.0, kind)[0]
        assert law > 1.03 * published_correlation(layers, kind)


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_centred_layers_follow_the_published_law_at_any_depth(kind: str) -> None:
    for layers in (1, 5, 50):
        centred = gradient_correlations(layers, 0.0, kind, centred=True)[0]
        assert centred == pytest.approx(published_correlation(layers, kind))


def test_plain_BN_networks_at_a_large_batch_follow_2_to_the_minus_L_over_6_networks() -> None:
    """Statistics detached: each input's gradient is then its own; mean cosine over 24 of 384 inputs."""
    layers, measured = 4, []
    for seed in range(6):
        torch.manual_seed(seed)
        x = torch.randn(384, 384, requires_grad=True)
        h = x
        for _ in range(layers):
            var, mean = torch.var_mean(h.detach(), 0)
            h = ((h - mean) / var.sqrt()).relu() @ _he(384)
        (g,) = torch.autograd.grad((h @ torch.randn(384)).sum(), x)
        g = F.normalize(g[:24], dim=1)
        cosines = g @ g.T
        measured.append(((cosines.sum() - 24) / (24 * 23)).item())
    estimate = mean_interval(measured)
    assert estimate.value == pytest.approx(published_correlation(layers), abs=0.01)


def test_with_norms_the_correlation_falls_like_a_power_of_the_depth() -> None:
    """Counting the trunk's second moment, as published, the power is 1/2; its variance, pi/(2 (pi-1))."""

    def power(centred: bool) -> float:
        # c is held at 0, as published, where the layers are centred; R at 200 and 800 layers
        if centred:
            short, long = (
                gradient_correlations(n, 0.0, "normed", centred=True)[0] for n in (200, 800)
            )
        else:
            short, long = (
                math.prod((k + 0.5) / (k + 1) for k in range(1, n + 1)) for n in (200, 800)
            )
        return math.log(short / long) / math.log(4)

    assert power(False) == pytest.approx(0.5, abs=0.005)
    assert power(True) == pytest.approx(math.pi / (2 * (math.pi - 1)), abs=0.01)
    assert published_correlation(800, "normed") / published_correlation(200, "normed") == 0.5


def test_the_arc_cosine_law_is_that_of_two_gaussian_units() -> None:
    """By brute force over 2 million pairs of Gaussian numbers."""
    draw = np.random.default_rng(0)
    a, other = draw.normal(size=(2, 2_000_000))
    for c in (-0.5, 0.0, 0.3, 0.9):
        b = c * a + math.sqrt(1 - c * c) * other
        products = np.maximum(a, 0) * np.maximum(b, 0)
        assert 2 * products.mean() == pytest.approx(arc_cosine(c), abs=0.005)
        assert ((a > 0) & (b > 0)).mean() * 2 == pytest.approx(both_active(c), abs=0.003)


def test_half_precision_overflows_after_32_doublings() -> None:
    largest = torch.finfo(torch.float16).max
    assert overflow_depth(2.0, 1.0, largest) == pytest.approx(32, abs=0.01)
    assert overflow_depth(1.0, 1.0, largest) == math.inf
