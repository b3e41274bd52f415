"""Counts against records and closed forms, fields against gradients' support, bytes against a hand count."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from residua.errors import BadInput
from residua.models.registry import create_model
from residua.models.registry import record as known
from residua.xray.checks.cost import check
from residua.xray.cost import cost
from residua.xray.products import multiply_adds
from residua.xray.receptive import effective_sigma, features, fields
from residua.xray.subject import Subject
from residua.xray.trace import Graph, record


def graph_of(model: nn.Module, *inputs: torch.Tensor) -> Graph:
    return record(model.eval(), lambda: model(*inputs), list(inputs))


def adds(model: nn.Module, *inputs: torch.Tensor) -> int:
    return sum(multiply_adds(node) or 0 for node in graph_of(model, *inputs).nodes)


def field_of(model: nn.Module, x: torch.Tensor) -> tuple[tuple[int, ...], tuple[float, ...]]:
    graph = graph_of(model, x)
    found = fields(graph)
    last = features(graph, found)
    field = found[last.index]
    return field.size, field.jump


def on_meta(name: str, **options) -> tuple[nn.Module, torch.Tensor]:
    side = known(name).input_size
    with torch.device("meta"):
        return create_model(name, **options), torch.empty(1, 3, side, side)


# --- multiply-adds

NAMES = ("resnet18", "vgg16_bn", "seresnet50", "resnext50_32x4d", "alexnet", "resnetv2_50")
SMALL = (
    *("resnet20_cifar", "nf_resnet20_cifar", "highway19_cifar", "wrn16_4_cifar"),
    *("fixup_resnet20_cifar", "shake_shake26_2x32d_cifar"),
)
LARGE = tuple(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50d", "densenet121"))


@pytest.mark.parametrize("name", [*NAMES, *SMALL, *LARGE])
def test_multiply_adds_are_those_of_the_record(name):
    model, x = on_meta(name)
    assert adds(model, x) == known(name).multiply_adds


@settings(deadline=None, max_examples=20)
@given(
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dims=st.integers(1, 3),
)
def test_convolutions_both_ways_cost_what_their_sums_have_terms(groups, kernel, stride, dims):
    there = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    back = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    x = torch.ones(1, 2, *[6] * dims)
    for kind in (there, back):
        layer = kind(2, 4, kernel, stride, groups=groups, bias=False)
        nn.init.ones_(layer.weight)
        # with ones everywhere, each output is the number of its products
        assert adds(layer, x) == round(layer(x).sum().item())


def test_attention_counts_projections_and_both_products():
    length, width, n = 5, 8, 3
    layer = nn.MultiheadAttention(width, 2, batch_first=True)
    x = torch.randn(n, length, width)
    graph = record(layer.eval(), lambda: layer(x, x, x), [x])
    expected = n * (4 * length * width**2 + 2 * length**2 * width)
    assert sum(multiply_adds(node) or 0 for node in graph.nodes) == expected


@pytest.mark.parametrize(
    "body",
    [
        lambda q: F.scaled_dot_product_attention(q, q, q),
        lambda q: (q @ q.transpose(1, 2)).softmax(-1) @ q,
        lambda q: torch.einsum("bij,bjd->bid", torch.einsum("bid,bjd->bij", q, q), q),
        lambda q: torch.bmm(torch.baddbmm(torch.zeros(()), q, q.mT), q),
    ],
)
def test_attention_by_hand_costs_the_same_in_every_spelling(body):
    class Net(nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return body(q)

    assert adds(Net(), torch.randn(2, 5, 4)) == 2 * 2 * 5 * 5 * 4


def test_what_cannot_be_counted_is_named():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x)[0]

    assert cost(Subject(Net(), torch.randn(3, 2, 4)), repeats=1).summary["not_counted"] == ["lstm"]


# --- receptive fields


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("vgg16", {}, 212),  # Araujo, Norris & Sim 2019, table of modern networks
        ("resnet50", {"stride_on": "1x1"}, 483),  # the same
        ("resnet50", {"stride_on": "3x3"}, 427),  # 11 + 24 + 56 + 176 + 160, stride one layer later
        ("alexnet", {}, 195),  # the same table
        ("resnet20_cifar", {}, 81),  # 3 + 12 + 2 + 20 + 4 + 40
    ],
)
def test_receptive_fields_are_the_published_ones(name, options, size):
    model, x = on_meta(name, **options)
    assert field_of(model, x)[0] == (size, size)


def support(model: nn.Module, x: torch.Tensor) -> int:
    """Return how many positions of a row have a gradient from the centre: weights are all positive."""
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    x = x.abs().double().requires_grad_(True)
    y = model.double().eval()(x)
    y[:, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    return int((x.grad.abs().sum((0, 1, 2)) > 0).sum())


class Forked(nn.Module):
    """A residual unit whose shortcut and branch see different positions."""

    def __init__(self, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        pad = dilation * (kernel - 1) // 2
        self.branch = nn.Sequential(
            nn.Conv2d(2, 2, kernel, stride, pad, dilation), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)
        )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + x[:, :, :: self.stride, :: self.stride]


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 2), st.integers(1, 2)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["", "pad", "average", "padded conv"]),
)
def test_the_field_is_the_support_of_the_gradient_of_positive_weights(units, first):
    layers: list[nn.Module] = [Forked(*unit) for unit in units]
    if first == "pad":
        layers.insert(0, nn.ZeroPad2d((2, 1, 0, 1)))
    elif first == "average":
        layers.insert(0, nn.AvgPool2d(2))
    elif first:
        layers.insert(0, nn.Conv2d(2, 2, 3, padding="same", dilation=2))
    x = torch.rand(1, 2, 128, 128) + 0.1
    model = nn.Sequential(*layers)
    (size, _), _ = field_of(model, x)
    gaps = any(stride > 1 for _, stride, _ in units) or any(d > 1 for _, _, d in units)
    seen = support(model, x)
    assert seen == size if not (gaps or first == "padded conv") else seen <= size


def test_the_field_is_as_wide_as_the_outermost_pixels_of_the_support():
    model = nn.Sequential(Forked(5, 2, 1), nn.MaxPool2d(3, 2, 1), Forked(3, 2, 1), Forked(3, 1, 1))
    x = torch.rand(1, 2, 128, 128) + 0.1
    (size, _), jump = field_of(model, x)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    x = x.double().requires_grad_(True)
    y = model.double()(F.avg_pool2d(x, 1))
    y[:, :, 8, 8].sum().backward()
    at = torch.nonzero(x.grad.abs().sum((0, 1, 2))).flatten()
    assert jump == (8.0, 8.0)
    assert size - 2 <= int(at[-1] - at[0]) + 1 <= size  # the maximum picks one of three positions


def test_an_upsampled_dense_output_keeps_its_field_and_its_jump_of_one():
    model = nn.Sequential(
        nn.Conv2d(1, 1, 2, 2), nn.Conv2d(1, 1, 3, padding=1), nn.ConvTranspose2d(1, 1, 2, 2)
    )
    size, jump = field_of(model, torch.rand(1, 1, 16, 16))
    assert jump == (1.0, 1.0) and 6 <= size[0] <= 7


def test_squeeze_and_excitation_is_left_out_and_attention_sees_everything():
    model, x = on_meta("seresnet18")
    plain, _ = on_meta("resnet18")
    assert field_of(model, x) == field_of(plain, x)

    class NonLocal(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = x.flatten(2)
            return x + (q @ q.transpose(1, 2) @ q).view_as(x)

    graph = graph_of(nn.Sequential(NonLocal()), torch.rand(1, 2, 8, 8))
    assert fields(graph)[graph.results[0]] is None


@pytest.mark.parametrize("layers", [[(3, 1)] * 6, [(3, 1), (3, 2), (5, 1), (3, 2), (3, 1)]])
@pytest.mark.parametrize(("dims", "side"), [(1, 96), (2, 48)])
def test_the_effective_field_of_random_linear_layers_is_that_of_a_random_walk(layers, dims, side):
    expected, jump = 0.0, 1
    for kernel, stride in layers:
        expected += jump**2 * (kernel**2 - 1) / 12
        jump *= stride
    measured = []
    conv = (nn.Conv1d, nn.Conv2d)[dims - 1]
    for seed in range(6 if dims > 1 else 24):  # a line has fewer weights to average over
        torch.manual_seed(seed)
        model = nn.Sequential(*(conv(24 if i else 2, 24, k, s) for i, (k, s) in enumerate(layers)))
        x = torch.randn(1, 2, *(side,) * dims, requires_grad=True)
        measured += [sigma**2 for sigma in effective_sigma(model(x), x)]
    assert sum(measured) / len(measured) == pytest.approx(expected, rel=0.08)


def test_where_no_gradient_comes_through_there_is_no_effective_field():
    layer = nn.Conv2d(1, 1, 3)
    nn.init.zeros_(layer.weight)
    x = torch.randn(2, 1, 9, 9, requires_grad=True)
    assert effective_sigma(layer(x), x) is None


# --- memory


def test_kept_bytes_are_those_of_a_hand_count():
    n, c = 4, 8
    model = nn.Sequential(
        nn.Conv2d(3, c, 3, padding=1, bias=False),  # keeps its input
        nn.BatchNorm2d(c),  # its input; mean and 1 / deviation, each (c,)
        nn.ReLU(),  # its output
        nn.Conv2d(c, c, 3, padding=1, bias=False),  # its input: the ReLU's output, already kept
        nn.Flatten(),
        nn.Linear(c * 36, 5),  # its input: the convolution's output
    )
    result = cost(Subject(model, torch.randn(n, 3, 6, 6)), repeats=1)
    maps = 4 * n * c * 36
    assert result.summary["kept_bytes"] == 4 * n * 3 * 36 + 3 * maps + 2 * 4 * c
    assert result.summary["kept_per_sample"] * n == result.summary["kept_bytes"]
    weights = sum(p.numel() for p in model.parameters())
    assert result.summary["fixed_bytes"] == 12 * weights


def test_kept_bytes_grow_with_the_batch_and_halve_with_the_precision():
    def kept(n: int, dtype: torch.dtype) -> int:
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).to(dtype)
        result = cost(Subject(model, torch.randn(n, 8, dtype=dtype)), repeats=1)
        return result.summary["kept_bytes"]

    assert kept(8, torch.float32) == 2 * kept(4, torch.float32) == 2 * kept(8, torch.bfloat16)


def test_parts_add_up_to_the_whole_and_units_are_among_them():
    model = create_model("resnet20_cifar")
    subject = Subject(model, torch.randn(2, 3, 16, 16), effort="quick")
    result = cost(subject)
    table = result.tables["parts"]
    assert (
        sum(table["parameters"])
        == result.summary["parameters"]
        == known("resnet20_cifar").parameters
    )
    assert sum(table["multiply_adds_share"]) == pytest.approx(1)
    assert sum(table["kept"]) == result.summary["kept_bytes"]
    names = [row["part"] for row in table.rows if row["unit"]]
    assert names == [unit.name for unit in subject.anatomy.units]
    assert all(low <= at <= high for low, at, high in zip(
        table["milliseconds_low"], table["milliseconds"], table["milliseconds_high"], strict=True
    ))  # fmt: skip
    grown = [field[0] for field in table["field"] if field]
    assert max(grown) == 81


def test_the_effective_field_is_smaller_than_the_theoretical_and_grows_with_depth():
    torch.manual_seed(0)
    result = cost(Subject(create_model("plain20_cifar"), torch.randn(2, 3, 32, 32)), repeats=1)
    assert 0 < result.summary["effective_field"][0] < result.summary["field"][0]


def test_networks_without_pictures_or_units_have_costs_too():
    result = cost(Subject(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), torch.randn(3, 4)), repeats=1)
    assert result.summary["multiply_adds"] == 32
    assert result.summary["field"] is None
    words = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    result = cost(Subject(words, torch.randint(0, 9, (2, 5))), repeats=1)
    assert result.summary["multiply_adds"] == 5 * 8


def test_no_timed_pass_is_refused():
    with pytest.raises(BadInput, match="1 or more"):
        cost(Subject(nn.Linear(2, 2), torch.randn(2, 2)), repeats=0)


# --- verdicts


def findings(model: nn.Module, x: torch.Tensor) -> list:
    subject = Subject(model, x, effort="quick")
    return check(subject, cost(subject, repeats=1))


class Chain(nn.Module):
    """Residual units of these widths inside."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, w, 3, padding=1), nn.ReLU(), nn.Conv2d(w, 4, 3, padding=1))
            for w in widths
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for unit in self.units:
            x = x + unit(x)
        return x.mean((2, 3))


def test_a_unit_that_takes_most_of_the_memory_is_named_and_equal_ones_are_not():
    x = torch.randn(2, 4, 8, 8)
    (finding,) = findings(Chain([4, 4, 200, 4, 4]), x)
    assert (finding.check, finding.severity, finding.where) == ("heavy_unit", "note", ("units.2",))
    assert finding.evidence[0].expected == pytest.approx(1 / 5)
    assert findings(Chain([8] * 5), x) == []


def test_a_unit_is_slow_only_if_it_is_in_three_passes_or_more():
    subject = Subject(Chain([4] * 4), torch.randn(2, 4, 8, 8))
    for repeats, names in ((2, []), (3, ["heavy_unit"])):
        result = cost(subject, repeats=repeats)
        row = next(row for row in result.tables["parts"].rows if row["unit"])
        row |= {"time_share_low": 0.6, "time_share": 0.7, "time_share_high": 0.8}
        assert [f.check for f in check(subject, result)] == names


def test_pixels_that_no_output_sees_are_found_and_those_behind_a_kernel_are_not():
    def net(kernel: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 4, kernel, stride=4), nn.ReLU(), nn.Conv2d(4, 4, 1), Mean()
        )

    x = torch.randn(2, 3, 16, 16)
    (finding,) = findings(net(2), x)
    assert finding.check == "blind_pixels" and finding.evidence[0].measured == 0.5
    assert findings(net(4), x) == []


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_a_short_field_matters_only_where_the_output_has_positions():
    x = torch.randn(2, 3, 16, 16)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    (finding,) = findings(body, x)
    assert (finding.check, finding.severity) == ("short_field", "note")
    assert finding.evidence[0].measured == 5 / 16
    assert findings(nn.Sequential(body, Mean()), x) == []
    wide = nn.Sequential(nn.Conv2d(3, 4, 17, padding=8), nn.Conv2d(4, 2, 15, padding=7))
    assert findings(wide, x) == []


HEALTHY = ("resnet20_cifar", "highway19_cifar")
MORE = (
    *("fixup_resnet20_cifar", "nf_resnet20_cifar", "skipinit_resnet20_cifar", "resnet9_cifar"),
    *("preact_resnet20_cifar", "shake_shake26_2x32d_cifar", "wrn16_4_cifar", "resnetv2_18"),
    *("stable_resnet20_cifar", "alexnet", "seresnet18", "resnet50d", "resnext29_8x64d_cifar"),
    *("densenet40_12_cifar", "vgg16_bn_cifar"),
)


@pytest.mark.parametrize(
    "name", [*HEALTHY, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_no_registered_model_is_called_ill(name):
    side = 32 if known(name).input_size <= 64 else max(64, known(name).smallest)
    assert findings(create_model(name), torch.randn(2, 3, side, side)) == []


def test_the_shares_of_one_pass_add_up_to_it():
    rows = cost(Subject(Chain([4] * 4), torch.randn(2, 4, 8, 8)), repeats=1).tables["parts"].rows
    assert math.isclose(sum(row["time_share"] for row in rows), 1)
