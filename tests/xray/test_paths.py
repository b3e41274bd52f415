"""Paths: numbers of them by closed forms, gradients by length against every single path, taken by hand."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import residua
from residua.errors import BadInput, ResiduaError
from residua.models.densenet import densenet
from residua.models.highway import highway
from residua.models.residual import residual_network
from residua.nn.blocks import BasicBlock
from residua.xray.checks.paths import check
from residua.xray.paths import paths
from residua.xray.paths.counting import nesting, share_between
from residua.xray.paths.exact import effective, run_of
from residua.xray.paths.forward import Handlers, Samples
from residua.xray.paths.lengths import Lengthen, by_length, through
from residua.xray.paths.measure import parts_of
from residua.xray.statistics import statistics_learned
from residua.xray.subject import Subject


def subject(model: nn.Module, shape: tuple[int, ...], samples: int = 2, **options) -> Subject:
    torch.manual_seed(1)
    x = torch.randn(samples, *shape, dtype=next(model.parameters()).dtype)
    return Subject(model, x, **options)


def coefficients(
    found: Subject, statistics: str = "running", part: int = 0, sample: int = 0
) -> torch.Tensor:
    """Return g_k (K + 1, ...) of one sample: of the whole (part 0) or of a stage (1, 2, ...)."""
    one = parts_of(found.anatomy, nesting(found.anatomy), 10**6)[part]
    lengthen = Lengthen()
    nodes = [node for node in (one.start, one.end) if node is not None]
    with found.running(statistics):
        samples = Samples(found, statistics, 1)
        handlers = Handlers(lengthen, lengthen)
        start = parts_of(found.anatomy, nesting(found.anatomy), 2)[0].start
        with samples.forward(slice(sample, sample + 1), start, nodes, handlers) as kept:
            output = kept.scalar if one.end is None else kept.values[one.end]
            (arriving,) = torch.autograd.grad(kept.scalar, output, retain_graph=True)
            lengthen.units = {unit.index for unit in one.units}
            return by_length(output, kept.values[one.start], arriving, one.lengths)


def by_cutting(found: Subject, statistics: str = "running", part: int = 0) -> torch.Tensor:
    """Return g_k by brute force: one backward pass for each of the 2^K sets of branches left open.

    G(T) is the gradient with the branches in T open: a sum over the paths that take none but branches in
    T. By inclusion and exclusion the path that takes just those in S is the sum over T in S of
    (-1)^(|S| - |T|) G(T).
    """
    one = parts_of(found.anatomy, nesting(found.anatomy), 10**6)[part]
    start = parts_of(found.anatomy, nesting(found.anatomy), 2)[0].start
    places = {unit.index: 1 << i for i, unit in enumerate(one.units)}
    opened = 0

    def gate(unit, value):
        def backward(g):
            closed = unit.index in places and not places[unit.index] & opened
            return torch.zeros_like(g) if closed else g

        return through(value, backward)

    sets = range(1 << len(places))
    paths_of = []
    with found.running(statistics):
        samples = Samples(found, statistics, 1)
        handlers = Handlers(gate, gate)
        with samples.forward(slice(0, 1), start, [one.start], handlers) as kept:
            for number in sets:
                opened = number
                value = kept.values[one.start]
                paths_of += torch.autograd.grad(kept.scalar, value, retain_graph=True)
    for place in places.values():  # inclusion and exclusion, a unit at a time
        for taken in sets:
            if taken & place:
                paths_of[taken] = paths_of[taken] - paths_of[taken ^ place]
    total = torch.zeros(len(places) + 1, *paths_of[0].shape, dtype=torch.float64)
    for taken in sets:
        total[taken.bit_count()] += paths_of[taken]
    return total


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Compare each length on its own to 1e-6 of its norm, where it is above what cutting rounds off."""
    floor = 1e-12 * right.norm()
    pairs = zip(left, right, strict=True)
    return all((a - b).norm() <= 1e-6 * b.norm() + floor for a, b in pairs)


class Rows(nn.Module):
    """Units in a row, each a function of its shortcut's input and its branch's, which a test can part."""

    def __init__(self, kind: str, units: int = 5, width: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        grown = [width * (i + 1) if "dense" in kind else width for i in range(units + 1)]
        self.layers = nn.ModuleList(nn.Linear(w, width) for w in grown[:-1])
        self.gates = nn.ModuleList(nn.Linear(w, width) for w in grown[:-1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(w) for w in grown[:-1])
        for norm in self.norms:
            nn.init.normal_(norm.running_mean, std=0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2)
        self.scales = nn.Parameter(torch.linspace(0.3, 0.8, units))
        self.head = nn.Linear(grown[-1], 2)
        self.double()

    def step(self, i: int, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return what unit i makes of a on its shortcut and b on its branch, gate included."""
        if self.kind == "v2":
            return a + self.layers[i](F.silu(self.norms[i](b)))
        h = self.layers[i](b)
        if self.kind == "v1":
            return F.softplus(a + torch.tanh(h))
        if self.kind == "skip_init":
            return a + self.scales[i] * torch.tanh(h)
        if self.kind == "in_place":
            h.mul_(0.5)
            h += a
            return F.leaky_relu_(h)
        if self.kind == "highway":
            gate = torch.sigmoid(self.gates[i](b))
            return gate * torch.tanh(h) + (1 - gate) * a
        if self.kind == "lerp":
            return torch.lerp(a, torch.tanh(h), torch.sigmoid(self.gates[i](b)))
        return torch.cat([a, torch.tanh(h)], 1)  # dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "dense_list":
            kept = [x]
            for layer in self.layers:
                kept.append(torch.tanh(layer(torch.cat(kept, 1))))
            return self.head(torch.cat(kept, 1))
        for i in range(len(self.layers)):
            x = self.step(i, x, x)
        return self.head(x)


def by_hand(found: Subject) -> torch.Tensor:
    """Return g_k as a sum over every single path of the product of its Jacobians, units taken apart."""
    model, x = found.model.eval(), found.inputs[0]
    past, along = [], []
    for i in range(len(model.layers)):

        def apart(a: torch.Tensor, b: torch.Tensor, i: int = i) -> torch.Tensor:
            return model.step(i, a[None], b[None])[0]

        sides = torch.autograd.functional.jacobian(apart, (x, x))
        past.append(sides[0])
        along.append(sides[1])
        x = apart(x, x).detach()
    x.requires_grad_()
    (arriving,) = torch.autograd.grad(found.scalar(model.head(x[None])), x)
    total = torch.zeros(len(past) + 1, len(found.inputs[0]), dtype=torch.float64)
    for size in range(len(past) + 1):
        for taken in combinations(range(len(past)), size):
            g = arriving
            for i in reversed(range(len(past))):
                g = (along if i in taken else past)[i].T @ g
            total[size] += g
    return total


ROWS = ["v1", "v2", "skip_init", "in_place", "highway", "lerp", "dense"]


@pytest.mark.parametrize("kind", ROWS)
def test_gradient_by_length_is_the_sum_over_every_single_path(kind):
    found = subject(Rows(kind), (3,))
    assert len(found.anatomy.units) == 5
    exact = coefficients(found)
    assert same(exact[:, 0], by_hand(found))


@pytest.mark.parametrize("kind", [*ROWS, "dense_list"])
def test_gradient_by_length_agrees_with_cutting_branches_open(kind):
    found = subject(Rows(kind), (3,))
    assert same(coefficients(found), by_cutting(found))


def test_ten_units_have_1024_paths_and_all_of_them_are_in_the_sum():
    found = subject(Rows("v2", units=10), (3,))
    assert same(coefficients(found)[:, 0], by_hand(found))


def test_a_list_of_maps_is_the_same_network_as_concatenating_at_every_step():
    one, other = (coefficients(subject(Rows(kind), (3,))) for kind in ("dense", "dense_list"))
    assert same(one, other)


def network(kind: str) -> nn.Module:
    """Return a small network of ours, in double precision."""
    torch.manual_seed(0)
    common = {"num_classes": 3, "in_channels": 3}
    if kind == "densenet":
        model = densenet(depths=(2, 2), growth=3, bottleneck=True, small=True, **common)
    elif kind == "highway":
        model = highway(depths=(2, 2), widths=(4, 6), **common)
    else:
        options = {
            "v1": {},
            "v1 zero-padded": {"shortcut": "A"},
            "v2": {"order": "preactivation", "stem": "3x3"},
            "SkipInit": {"merge": "skip_init(0.4)", "norm": "none"},
            "exclusive gate": {"merge": "exclusive_gate(-1)"},
            "shortcut gate": {"merge": "shortcut_gate(-1)"},
            "squeeze": {"attention": "se"},
        }[kind]
        given = {"block": BasicBlock, "depths": (2, 2), "widths": (4, 6), "stem": "3x3"}
        model = residual_network(**{**given, **common, **options})
    return model.double()


OURS = [
    "v1",
    "v1 zero-padded",
    "v2",
    "SkipInit",
    "exclusive gate",
    "shortcut gate",
    "squeeze",
    "densenet",
    "highway",
]


@pytest.mark.parametrize("statistics", ["running", "detached"])
@pytest.mark.parametrize("kind", OURS)
def test_networks_of_ours_agree_with_cutting_branches_open(kind, statistics):
    found = subject(network(kind), (3, 8, 8))
    assert len(found.anatomy.units) == 4
    assert same(coefficients(found, statistics), by_cutting(found, statistics))


class Foreign(nn.Module):
    """v1 blocks as others write them: norms as functions, one ReLU, additions in place, a wide shortcut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (4, 4, 6, 6)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        pairs = list(zip((4, *widths), widths, strict=False))
        self.first = nn.ParameterList(torch.randn(b, a, 3, 3) / 4 for a, b in pairs)
        self.second = nn.ParameterList(torch.randn(b, b, 3, 3) / 4 for _, b in pairs)
        self.wide = nn.Conv2d(4, 6, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        for one, two in zip(self.first, self.second, strict=True):
            grows = one.shape[0] != one.shape[1]
            out = F.conv2d(x, one, stride=2 if grows else 1, padding=1)
            mean, var = torch.zeros(len(one)).double(), torch.ones(len(one)).double()
            out = self.relu(F.batch_norm(out, mean, var))
            out = F.conv2d(out, two, padding=1)
            out += self.wide(x) if grows else x
            x = F.relu_(out)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Trunk(nn.Module):
    """Branches are added to the trunk itself, in place, and its input is the network's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1.0
        for layer in self.layers:
            x += torch.tanh(layer(x.clone()))
        return x


class Nested(nn.Module):
    """Two units inside the branch of one, and one on its shortcut, as in an hourglass; one before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(6))

    def unit(self, i: int, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.layers[i](x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.unit(0, x)
        inner = self.unit(3, self.unit(2, torch.tanh(self.layers[1](x))))
        return self.unit(4, x) + torch.tanh(self.layers[5](inner))


@pytest.mark.parametrize(("model", "shape"), [(Foreign, (3, 8, 8)), (Trunk, (3,)), (Nested, (3,))])
def test_networks_of_others_agree_with_cutting_branches_open(model, shape):
    found = subject(model().double(), shape)
    assert len(found.anatomy.units) == {Foreign: 4, Trunk: 4, Nested: 5}[model]
    exact = coefficients(found)
    assert same(exact, by_cutting(found)[: len(exact)])


def test_units_inside_units_multiply_on_their_side():
    found = subject(Nested().double(), (3,))
    # (1 + t) before, then: shortcut (1 + t), branch t (1 + t)^2
    expected = _product([1, 1], [1, 1 + 1, 2, 1])
    assert nesting(found.anatomy).paths(nesting(found.anatomy).trunk) == expected
    facts = paths(found).summary
    assert facts["paths"] == sum(expected) and facts["longest"] == 4


def test_paths_of_members_side_by_side_add():
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList(Rows("v1", units) for units in (2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([member(x) for member in self.members]).mean(0)

    found = subject(Ensemble(), (3,))
    counts = [2, 5, 4, 1]  # (1 + t)^2 + (1 + t)^3
    assert nesting(found.anatomy).paths(found.anatomy.trunk) == counts
    assert paths(found).tables["lengths"]["paths"] == counts
    assert same(coefficients(found), by_cutting(found)[:4])


def _product(left: list[int], right: list[int]) -> list[int]:
    return [
        sum(left[i] * right[k - i] for i in range(len(left)) if 0 <= k - i < len(right))
        for k in range(len(left) + len(right) - 1)
    ]


@given(units=st.integers(1, 12), deleted=st.integers(0, 12))
@settings(deadline=None, max_examples=8)
def test_k_units_make_binomials_and_deleting_d_leaves_two_to_the_minus_d(units, deleted):
    found = nesting(subject(Rows("v1", units), (3,)).anatomy)
    assert found.paths(found.trunk) == [math.comb(units, k) for k in range(units + 1)]
    cut = {unit.index for unit in found.trunk[:deleted]}
    assert found.share_left(cut) == Fraction(1, 2 ** min(deleted, units))


def test_of_54_blocks_paths_of_5_to_17_are_0_45367_percent():
    counts = [math.comb(54, k) for k in range(55)]
    assert f"{share_between(counts, 5, 17):.5%}" == "0.45367%"


def test_counts_of_a_thousand_units_are_exact():
    found = nesting(subject(Rows("v1", 1000), (3,), 1).anatomy)
    counts = found.paths(found.trunk)
    assert counts[:3] == [1, 1000, 499500]
    assert sum(counts) == 2**1000 == found.number(found.trunk)


class Scalar(nn.Module):
    """y = x + a_i x, unit after unit: the gradient by paths of length k is C(K, k) a^k for equal a."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in factors)
        for layer, factor in zip(self.layers, factors, strict=True):
            nn.init.constant_(layer.double().weight, factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def scalar(*factors: float, **options) -> Subject:
    one = torch.ones(1, 1, dtype=torch.float64)
    return Subject(Scalar(*factors), one, 0, lambda out, _: out.sum(), **options)


@given(units=st.integers(2, 12), factor=st.floats(-0.5, 1.5).filter(lambda a: abs(a) > 0.01))
@settings(deadline=None, max_examples=6)
def test_a_linear_network_has_binomial_gradients(units, factor):
    result = paths(scalar(*[factor] * units), draws=2)
    table = result.tables["lengths"]
    for k in range(units + 1):
        assert table["norm"][k] == pytest.approx(math.comb(units, k) * abs(factor) ** k, rel=1e-9)
        assert table["norm_per_path"][k] == pytest.approx(abs(factor) ** k, rel=1e-9)
        assert table["sampled"][k] == pytest.approx(abs(factor) ** k, rel=1e-9)
    weight = abs(factor) / (1 + abs(factor))
    assert result.summary["effective_depth"] == pytest.approx(units * weight)
    assert sum(table["signed"]) == pytest.approx(1.0)
    if factor > 0:  # one dimension and one sign: nothing cancels
        assert result.summary["signed_depth"] == pytest.approx(units * weight)
        assert result.summary["sampled_depth"] == pytest.approx(units * weight)
        assert result.summary["cancellation"] == pytest.approx(1.0)
    else:
        whole = (1 + abs(factor)) ** units / abs(1 + factor) ** units
        assert result.summary["cancellation"] == pytest.approx(whole, rel=1e-6)


def test_unequal_factors_give_elementary_symmetric_polynomials():
    table = paths(scalar(0.5, 2.0, -0.25)).tables["lengths"]
    e = [1, 0.5 + 2 - 0.25, 0.5 * 2 - 0.5 * 0.25 - 2 * 0.25, 0.5 * 2 * -0.25]
    assert table["norm"] == pytest.approx([abs(x) for x in e])
    assert table["signed"] == pytest.approx([x / sum(e) for x in e])


@pytest.mark.parametrize("statistics", ["running", "detached", "batch"])
def test_the_lengths_sum_to_the_ordinary_gradient(statistics):
    found = subject(network("v1"), (3, 8, 8), 3)
    facts = paths(found, statistics=statistics, samples=3).summary
    assert facts["statistics"] == statistics and facts["deviation"] < 1e-12
    assert facts["samples"] == 3


def test_batch_statistics_carry_gradient_exactly_and_differently():
    found = subject(network("v1"), (3, 8, 8), 4)
    tables = {
        s: paths(found, statistics=s, samples=4).tables["lengths"] for s in ("batch", "detached")
    }
    assert tables["batch"]["share"] != pytest.approx(tables["detached"]["share"], rel=1e-3)


def test_frozen_statistics_are_the_whole_batch_s_though_each_sample_runs_alone():
    torch.manual_seed(1)
    x = torch.randn(4, 3, dtype=torch.float64)
    found = Subject(Rows("v2"), x, 0, lambda out, _: out.square().sum())
    with found.running("detached"):
        leaf = x.clone().requires_grad_()
        (whole,) = torch.autograd.grad(found.scalar(found.forward(leaf)), leaf)
    for sample in range(4):
        alone = coefficients(found, "detached", sample=sample).sum(0)[0]
        assert torch.allclose(alone, whole[sample], rtol=1e-10)


@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("kind", ["v1", "v2", "densenet", "highway"])
def test_a_stage_s_gradient_by_length_agrees_with_cutting_its_branches(kind, part):
    found = subject(network(kind), (3, 8, 8))
    exact = coefficients(found, "detached", part)
    assert len(exact) == 3
    assert same(exact, by_cutting(found, "detached", part))


def test_stages_that_other_values_bypass_are_measured_to_the_loss():
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first = x + torch.tanh(self.a(x))
            small = F.avg_pool2d(first, 2)
            second = small + torch.tanh(self.b(small))
            return first.mean((2, 3)), second.mean((2, 3))

    found = subject(Bypass().double(), (2, 4, 4))
    parts = parts_of(found.anatomy, nesting(found.anatomy), 99)
    assert [part.name for part in parts] == ["whole", "0", "1"]
    for part in range(3):
        assert same(coefficients(found, part=part), by_cutting(found, part=part))
    assert paths(found).summary["deviation"] < 1e-12


def test_drawn_paths_are_single_paths():
    found = subject(Rows("v1", 4), (3,), 1)
    table = paths(found, draws=6).tables["lengths"]  # C(4, 2) = 6: all of them
    model, x = found.model.eval(), found.inputs[0]
    past, along = [], []
    for i in range(4):
        sides = torch.autograd.functional.jacobian(
            lambda a, b, i=i: model.step(i, a[None], b[None])[0], (x, x)
        )
        past.append(sides[0])
        along.append(sides[1])
        x = model.step(i, x[None], x[None])[0].detach()
    leaf = x.requires_grad_()
    (arriving,) = torch.autograd.grad(found.scalar(model.head(leaf[None])), leaf)
    for k in range(5):
        norms = []
        for taken in combinations(range(4), k):
            g = arriving
            for i in reversed(range(4)):
                g = (along if i in taken else past)[i].T @ g
            norms.append(float(g.norm()))
        assert table["draws"][k] == len(norms) == table["paths"][k]
        assert table["sampled"][k] == pytest.approx(sum(norms) / len(norms))
        assert table["sampled_total"][k] == pytest.approx(sum(norms))
        assert table["sampled_total"][k] >= table["norm"][k] * (1 - 1e-12)


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        (Nested, (3,), "units lie in other units or beside them"),
        (lambda: Rows("lerp"), (3,), "a gate"),
        (lambda: Rows("dense_list"), (3,), "lists of earlier values"),
    ],
)
def test_where_single_paths_cannot_be_followed_a_note_says_so(model, shape, why):
    result = paths(subject(model().double(), shape), draws=2)
    assert any(why in note for note in result.notes)
    assert result.tables["lengths"]["sampled"][0] is None


def test_longer_lengths_are_told_as_one_and_nothing_is_lost():
    found = subject(Rows("v2", 6), (3,), 1)
    whole, part = paths(found), paths(found, lengths=3)
    assert part.summary["deviation"] < 1e-12
    assert part.tables["lengths"]["norm"][:2] == pytest.approx(whole.tables["lengths"]["norm"][:2])
    assert part.tables["lengths"]["paths"] == [1, 6, 57]
    assert sum(part.tables["lengths"]["signed"]) == pytest.approx(1.0)
    assert part.summary["effective_depth"] <= whole.summary["effective_depth"]
    assert any("told as one" in note for note in part.notes)
    little = paths(found, memory=3 * 4 * 4 * 3 / 2**30)
    assert little.summary["lengths_told_apart"] == 3


def test_statistics_are_those_learned_or_else_of_the_batch():
    fresh = network("v1")
    assert statistics_learned(fresh) is False
    assert paths(subject(fresh, (3, 8, 8))).summary["statistics"] == "detached"
    fresh.train()(torch.randn(4, 3, 8, 8).double())
    assert statistics_learned(fresh) is True
    assert paths(subject(fresh, (3, 8, 8))).summary["statistics"] == "running"
    assert statistics_learned(Rows("v1").layers) is None


def test_half_precision_is_measured_in_single():
    torch.manual_seed(0)
    model = network("SkipInit").to(torch.bfloat16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = paths(subject(model, (3, 8, 8)))
    assert result.summary["deviation"] < 1e-5
    after = model.state_dict()
    assert all(v.dtype == torch.bfloat16 and torch.equal(v, after[n]) for n, v in before.items())


class Words(nn.Module):
    """Pre-norm transformer layers on token numbers, by fused attention."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(11, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width)) for _ in range(2)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens)
        for i in range(2):
            q, k, v = self.qkv[i](self.norms[2 * i](x)).unsqueeze(1).chunk(3, -1)
            x = x + self.out[i](F.scaled_dot_product_attention(q, k, v).squeeze(1))
            x = x + self.mlp[i](self.norms[2 * i + 1](x))
        return x.mean(1)


def test_transformers_on_token_numbers():
    model = Words().double()
    found = Subject(model, torch.randint(0, 11, (2, 5)))
    assert len(found.anatomy.units) == 4
    assert same(coefficients(found), by_cutting(found))


def test_the_model_comes_back_untouched_and_the_seed_decides_the_draws():
    found = subject(network("v2").train(), (3, 8, 8))
    found.model.layer = None
    before = {n: v.clone() for n, v in found.model.state_dict().items()}
    wanted = [p.requires_grad for p in found.model.parameters()]
    state = torch.get_rng_state()
    one, two = paths(found), paths(found)
    assert one.tables["lengths"].rows == two.tables["lengths"].rows
    assert torch.equal(state, torch.get_rng_state()) and found.model.training
    assert [p.requires_grad for p in found.model.parameters()] == wanted
    assert all(torch.equal(v, found.model.state_dict()[n]) for n, v in before.items())
    assert all(p.grad is None for p in found.model.parameters())


def test_other_norms_and_activations_with_gradients_of_other_shapes():
    class Seen(
        nn.Module
    ):  # an input that is a mapping, and a batch that is not the first dimension
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            x = picture.transpose(0, 1)
            return x + torch.tanh(self.layer(x))

    torch.manual_seed(0)
    found = Subject(Seen().double(), {"picture": torch.randn(2, 4, 3).double()})
    result = paths(found)
    assert result.summary["deviation"] < 1e-12 and result.summary["samples"] == 2


def test_progress_ends_at_one_and_figures_have_titles():
    told = []
    result = paths(
        subject(network("v1"), (3, 8, 8)), progress=lambda s, what: told.append((s, what))
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    assert set(result.figures) == {"counts", "gradient", "shares", "stages"}
    for figure in result.figures.values():
        assert all(figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis"))
    assert result.as_json()["summary"]["units"] == 4


@pytest.mark.parametrize(
    "options", [{"samples": 0}, {"draws": -1}, {"lengths": 0}], ids=lambda o: next(iter(o))
)
def test_counts_below_one_are_refused(options):
    with pytest.raises(BadInput, match="must be 1 or more"):
        paths(scalar(0.5, 0.5), **options)


def test_networks_without_units_and_losses_that_overflow_are_one_line():
    with pytest.raises(BadInput, match="no residual units"):
        paths(subject(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), (3,)))
    with pytest.raises(ResiduaError, match="no gradient to follow"):
        paths(scalar(*[1e30] * 12))


def test_the_shortest_run_of_lengths_that_holds_a_share():
    assert run_of([0.5, 0.3, 0.2], 0.95) == (0, 2)
    assert run_of([0.0, 0.0, 1.0, 0.0], 0.95) == (2, 2)
    assert effective([0.0, 0.0, 1.0]) == 2.0


# verdicts


def checks(found: Subject, **options):
    result = paths(found, **options)
    return [finding.check for finding in check(found, result)], result


class Dead(nn.Module):
    """Units whose branch ends in a ReLU that never opens, or in a layer of zeros."""

    def __init__(self, ill: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.last = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        for last in self.last:
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, -1.0 if ill else 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for one, two in zip(self.first, self.last, strict=True):
            x = x + F.relu(two(F.relu(one(x))))
        return x


def test_branches_that_are_dead_are_found_and_branches_that_start_at_zero_are_not():
    found, result = checks(subject(Dead(ill=True), (4,)))
    assert found == ["idle_branches"]
    assert result.summary["shortcut_share"] == 1.0 and len(result.summary["idle"]) == 3
    found, result = checks(subject(Dead(ill=False), (4,)))
    assert found == [] and result.summary["shortcut_share"] == 1.0


def test_a_trained_network_of_short_paths_gets_a_note_and_one_of_long_paths_none():
    def trained(factor: float) -> nn.Module:
        class Trained(Scalar):
            def __init__(self) -> None:
                super().__init__(*[factor] * 30)
                self.norm = nn.BatchNorm1d(1).double()
                self.norm.running_mean += 0.1

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(self.norm(x))

        return Trained()

    found, result = checks(subject(trained(0.1), (1,), 4))
    assert found == ["shallow_paths"]
    assert result.summary["effective_depth"] == pytest.approx(30 * 0.1 / 1.1)
    assert checks(subject(trained(1.0), (1,), 4))[0] == []


@pytest.mark.parametrize("merge", ["add", "skip_init", "exclusive_gate", "stable"])
def test_networks_as_they_are_initialised_get_no_verdict(merge):
    norm = "batch" if merge == "add" else "none"
    model = residua.create_model("resnet20_cifar", num_classes=4, merge=merge, norm=norm)
    found = subject(model, (3, 16, 16), effort="quick")
    assert checks(found)[0] == []


def test_a_head_of_zeros_gives_no_gradient_and_no_verdict():
    model = residua.create_model("fixup_resnet20_cifar", num_classes=4)
    found, result = checks(subject(model, (3, 16, 16), effort="quick"))
    assert found == [] and result.summary["effective_depth"] is None
    assert any("No gradient arrives" in note for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*residua.list_models("*20_cifar"), "resnetv2_18"])
def test_no_registered_model_gets_a_verdict_at_its_default_initialisation(name):
    model = residua.create_model(name, num_classes=4)
    found = subject(model, (3, 32, 32), effort="quick")
    if not found.anatomy.units:
        return
    assert checks(found)[0] == []


@pytest.mark.slow
def test_54_blocks_take_less_than_a_minute():
    model = residua.create_model("resnet110_cifar", num_classes=10)
    found = subject(model, (3, 32, 32), 4)
    began = time.perf_counter()
    result = paths(found, draws=0)
    assert time.perf_counter() - began < 60
    assert result.summary["units"] == 54 and result.summary["deviation"] < 1e-4


@pytest.mark.slow
def test_a_thousand_units_work_within_the_memory_that_is_given():
    found = subject(Rows("v2", 1000), (3,), 1)
    result = paths(found, draws=0)
    assert result.summary["lengths_told_apart"] == 1001 and result.summary["deviation"] < 1e-9
