"""The signal along the depth, against forward hooks, closed forms and networks that are ill by construction.

Networks are drawn once from a seed; "agrees" is: the law lies in the 95 % interval over blocks or seeds.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import residua
from residua.errors import BadInput
from residua.xray.checks.signal import check
from residua.xray.growth import growth
from residua.xray.laws.explosion import LARGE_BATCH_GROWTH, norm_gradient_growth
from residua.xray.laws.moments import overflow_depth, residual_batch_variance
from residua.xray.moments import moments
from residua.xray.result import Result
from residua.xray.signal import signal
from residua.xray.subject import Subject

WIDTH = 256


def he(width: int = WIDTH, gain: float = 2.0) -> nn.Linear:
    layer = nn.Linear(width, width, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(gain / width))
    return layer


class Residual(nn.Module):
    """y = scale (x + W relu(x)), or with norm y = x + W relu(norm(x))."""

    def __init__(
        self, blocks: int, scale: float = 1.0, normed: bool = False, width: int = WIDTH
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(he(width) for _ in range(blocks))
        norms = (nn.BatchNorm1d(width) if normed else nn.Identity() for _ in range(blocks))
        self.norms = nn.ModuleList(norms)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(F.relu(norm(x)))
            if self.scale != 1:
                x = x * self.scale
        return x


class Plain(nn.Module):
    def __init__(self, layers: int, normed: bool, gain: float = 2.0, width: int = WIDTH) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [he(width, gain), *([nn.BatchNorm1d(width)] if normed else []), nn.ReLU()]
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def subject_of(build: Callable[[], nn.Module], samples: int = 64, width: int = WIDTH) -> Subject:
    def rebuild(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build()

    model = rebuild(0)
    torch.manual_seed(100)
    return Subject(model, torch.randn(samples, width), rebuild=rebuild)


def rows(result: Result, quantity: str, table: str = "growth") -> dict[str, dict]:
    key = {"growth": "over", "laws": "law"}[table]
    return {r[key]: r for r in result.tables[table].rows if r["quantity"] == quantity}


@pytest.fixture(scope="module")
def doubling() -> Result:
    return signal(subject_of(lambda: Residual(12)))


def test_the_second_moment_doubles_with_each_block_over_blocks_and_seeds(doubling: Result) -> None:
    found = rows(doubling, "second_moment")
    for over in ("blocks", "seeds"):
        assert found[over]["low"] <= 2 <= found[over]["high"]
        assert found[over]["high"] - found[over]["low"] < 0.3
    assert (found["blocks"]["n"], found["seeds"]["n"], found["batches"]["n"]) == (11, 3, 4)
    assert doubling.summary["second_moment_law"] == "doubling"
    assert doubling.summary["second_moment_r2"] > 0.99


def test_the_gradient_doubles_backward_too(doubling: Result) -> None:
    assert doubling.summary["gradient_second_moment_law"] == "doubling"


def test_the_batch_variance_grows_more_slowly_and_as_its_own_law_says(doubling: Result) -> None:
    factor = rows(doubling, "batch_variance")["blocks"]["factor"]
    expected = (residual_batch_variance(12) / residual_batch_variance(1)) ** (1 / 11)
    assert factor < 1.95
    assert factor == pytest.approx(expected, rel=0.03)


def test_overflow_is_foretold_by_the_fitted_growth(doubling: Result) -> None:
    table = doubling.tables["range"]
    row = next(r for r in table.rows if (r["quantity"], r["dtype"]) == ("values", "float16"))
    last = doubling.tables["signal"]["second_moment"][-1]
    more = overflow_depth(doubling.summary["second_moment_growth"], last, 65504.0)
    assert row["how"] == "foretold"
    assert row["overflow"] == math.ceil(12 + more)
    assert row["overflow"] in range(30, 36)  # 32 by the law, from a second moment of 1


def test_one_over_root_2_keeps_the_second_moment() -> None:
    found = signal(subject_of(lambda: Residual(12, math.sqrt(0.5))))
    assert found.summary["second_moment_law"] == "constant"
    assert found.summary["gradient_second_moment_law"] == "constant"
    assert all(r["overflow"] is None for r in found.tables["range"].rows)


def test_a_norm_first_in_the_branch_adds_one_unit_a_block() -> None:
    found = signal(subject_of(lambda: Residual(12, normed=True)))
    assert found.summary["second_moment_law"] == "linear"
    assert found.summary["second_moment_gain"] == pytest.approx(1.0, abs=0.1)
    # 1 + c u_k with u_k = 1 / k, and c the explosion behind one norm
    assert found.summary["gradient_second_moment_law"] == "share"
    assert found.summary["gradient_second_moment_gain"] == pytest.approx(
        norm_gradient_growth(64) ** 2, rel=0.15
    )


def test_the_gradient_of_plain_BN_ReLU_grows_by_1_2112_a_layer_and_more_in_small_batches() -> None:
    growths = {}
    for samples in (16, 256):
        found = signal(subject_of(lambda: Plain(14, normed=True), samples), parts=0, seeds=6)
        low, high = (
            math.sqrt(rows(found, "gradient_second_moment")["seeds"][end])
            for end in ("low", "high")
        )
        assert low <= norm_gradient_growth(samples) <= high
        assert high - low < 0.1
        assert found.summary["gradient_second_moment_law"] == "explosion"
        growths[samples] = math.sqrt(found.summary["gradient_second_moment_growth"])
    assert growths[256] == pytest.approx(LARGE_BATCH_GROWTH, rel=0.03)
    assert growths[16] > growths[256]


def hooked(model: nn.Module, x: torch.Tensor, modules: list[nn.Module]) -> list[list[float]]:
    """Second moment and batch variance of modules' outputs and of their gradients, by plain hooks."""
    outputs: list[torch.Tensor] = []

    def keep(module: nn.Module, args: object, output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handles = [module.register_forward_hook(keep) for module in modules]
    y = model(x)
    signs = torch.randint(0, 2, y.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (y * signs).sum().backward()
    for handle in handles:
        handle.remove()
    sizes = []
    for v in outputs:
        assert v.grad is not None
        sizes.append([s for t in (v.detach(), v.grad) for s in (t.pow(2).mean(), t.var(0).mean())])
    return [[float(s) for s in row] for row in sizes]


COLUMNS = ("second_moment", "batch_variance", "gradient_second_moment", "gradient_batch_variance")


def test_numbers_at_every_unit_are_those_of_forward_hooks() -> None:
    torch.manual_seed(1)
    model = residua.create_model("preact_resnet20_cifar", num_classes=3)
    x = torch.randn(4, 3, 8, 8)
    subject = Subject(model, x)
    found = signal(subject, parts=0).tables["signal"]
    model.train()
    skips = [m for m in model.modules() if type(m).__name__ == "Skip"]
    trunk = hooked(model, x, skips)
    branch = hooked(model, x, [skip.branch for skip in skips])
    assert len(found) == len(skips) == 9
    for i, row in enumerate(found.rows):
        assert [row[name] for name in COLUMNS] == pytest.approx(trunk[i], rel=1e-4)
        assert [row[f"branch_{name}"] for name in COLUMNS] == pytest.approx(branch[i], rel=1e-4)


def test_numbers_at_every_layer_of_a_plain_network_are_those_of_forward_hooks() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(),
        nn.Linear(64, 3),
    )  # fmt: skip
    x = torch.randn(5, 3, 6, 6)
    found = signal(Subject(model, x), parts=0).tables["signal"]
    assert found["place"] == ["0", "2", "4"]
    plain = nn.Sequential(*[nn.ReLU() if isinstance(m, nn.ReLU) else m for m in model])
    for row, sizes in zip(
        found.rows, hooked(plain, x, [plain[0], plain[2], plain[4]]), strict=True
    ):
        assert [row[name] for name in COLUMNS] == pytest.approx(sizes, rel=1e-4)


def test_moments_beyond_the_range_of_floats_are_measured_in_double() -> None:
    values = torch.randn(8, 100)
    m, s = moments(values)
    assert moments(values * 1e30) == pytest.approx((m * 1e60, s * 1e60))
    assert moments(values * 1e-30) == pytest.approx((m * 1e-60, s * 1e-60), rel=1e-4)


def test_the_model_comes_back_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = residua.create_model("resnet20_cifar", num_classes=3).train()
    list(model.parameters())[3].requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    wanted = [p.requires_grad for p in model.parameters()]
    x = torch.randn(8, 3, 8, 8)
    drawn = torch.get_rng_state()
    signal(Subject(model, x, torch.arange(8) % 3))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_thousand_blocks_keep_numbers_only() -> None:
    found = signal(
        subject_of(lambda: Residual(1000, math.sqrt(0.5), width=8), 8, 8), seeds=0, parts=0
    )
    assert len(found.tables["signal"]) == 1000


def test_frozen_statistics_are_another_signal() -> None:
    subject = subject_of(lambda: Residual(6, normed=True))
    batch, running = (signal(subject, statistics=s, parts=0, seeds=0) for s in ("batch", "running"))
    assert batch.summary["second_moment_law"] == "linear"
    # running averages of a fresh network are 0 and 1: the norm does nothing
    assert running.summary["second_moment_law"] == "doubling"
    assert "running statistics" in running.notes[0]


def test_a_network_without_weights_is_one_clear_line() -> None:
    with pytest.raises(BadInput, match="nowhere to measure the signal"):
        signal(Subject(nn.ReLU(), torch.randn(4, 3)))


@pytest.mark.parametrize(
    ("curve", "law"),
    [
        ([3 * 1.3**k for k in range(8)], "factor"),
        ([2.0**k for k in range(8)], "doubling"),
        ([1 + 0.7 * k for k in range(8)], "linear"),
        ([5.0] * 8, "constant"),
        ([1.0, 2.0, 4.0], "too few blocks"),
    ],
)
def test_exact_curves_have_their_law(curve: list[float], law: str) -> None:
    found = growth(curve, [range(len(curve))], {"constant": 1.0, "doubling": 2.0})
    assert found.law == law


def verdicts(build: Callable[[], nn.Module], **options: int) -> dict[str, object]:
    subject = subject_of(build, **options)
    result = signal(subject, parts=0, seeds=0)
    return {finding.check: finding for finding in check(subject, result)}


def test_forty_blocks_without_norm_explode_and_1_over_root_2_heals_them() -> None:
    ill = verdicts(lambda: Residual(40, width=128), width=128)["signal_explodes"]
    assert ill.severity == "severe"
    assert ill.prescription == "sqrt_half"
    (evidence,) = ill.evidence
    assert evidence.expected == 2.0
    assert evidence.interval[0] <= 2 <= evidence.interval[1]
    assert verdicts(lambda: Residual(40, math.sqrt(0.5), width=128), width=128) == {}


def test_too_small_weights_make_values_and_gradients_vanish_and_Hes_do_not() -> None:
    ill = verdicts(lambda: Plain(20, normed=False, gain=0.5, width=128), width=128)
    assert set(ill) == {"signal_vanishes", "gradient_vanishes"}
    assert ill["signal_vanishes"].prescription == "reinitialise"
    assert verdicts(lambda: Plain(20, normed=False, width=128), width=128) == {}


def test_the_gradient_of_a_deep_plain_BN_network_explodes_and_of_a_residual_one_does_not() -> None:
    ill = verdicts(lambda: Plain(50, normed=True, width=64), width=64)["gradient_explodes"]
    assert ill.severity == "note"
    assert "law of batch norm" in ill.what
    assert verdicts(lambda: Residual(50, normed=True, width=64), width=64) == {}


def test_values_that_are_no_numbers_are_severe() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).half() * 1e30)

    torch.manual_seed(0)
    for model, ill in ((Large(), True), (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), False)):
        subject = Subject(model.float(), torch.randn(8, 8))
        if ill:
            model.second.half()
        found = check(subject, signal(subject))
        assert [f.check for f in found] == (["signal_overflows"] if ill else [])


FRESH = (
    "resnet20_cifar", "resnet56_cifar", "plain20_cifar", "preact_resnet20_cifar", "highway19_cifar",
    "densenet40_12_cifar", "fixup_resnet20_cifar", "skipinit_resnet20_cifar",
    "stable_resnet20_cifar", "nf_resnet20_cifar",
)  # fmt: skip
FRESH_SLOW = (
    "alexnet", "vgg11", "vgg16_bn_cifar", "resnet50", "resnetv2_50", "wrn16_4_cifar", "seresnet18",
    "pyramidnet110_a48_cifar", "shake_shake26_2x32d_cifar", "resnext29_8x64d_cifar", "highway32_cifar",
    "stable_resnet110_cifar", "fixup_resnet110_cifar", "densenet_bc100_12_cifar", "resnet1202_cifar",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [*FRESH, *(pytest.param(name, marks=pytest.mark.slow) for name in FRESH_SLOW)]
)
def test_no_false_alarm_on_a_fresh_network(name: str) -> None:
    torch.manual_seed(0)
    model = residua.create_model(name, num_classes=10)
    size = 16 if name.endswith("_cifar") else 64
    subject = Subject(model, torch.randn(4, 3, size, size), torch.arange(4))
    assert check(subject, signal(subject, parts=0)) == []


@pytest.mark.slow
def test_plain56_is_a_note_by_law() -> None:
    torch.manual_seed(0)
    model = residua.create_model("plain56_cifar", num_classes=10)
    subject = Subject(model, torch.randn(4, 3, 32, 32), torch.arange(4))
    (finding,) = check(subject, signal(subject, parts=0))
    assert (finding.check, finding.severity) == ("gradient_explodes", "note")
