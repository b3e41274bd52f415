"""Shattered gradients are measured as a loop over samples and inputs would measure them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.errors import BadInput
from residua.nn.merges.add import Add
from residua.nn.skip import Skip
from residua.xray import Subject
from residua.xray.cotangents import cosines, mixture
from residua.xray.frozen import FrozenNorms
from residua.xray.laws.correlation import gradient_correlations
from residua.xray.laws.noise import autocorrelation
from residua.xray.lines import between, random_line, why_no_line
from residua.xray.nonlinear_depth import depths_after
from residua.xray.result import Result
from residua.xray.shattered import shattered
from tests.xray.foreign import FunctionalNet

WIDTH = 128


def linear(width: int = WIDTH) -> nn.Linear:
    layer = nn.Linear(width, width, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / width))
    return layer


def mlp(layers: int, kind: str = "plain", norm: bool = False, width: int = WIDTH) -> nn.Sequential:
    """A network of ReLU layers: norm, ReLU, weights; kind "residual": each with a shortcut around it."""
    blocks: list[nn.Module] = []
    for _ in range(layers):
        norms = [nn.BatchNorm1d(width)] if norm else []
        branch = nn.Sequential(*norms, nn.ReLU(), linear(width))
        blocks.append(Skip(branch, nn.Identity(), Add()) if kind == "residual" else branch)
    return nn.Sequential(*blocks)


def measured(model: nn.Module, x: torch.Tensor, **options: object) -> Result:
    return shattered(Subject(model, x, effort="quick"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_wide_networks_follow_the_arc_cosine_law_at_the_input_over_6_networks(kind: str) -> None:
    """Bias-free He networks of 8 layers on unrelated inputs; the table's own law, from their correlation."""
    found = []
    for seed in range(6):
        torch.manual_seed(seed)
        x = torch.randn(16, WIDTH)
        row = measured(mlp(8, kind), x).tables["depth"].rows[0]
        assert row["most"] == 8
        assert row["fewest"] == (8 if kind == "plain" else 0)
        found.append(row["correlation"] - row[f"arc_{kind}"])
    assert abs(np.mean(found)) < 4 * np.std(found, ddof=1) / math.sqrt(6) + 0.02


def test_batch_norms_bring_the_published_law_back_over_6_networks() -> None:
    found = []
    for seed in range(6):
        torch.manual_seed(seed)
        table = measured(mlp(8, norm=True), torch.randn(48, WIDTH)).tables["depth"]
        found.append({row["most"]: row["correlation"] for row in table.rows})
    for layers in (1, 2, 3, 4, 5):
        mean = np.mean([curve[layers] for curve in found])
        assert mean == pytest.approx(2.0**-layers, abs=0.03)


def test_every_place_holds_the_mean_cosine_of_gradients_taken_one_sample_at_a_time() -> None:
    torch.manual_seed(0)
    model, x = mlp(3, "residual", width=16), torch.randn(5, 16)
    table = measured(model, x).tables["depth"]
    assert table["place"] == ["input", "0", "1", "2"]
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(16, generator=generator)
    for depth in range(4):
        single = []
        for sample in x:
            h = model[:depth](sample[None]).detach().requires_grad_()
            (g,) = torch.autograd.grad((model[depth:](h) * v).sum(), h)
            single.append(g[0])
        pairs = [F.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(single, 2)]
        assert table["correlation"][depth] == pytest.approx(torch.stack(pairs).mean().item(), 1e-4)


def test_in_training_mode_a_norm_takes_the_mean_off_the_gradient() -> None:
    """The sum of a first norm's input gradients is zero, which alone makes the mean cosine negative."""
    torch.manual_seed(0)
    model, x = mlp(2, norm=True), torch.randn(8, WIDTH)
    batch = measured(model, x, statistics="batch")
    detached = measured(model, x)
    assert batch.summary["high"] < 0 < detached.summary["low"]
    assert batch.summary["correlation"] == pytest.approx(-1 / 7, abs=0.03)
    assert any("takes the batch's mean off" in note for note in batch.notes)
    with Subject(model, x).running("batch"):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(mixture(model(leaf), 8, 0), leaf)
    assert g.sum(0).abs().max() < 1e-5 * g.abs().max()


def test_lines_keep_the_batchs_statistics() -> None:
    """A line's gradients are those of the function that the norms are on this very batch."""
    torch.manual_seed(0)
    model, x = mlp(2, norm=True, width=12), torch.randn(6, 12)
    result = measured(model, x, points=7)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(12, generator=generator)
    t = torch.linspace(0, 1, 7)[:, None]
    line = (x[0] + t * (x[1] - x[0])).requires_grad_()
    h, y = line, x
    for block in model:  # the line with the batch's own mean and variance
        var, mean = torch.var_mean(y, 0, correction=0)
        h, y = (block[1:]((z - mean) / (var + 1e-5).sqrt()) for z in (h, y))
    (g,) = torch.autograd.grad((h * v).sum(), line)
    table = result.tables["lines"]
    assert np.allclose(table["coordinates"], autocorrelation(g.numpy()), atol=1e-4)
    along = (g @ (x[1] - x[0])).numpy()
    assert np.allclose(table["projected"], autocorrelation(along), atol=1e-4)
    centred = measured(model, x, points=7, centred=True).tables["lines"]
    assert np.allclose(centred["coordinates"], autocorrelation(g.numpy(), centred=True), atol=1e-4)
    assert table["shift"][-1] == 1


def test_gradients_near_a_sample_follow_the_law_for_inputs_that_are_almost_the_same() -> None:
    """Plain networks of 12 BN-ReLU layers, n = 10: the law drives inputs apart by pi/(pi-1) a layer."""
    found = []
    for seed in range(10):
        torch.manual_seed(seed)
        subject = Subject(mlp(12, norm=True), torch.randn(64, WIDTH), seed=seed)
        table = shattered(subject, points=3).tables["near"]
        assert table["shift"] == [1e-3, 1e-1]
        found.append(np.array(table["correlation"]) - table["arc_plain"])
    error = np.std(found, 0, ddof=1) / math.sqrt(10)
    assert (np.abs(np.mean(found, 0)) < 4 * error + 0.01).all()
    assert error[1] < 0.05
    assert table["arc_plain"][0] > 0.98 and 0.2 < table["arc_plain"][1] < 0.3


def test_a_scalar_input_without_biases_cannot_shatter_and_the_result_says_so() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(1, WIDTH, bias=False), *mlp(30))
    x = torch.linspace(-2, 2, 8)[:, None]
    result = measured(deep, x)
    assert result.summary["cannot_shatter"]
    assert any("cannot shatter" in note for note in result.notes)
    matrix = np.sign(np.outer(x, x)[np.triu_indices(8, 1)])
    same = matrix > 0  # on one side of zero, where the gradient is one number
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(mixture(deep(leaf), 8, 0), leaf)
    pairs = cosines(g).numpy()[np.triu_indices(8, 1)]
    assert np.allclose(pairs[same], 1)
    with_bias = nn.Sequential(nn.Linear(1, WIDTH), *mlp(3))
    assert not measured(with_bias, x).summary["cannot_shatter"]


def test_a_zero_head_leaves_nothing_to_compare() -> None:
    model = nn.Sequential(*mlp(2, width=8), nn.Linear(8, 3))
    nn.init.zeros_(model[-1].weight)
    result = measured(model, torch.randn(4, 8))
    assert result.summary["correlation"] is None
    assert any("No gradient reaches the inputs" in note for note in result.notes)


class _Words(nn.Module):
    """Whole numbers in, residual blocks, a mapping out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.body = mlp(3, "residual", width=16)

    def forward(self, words: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.body(self.embed(words).mean(1))}


def test_norms_written_as_functions_are_no_hindrance() -> None:
    torch.manual_seed(0)
    table = measured(FunctionalNet(), torch.randn(4, 3, 8, 8)).tables["depth"]
    assert table["place"] == ["input", "blocks.0", "blocks.1", "blocks.2"]


class _TwoWays(nn.Module):
    """In training it takes another way than in evaluation, in which its operations were recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x) if self.training else x
        return x + torch.relu(self.layer(x))


def test_a_network_that_takes_another_way_is_compared_at_the_input_and_the_result_says_so() -> None:
    result = measured(_TwoWays(), torch.randn(4, 8))
    assert result.tables["depth"]["place"] == ["input"]
    assert any("another way" in note for note in result.notes)


def test_whole_numbers_are_compared_at_the_units_alone() -> None:
    torch.manual_seed(0)
    result = measured(_Words(), torch.randint(0, 11, (6, 5)))
    assert result.tables["depth"]["place"] == ["body.0", "body.1", "body.2"]
    assert "lines" not in result.tables
    assert any("whole numbers" in note for note in result.notes)


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(2, width=16)

    def forward(self, left: torch.Tensor, *, right: torch.Tensor) -> tuple[torch.Tensor, int]:
        return self.body(left.mul_(2) + right), 3  # writes to its input


def test_several_inputs_move_together_and_a_model_may_write_to_them() -> None:
    torch.manual_seed(0)
    inputs = {"left": torch.randn(4, 16), "right": torch.randn(4, 16)}
    subject = Subject(_Pair(), inputs, effort="quick")
    assert subject.anatomy.graph is not None
    before = {name: value.clone() for name, value in inputs.items()}
    result = shattered(subject)
    assert result.summary["correlation"] is not None
    assert len(result.tables["lines"]) == 6
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


def test_one_sample_has_a_random_line_and_no_pairs() -> None:
    result = measured(mlp(2, width=8), torch.randn(1, 8))
    assert result.summary["correlation"] is None
    assert result.summary["lines"] == 1
    assert len(result.tables["near"]) == 0


def test_the_model_comes_back_untouched() -> None:
    model = mlp(3, "residual", norm=True, width=16).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    shattered(Subject(model, torch.randn(6, 16)))
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_bad_requests_get_one_line() -> None:
    with pytest.raises(BadInput, match="3 points or more"):
        measured(mlp(1, width=4), torch.randn(4, 4), points=2)

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 3)

    with pytest.raises(BadInput, match="one entry a sample"):
        measured(Constant(), torch.randn(4, 4))


def test_progress_is_told() -> None:
    told: list[float] = []
    measured(mlp(1, width=4), torch.randn(4, 4), progress=lambda share, _: told.append(share))
    assert told == sorted(told) and told[0] == 0


def test_a_result_is_plain_values_and_every_column_says_what_it_means() -> None:
    result = measured(mlp(2, "residual", width=8), torch.randn(4, 8))
    for table in result.tables.values():
        names = [column.name for column in table.columns]
        assert all(column.meaning for column in table.columns)
        assert all(list(row) == names for row in table.rows)
    assert set(result.figures) == {"lines", "depth"}
    for figure in result.figures.values():
        assert all(len(trace["x"]) == len(trace["y"]) for trace in figure["data"])


class _Diamond(nn.Module):
    """x + (1 ReLU, then a max pool over 4) of (2 ReLUs), a ReLU at the end: 2 to 4 activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x)
        z = y + torch.relu(torch.tanh(y) * 2)
        return torch.relu(F.max_pool2d(z, 2))


def test_activations_are_counted_along_the_shortest_and_the_longest_path() -> None:
    graph = Subject(_Diamond(), torch.randn(2, 3, 4, 4)).anatomy.graph
    assert graph is not None
    at_input = depths_after(graph)[0]
    assert (at_input.fewest, at_input.most, at_input.chosen) == (2, 4, 0.25)


def test_frozen_norms_make_the_network_one_function_of_each_sample() -> None:
    torch.manual_seed(0)
    model, x = mlp(2, norm=True, width=8), torch.randn(6, 8)
    norms = FrozenNorms()
    with Subject(model, x).running("detached"):
        with norms.note():
            whole = model(x)
        with norms.use():
            single = torch.cat([model(x[:2])])
        with norms.use():
            again = model(x[2:])
    assert torch.allclose(torch.cat([single, again]), whole, atol=1e-6)
    model.train()
    assert torch.allclose(model(x), whole, atol=1e-5)


def test_lines_begin_and_end_where_they_say() -> None:
    x = torch.randn(3, 2, 2)
    t = torch.tensor([0.0, 0.5, 1.0])
    line = between((x, x.long()), torch.zeros(3).long(), torch.full((3,), 2), t)
    assert torch.allclose(line[0], torch.stack([x[0], (x[0] + x[2]) / 2, x[2]]))
    assert line[1].dtype == torch.long
    away = random_line(torch.randn(400, 50), 0, t, seed=1)
    apart = math.sqrt(2 * 50)  # of two Gaussian samples
    assert (away[2] - away[0]).norm().item() == pytest.approx(apart, rel=0.05)
    assert why_no_line(x) == ""
    assert "whole numbers" in why_no_line(torch.ones(3, dtype=torch.long))
    assert "one entry a sample" in why_no_line((x, torch.tensor(1.0)))


def test_the_mean_pair_law_is_that_of_the_table() -> None:
    """The arc-cosine columns begin at the inputs' own correlation: samples around a common mean, 1/2."""
    torch.manual_seed(0)
    x = torch.randn(32, WIDTH) + torch.randn(WIDTH)
    row = measured(mlp(4), x).tables["depth"].rows[0]
    assert row["arc_plain"] == pytest.approx(gradient_correlations(4, 0.5)[0], abs=0.05)
    assert row["correlation"] == pytest.approx(row["arc_plain"], abs=0.06)
