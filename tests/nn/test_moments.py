"""Predicted second moments: the textbook's laws exactly, and what fresh networks measure."""

import math

import pytest
import torch
from torch import nn

from residua.nn import BasicBlock, BlockOptions, Blur, BottleneckBlock, Skip, make_norm
from residua.nn.init import fixup, initialise, second_moments
from residua.nn.init.moments import merge_rule, rule
from residua.nn.init.moments.gaussian import (
    correlated,
    expectation,
    largest,
    rectified_mean,
    rectified_second,
)
from residua.nn.init.moments.merges import MERGE_RULES
from residua.nn.init.moments.walk import RULES
from residua.nn.merges import MERGES, Merge
from residua.nn.merges.concatenate import Concatenate
from residua.nn.norms import NORMS
from residua.nn.pooling import Halve
from residua.nn.regularisers import RandomDrop, ShakeDrop, ShakeShake, StochasticDepth
from residua.nn.shortcuts import ZeroPad

# --- the Gaussian's closed forms -------------------------------------------------------------------

MEANS = torch.tensor([-1.5, -0.3, 0.0, 0.4, 2.0], dtype=torch.float64)
VARIANCES = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1], dtype=torch.float64)


def integral(function, mean, variance):
    """E[function(N(mean, variance))] by the trapezoid rule on a fine grid."""
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(function(mean + variance**0.5 * z) * density, z).item()


def test_the_rectified_gaussian_s_moments_are_their_integrals():
    for i, (m, v) in enumerate(zip(MEANS.tolist(), VARIANCES.tolist(), strict=True)):
        first, second = integral(torch.relu, m, v), integral(lambda x: x.relu() ** 2, m, v)
        assert rectified_mean(MEANS, VARIANCES)[i].item() == pytest.approx(first, rel=1e-6)
        assert rectified_second(MEANS, VARIANCES)[i].item() == pytest.approx(second, rel=1e-6)
        smooth = expectation(torch.tanh, MEANS, VARIANCES)[i].item()
        assert smooth == pytest.approx(integral(torch.tanh, m, v), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("cosine", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_two_rectified_gaussians_have_the_arc_cosine_kernel(cosine):
    """Cho, Saul 2009, eq. 3 and 6, with n = 1: (sin t + (pi - t) cos t) / 2 pi."""
    t = math.acos(cosine)
    kernel = (math.sin(t) + (math.pi - t) * cosine) / (2 * math.pi)
    zero, one, c = (torch.tensor(v, dtype=torch.float64) for v in (0.0, 1.0, cosine))
    assert correlated(rectified_mean, zero, one, c).item() == pytest.approx(kernel, rel=2e-3)


def test_the_largest_of_n_gaussians_has_the_published_moments():
    """Harter 1961, table 1; the second moment of the largest of three is 1 + sqrt 3 / 2 pi."""
    assert largest(1) == pytest.approx((0, 1), abs=1e-9)
    assert largest(3) == pytest.approx((1.5 / math.sqrt(math.pi), 1 + 3**0.5 / (2 * math.pi)))
    assert largest(9)[0] == pytest.approx(1.48501, abs=1e-5)


# --- one layer at a time, against draws ------------------------------------------------------------

CHANNELS, SIZE = 64, (9, 11)


def second_of(module, shape=(CHANNELS, *SIZE), **options):
    return second_moments(module, shape, **options)[""]


@torch.no_grad()
def measured(make, x, draws=6):
    """Mean square of the output over several draws of the module's weights."""
    moments = []
    for seed in range(draws):
        torch.manual_seed(seed)
        moments.append(make()(x).double().square().mean().item())
    return sum(moments) / draws


def he(module):
    initialise(module, "he", "fan_in")
    for layer in module.modules():
        if getattr(layer, "bias", None) is not None and layer.bias.dim() == 1:
            nn.init.normal_(layer.bias, 0.0, 0.5)
    return module


LAYERS = {
    "padded": lambda: nn.Conv2d(64, 48, 3, padding=1),
    "strided 7x7": lambda: nn.Conv2d(64, 48, 7, stride=2, padding=3),
    "dilated": lambda: nn.Conv2d(64, 48, 3, padding=2, dilation=2),
    "valid": lambda: nn.Conv2d(64, 48, 3),
    "circular": lambda: nn.Conv2d(64, 48, 3, padding=1, padding_mode="circular"),
    "grouped": lambda: nn.Conv2d(64, 48, 3, padding=1, groups=4),
    "weight": lambda: make_norm("weight").conv(64, 48, 3),
    "standardised": lambda: make_norm("group+standardised").conv(64, 48, 3),
    "scaled": lambda: make_norm("scaled_standardised").conv(64, 48, 3),
    "conv relu": lambda: nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
    "conv silu": lambda: nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.SiLU()),
    "relu then scaled": lambda: nn.Sequential(
        nn.ReLU(), make_norm("scaled_standardised").conv(64, 64, 3)
    ),
    "flat": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64 * 99, 50)),
    "pooled": lambda: nn.Sequential(
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 50)
    ),
    "average": lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, 2, padding=1)),
    "average, ceil": lambda: nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((3, 11)),
    "maximum": lambda: nn.MaxPool2d(3, 2, padding=1),
    "relu maximum": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
    "halved": lambda: Halve("max"),
    "halved mean": lambda: Halve("mean"),
    "blurred": Blur,
    "zero-padded": lambda: ZeroPad(64, 96, 2),
    "dropout": lambda: nn.Dropout(0.3),
    "dropout, evaluated": lambda: nn.Dropout(0.3).eval(),
    "concatenated": lambda: Skip(nn.Conv2d(64, 32, 3), nn.Identity(), Concatenate()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_s_moment_is_what_it_measures(name):
    torch.manual_seed(1000)
    x = torch.randn(16, CHANNELS, *SIZE)  # of a seed that draws no weights
    predicted = 0.0
    for seed in range(6):
        torch.manual_seed(seed)
        predicted += second_of(he(LAYERS[name]())) / 6
    found = measured(lambda: he(LAYERS[name]()), x)
    assert predicted == pytest.approx(found, rel=0.06 if "pooled" in name else 0.03)


@pytest.mark.parametrize("name", ["stochastic", "random", "shake drop", "shake-shake"])
@pytest.mark.parametrize("training", [True, False])
def test_a_drop_s_moment_is_what_it_measures(name, training):
    def make():
        conv = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        module = {
            "stochastic": StochasticDepth(0.7),
            "random": RandomDrop(0.7),
            "shake drop": ShakeDrop(0.6),
            "shake-shake": ShakeShake(*conv),
        }[name]
        return module.train(training)

    torch.manual_seed(1000)
    x = torch.randn(500, CHANNELS, 2, 2)
    torch.manual_seed(0)
    predicted = second_of(make(), (CHANNELS, 2, 2))
    # ShakeDrop's one b a mini-batch leaves a standard error of 6 % after 60 draws.
    assert predicted == pytest.approx(
        measured(make, x, draws=60), rel=0.2 if "drop" in name else 0.05
    )


@pytest.mark.parametrize("norm", [n for n in NORMS if make_norm(n).layer is not None])
@pytest.mark.parametrize("training", [True, False])
def test_a_norm_s_moment_is_what_it_measures(norm, training):
    def make():
        layer = make_norm(norm).layer(CHANNELS).train(training)
        nn.init.normal_(layer.weight, 1.5, 0.3)
        nn.init.normal_(layer.bias, 0.2, 0.4)
        return nn.Sequential(nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), layer)

    torch.manual_seed(1000)
    x = 2 * torch.randn(32, CHANNELS, *SIZE)
    predicted = 0.0
    for seed in range(6):
        torch.manual_seed(seed)
        predicted += second_of(make(), input_moment=4.0) / 6
    assert predicted == pytest.approx(measured(make, x), rel=0.05)


def test_an_input_with_a_mean_is_not_halved_by_a_relu():
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.7
    found = second_moments(nn.ReLU(), input_moment=1.49, input_mean=0.7)[""]
    assert found == pytest.approx(x.relu().square().mean().item(), rel=0.02)


# --- the laws of residual networks -----------------------------------------------------------------

K = 6


def stack(order, norm="none", merge="add", shortcut="B", block=BasicBlock, width=64, count=K):
    """Blocks whose convolutions have exactly He's second moment, 2 / fan_in."""
    options = BlockOptions(make_norm(norm), order=order, merge=merge, shortcut=shortcut)
    channels = width * block.expansion
    blocks = nn.Sequential(
        *(block(channels, width, 1, options, k, count) for k in range(1, count + 1)),
    )
    initialise(blocks, "he", "fan_in")
    for conv in blocks.modules():
        if type(conv) is nn.Conv2d:
            with torch.no_grad():
                fan_in = conv.weight[0].numel()
                conv.weight.mul_((2 / fan_in / conv.weight.square().mean()) ** 0.5)
    return blocks


def along(blocks, **options):
    found = second_moments(blocks, **options)
    return [found[str(k)] for k in range(len(blocks))]


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_without_norm_the_moment_is_two_to_the_number_of_blocks(block):
    expected = [2.0**k for k in range(1, K + 1)]
    assert along(stack("preactivation", block=block, width=16)) == pytest.approx(expected, rel=1e-5)


def test_a_plain_network_with_he_s_weights_keeps_the_moment_of_a_rectified_input():
    x = {"input_moment": 0.5, "input_mean": (2 * math.pi) ** -0.5}
    assert along(stack("original", shortcut=None), **x) == pytest.approx([0.5] * K, rel=1e-5)


def test_with_batch_norm_first_in_the_branch_it_grows_by_one_a_block():
    found = along(stack("preactivation", norm="batch"))
    assert found == pytest.approx([1.0 + k for k in range(1, K + 1)], rel=1e-4)


@pytest.mark.parametrize(
    "merge, growth",
    [
        ("sqrt_half", lambda k: 1.0),
        ("skip_init", lambda k: 1.0),
        ("skip_init(0.3)", lambda k: 1.09),
        ("layer_scale(0.2)", lambda k: 1.04),
        ("stable", lambda k: 1 + 1 / K),
        ("stable_decreasing", lambda k: 1 + 1 / (k * math.log(k + 1) ** 2)),
        ("constant(0.5, 0.5)", lambda k: 0.5),
    ],
)
def test_merges_with_a_scale_grow_by_its_square(merge, growth):
    expected, found = 1.0, along(stack("preactivation", merge=merge))
    for k in range(1, K + 1):
        expected *= growth(k)
        assert found[k - 1] == pytest.approx(expected, rel=1e-5)


def test_fixup_starts_as_the_identity():
    options = BlockOptions(make_norm("none"), order="fixup")
    blocks = nn.Sequential(*(BasicBlock(16, 16, 1, options, k, K) for k in range(1, K + 1)))
    fixup(blocks)
    network = nn.Sequential(nn.ReLU(), *blocks)
    found = second_moments(network)
    assert found["1.skip.branch"] == 0
    assert [found[str(k)] for k in range(K + 1)] == pytest.approx([0.5] * (K + 1))


CASES = {
    "v2": ({"order": "preactivation"}, 0.15),
    "v2, batch": ({"order": "preactivation", "norm": "batch"}, 0.06),
    "v2, weight": ({"order": "preactivation", "norm": "weight"}, 0.15),
    "v2, sqrt_half": ({"order": "preactivation", "merge": "sqrt_half"}, 0.15),
    "v2, stable": ({"order": "preactivation", "merge": "stable"}, 0.06),
    "v2, skip_init(0.4)": ({"order": "preactivation", "merge": "skip_init(0.4)"}, 0.06),
    "v2, exclusive_gate": ({"order": "preactivation", "merge": "exclusive_gate(-1)"}, 0.1),
    "v2, highway": ({"order": "preactivation", "merge": "highway(-1)"}, 0.1),
    "v2, shortcut_gate": ({"order": "preactivation", "merge": "shortcut_gate(-1)"}, 0.1),
    "plain": ({"order": "original", "shortcut": None}, 0.3),
    "v1": ({"order": "original"}, 0.2),
    "v1, batch": ({"order": "original", "norm": "batch"}, 0.12),
    "v1, group": ({"order": "original", "norm": "group"}, 0.12),
    "norm after": ({"order": "norm_after_addition", "norm": "batch"}, 0.15),
    "relu before": ({"order": "relu_before_addition", "norm": "batch"}, 0.1),
    "relu only": ({"order": "relu_only_preactivation", "norm": "batch"}, 0.1),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_fresh_blocks_measure_what_is_predicted(case):
    """Mean over twelve draws of weights and inputs; zero padding, so borders count.

    Without norm a moment varies from draw to draw, after four blocks by 25 % (v2) to 50 % (plain).
    """
    options, tolerance = CASES[case]
    shape, draws = (64, 6, 6), 12
    predicted, found = [0.0] * 4, [0.0] * 4
    for seed in range(draws):
        torch.manual_seed(seed)
        blocks = stack(**options, count=4)
        told = along(blocks, shape=shape)
        x = torch.randn(4, *shape)
        for k, block in enumerate(blocks):
            x = block(x)
            predicted[k] += told[k] / draws
            found[k] += x.double().square().mean().item() / draws
    assert predicted == pytest.approx(found, rel=tolerance)


# --- what it says when it cannot -------------------------------------------------------------------


def test_names_are_the_modules_and_a_container_s_is_its_last_layer():
    module = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)))
    found = second_moments(module)
    assert list(found) == ["0", "1.0", "1.1", "1", ""]
    assert found["1.1"] == found["1"] == found[""]


def test_every_merge_has_a_rule():
    for name in MERGES:
        options = BlockOptions(make_norm("none"), order="preactivation", merge=name)
        found = second_moments(BasicBlock(8, 8, 1, options))
        assert math.isfinite(found["skip.merge"]) and found["skip.merge"] == found["skip"]


class Odd(nn.Conv2d):
    """A convolution that does something else."""

    def forward(self, x):
        return super().forward(x).exp()


class OddMerge(Merge):
    def forward(self, shortcut, branch):
        return shortcut * branch


def test_a_type_without_a_rule_is_named_also_where_it_is_a_subclass_of_one_with():
    with pytest.raises(ValueError, match="Odd at 1 does to a second moment: register"):
        second_moments(nn.Sequential(nn.ReLU(), Odd(2, 2, 1)))
    with pytest.raises(ValueError, match="OddMerge at 0 does to a second moment: register"):
        second_moments(nn.Sequential(Skip(nn.ReLU(), nn.Identity(), OddMerge())))


def test_a_rule_that_is_registered_is_used():
    rule(Odd)(lambda module, x, walk: x.scaled(0.0, 7.0))
    merge_rule(OddMerge)(lambda merge, s, f: f.scaled(0.0, 3.0))
    try:
        module = nn.Sequential(Odd(2, 2, 1), Skip(nn.Identity(), nn.Identity(), OddMerge()))
        assert second_moments(module)[""] == pytest.approx(21)
    finally:
        del RULES[Odd], MERGE_RULES[OddMerge]


def test_what_depends_on_the_shape_asks_for_it():
    with pytest.raises(ValueError, match="shape"):
        second_moments(ZeroPad(8, 16, 2))
    with pytest.raises(ValueError, match="shape"):
        second_moments(nn.AdaptiveAvgPool2d(2))
    with pytest.raises(ValueError, match="shape"):
        second_moments(Skip(nn.ReLU(), nn.Identity(), Concatenate()))
    with pytest.raises(ValueError, match="neither"):
        second_moments(nn.ReLU(), (3, 4))
