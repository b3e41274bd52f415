"""The residual units of any network are found in what it did, whatever its classes are called."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import residua
from residua.errors import BadInput
from residua.models.registry import records
from residua.nn.merges import KeepBranch
from residua.nn.skip import Skip
from residua.xray import Subject
from residua.xray.anatomy import anatomy
from tests.xray.foreign import (
    FunctionalBlock,
    FunctionalNet,
    HandwrittenHighway,
    Inception,
    ListDense,
    TinyUNet,
    Transformer,
)

PICTURE = torch.Size((2, 3, 8, 8))


def deep(name: str) -> bool:
    """Say whether building it takes long, even without numbers."""
    return records()[name].parameters > 12e6 or name[-10:-6].isdigit()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if deep(n) else n
        for n in residua.list_models(task="classification")
    ],
)
def test_units_of_a_registered_model_are_its_skip_modules(name: str) -> None:
    side = max(records()[name].smallest, 32)
    with torch.device("meta"):  # only what happens counts, not with which numbers
        model, x = residua.create_model(name), torch.randn(2, 3, side, side)
    skips = [
        path
        for path, module in model.named_modules()
        if isinstance(module, Skip) and not isinstance(module.merge, KeepBranch)
    ]
    found = anatomy(model, x)
    assert [unit.name for unit in found.units] == skips
    assert bool(found.reason) == (not skips)


@pytest.mark.parametrize(
    "order",
    [
        "original",
        "norm_after_addition",
        "relu_before_addition",
        "relu_only_preactivation",
        "preactivation",
    ],
)
@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet50"])
def test_the_order_of_operations_is_named(name: str, order: str) -> None:
    with torch.device("meta"):
        model, x = residua.create_model(name, order=order), torch.randn(2, 3, 32, 32)
    assert {unit.order for unit in anatomy(model, x).units} == {order}


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"shortcut": "A"}, [("add", "identity"), ("add", "zero_pad")]),
        ({"shortcut": "B"}, [("add", "identity"), ("add", "projection")]),
        ({"shortcut": "C"}, [("add", "projection")]),
        ({"shortcut": "D"}, [("add", "identity"), ("add", "projection")]),
        ({"shortcut": "B", "merge": "constant"}, [("add", "scaled"), ("add", "projection")]),
        ({"shortcut": "B", "merge": "highway"}, [("gate", "identity"), ("gate", "projection")]),
        (
            {"shortcut": "B", "merge": "shortcut_gate"},
            [("gate", "identity"), ("gate", "projection")],
        ),
    ],
    ids=str,
)
def test_merge_and_shortcut_are_told(options: dict[str, str], kinds: list[tuple[str, str]]) -> None:
    with torch.device("meta"):
        model = residua.create_model("resnet20_cifar", **options)
        found = anatomy(model, torch.randn(2, 3, 32, 32))
    assert {(unit.merge, unit.shortcut) for unit in found.units} == set(kinds)


def test_functional_code_with_a_reused_relu_and_in_place_additions() -> None:
    units = anatomy(FunctionalNet(), torch.randn(PICTURE)).units
    assert [unit.name for unit in units] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [unit.shortcut for unit in units] == ["identity", "identity", "projection"]
    assert {unit.order for unit in units} == {"original"}
    assert [unit.stage for unit in units] == [0, 0, 1]
    assert all("foreign.py:" in unit.source for unit in units)
    assert units[0].parameters == ("blocks.0.w1", "blocks.0.w2")


def test_maps_in_a_list_are_concatenations() -> None:
    units = anatomy(ListDense(), torch.randn(PICTURE)).units
    assert [unit.name for unit in units] == ["layers.0", "layers.1", "layers.2"]
    assert {unit.merge for unit in units} == {"concatenate"}


def test_a_transformer_has_two_units_a_block() -> None:
    units = anatomy(Transformer(), torch.randn(PICTURE)).units
    assert [unit.branch[:2] for unit in units] == [("norm", "attention"), ("norm", "linear")] * 2
    assert {unit.shortcut for unit in units} == {"identity"}


def test_gates_written_out() -> None:
    units = anatomy(HandwrittenHighway(), torch.randn(4, 6)).units
    assert [(unit.merge, unit.shortcut) for unit in units] == [("gate", "identity")] * 3


def test_branches_of_one_weight_are_no_skip_connections() -> None:
    found = anatomy(Inception(), torch.randn(PICTURE))
    assert found.units == [] and found.reason.startswith("no addition or concatenation")


def test_units_inside_a_branch_know_their_parent() -> None:
    inner, outer = anatomy(TinyUNet(), torch.randn(PICTURE)).units
    assert (inner.merge, outer.merge) == ("add", "concatenate")
    assert inner.parent == outer.index and outer.parent is None


def test_a_network_without_units_says_so() -> None:
    found = anatomy(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))
    assert found.units == [] and "no addition" in found.reason


class SharedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = x + torch.tanh(self.layer(x))
        return x


def test_shared_weights_are_as_many_units_as_uses() -> None:
    found = anatomy(SharedWeights(), torch.randn(2, 4))
    assert len(found.units) == 3
    with found.cut(found.units[1:2]):
        y = found.model(x := torch.randn(2, 4))
    half = x + torch.tanh(found.model.layer(x))
    torch.testing.assert_close(y, half + torch.tanh(found.model.layer(half)))


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return 2 * grad


class CustomFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + Doubling.apply(self.layer(x))


def test_a_custom_autograd_function_does_not_break_the_graph() -> None:
    assert len(anatomy(CustomFunction(), torch.randn(2, 4)).units) == 1


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.jit.trace(nn.Linear(4, 4), torch.randn(2, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_part_is_one_opaque_operation() -> None:
    found = anatomy(Scripted(), torch.randn(2, 4))
    assert len(found.units) == 1 and found.units[0].branch == ("opaque",)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x) if x.sum() > 0 else torch.relu(x)


def test_control_flow_on_data_is_followed_and_a_change_of_way_is_one_clear_line() -> None:
    model = Branching()
    found = anatomy(model, torch.ones(2, 4))
    assert len(found.units) == 1
    with pytest.raises(BadInput, match="took another way"), found.cut(found.units):
        model(-torch.ones(2, 4))


class Checkpointed(FunctionalNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.head(x.mean((2, 3)))


def test_checkpointed_blocks_are_reached_in_the_backward_pass_too() -> None:
    torch.manual_seed(0)
    plain = FunctionalNet().eval()
    again = Checkpointed().eval()
    again.load_state_dict(plain.state_dict())
    x = torch.randn(PICTURE)
    gradients = []
    for model in (plain, again):
        found = anatomy(model, x)
        with found.interpose(branch=lambda _, value: 0.5 * value):
            gradients.append(torch.autograd.grad(model(x).sum(), model.blocks[0].w1)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(wrap: type) -> None:
    units = anatomy(wrap(FunctionalNet()), torch.randn(PICTURE)).units
    assert [unit.name for unit in units] == ["blocks.0", "blocks.1", "blocks.2"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(dtype: torch.dtype) -> None:
    found = anatomy(FunctionalNet().to(dtype), torch.randn(PICTURE, dtype=dtype))
    assert len(found.units) == 3


def test_a_batch_that_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(BadInput, match="cannot be run on this batch: RuntimeError"):
        anatomy(FunctionalNet(), torch.randn(2, 1, 8, 8))
    with pytest.raises(BadInput, match="holds no tensor"):
        anatomy(FunctionalNet(), "picture.png")


def test_values_handed_over_are_those_that_hooks_see() -> None:
    model = residua.create_model("preact_resnet20_cifar").eval()
    x = torch.randn(2, 3, 16, 16)
    found, hooked, seen = anatomy(model, x), {}, {}
    for name, module in model.named_modules():
        if isinstance(module, Skip):
            for part in ("branch", "shortcut"):

                def hook(
                    m: nn.Module, a: object, y: torch.Tensor, at: object = (name, part)
                ) -> None:
                    hooked[at] = y.detach().clone()

                getattr(module, part).register_forward_hook(hook)

    def keep(part: str):
        def handler(unit: object, value: torch.Tensor) -> torch.Tensor:
            seen[unit.name, part] = value.detach().clone()
            return value

        return handler

    with torch.no_grad(), found.interpose(branch=keep("branch"), shortcut=keep("shortcut")):
        model(x)
    assert hooked.keys() == seen.keys() and len(seen) == 18
    assert all(torch.equal(hooked[key], seen[key]) for key in seen)


@pytest.mark.parametrize("make", [FunctionalNet, ListDense, HandwrittenHighway, TinyUNet])
def test_doing_nothing_at_every_site_changes_nothing(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(4, 6) if make is HandwrittenHighway else torch.randn(PICTURE)
    found = anatomy(model, x)
    with found.interpose(*[lambda _, value: value] * 4):
        y = model(x)
    assert torch.equal(y, model(x))


def test_a_highway_layer_that_is_cut_passes_its_input() -> None:
    model, x = HandwrittenHighway(), torch.randn(4, 6)
    found = anatomy(model, x)
    with found.cut(found.units):
        assert torch.equal(model(x), x)


@pytest.mark.parametrize("name", ["highway19_cifar", "resnet20_cifar"])
def test_a_cut_unit_of_ours_is_its_shortcut(name: str) -> None:
    model = residua.create_model(name).eval()
    x = torch.randn(2, 3, 16, 16)
    found = anatomy(model, x)
    unit = found.units[1]
    skip = model.get_submodule(unit.name)
    inputs, outputs = [], []

    def hook(module: nn.Module, args: tuple[torch.Tensor], y: torch.Tensor) -> None:
        inputs.append(args[0])
        outputs.append(y)

    skip.register_forward_hook(hook)
    with torch.no_grad(), found.cut([unit]):
        model(x)
    torch.testing.assert_close(outputs[0], F.relu(inputs[0]) if "resnet" in name else inputs[0])


def test_cutting_a_dense_layer_cuts_it_for_all_who_read_it() -> None:
    model = ListDense().eval()
    x = torch.randn(PICTURE)
    found = anatomy(model, x)
    with torch.no_grad(), found.cut(found.units[:1]):
        y = model(x)
    maps = [model.stem(x), torch.zeros(2, 2, 8, 8)]
    for layer in model.layers[1:]:
        maps.append(layer(torch.cat(maps, 1)))
    torch.testing.assert_close(y, torch.cat(maps, 1))


def test_a_branch_written_in_place_as_a_statement_is_reached() -> None:
    class Statement(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.layer(x)
            out.relu_()
            return x + out

    model, x = Statement(), torch.randn(2, 4)
    found = anatomy(model, x)
    with torch.no_grad(), found.cut(found.units):
        assert torch.equal(model(x), x)


def test_the_model_comes_back_untouched() -> None:
    model = FunctionalNet().train()
    model.stem.weight.grad = torch.ones_like(model.stem.weight)
    model.head.bias.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    subject = Subject(model, torch.randn(PICTURE))
    torch.set_rng_state(state)

    def inside(failure: type[BaseException]) -> None:
        with subject.running("batch"):
            torch.randn(3)
            model.blocks[0].m.add_(1)
            assert subject.anatomy.units
            model.stem.weight.data = torch.zeros(1)
            model.register_forward_hook(lambda *_: None)
            model.head.bias.requires_grad_(True)
            raise failure

    for failure in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(failure):
            inside(failure)
        after = model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert torch.equal(torch.get_rng_state(), state)
        assert model.training and model.blocks[0].training and not model._forward_hooks
        assert not model.head.bias.requires_grad
        assert torch.equal(model.stem.weight.grad, torch.ones_like(model.stem.weight))


def test_statistics_of_a_functional_norm_follow_the_policy() -> None:
    torch.manual_seed(0)
    block = FunctionalBlock(4, 4)
    x = 3 + 2 * torch.randn(8, 4, 6, 6)
    subject = Subject(block, x)
    outputs = {}
    for statistics in ("batch", "detached", "running"):
        with subject.running(statistics), torch.no_grad():
            outputs[statistics] = subject.forward()
    torch.testing.assert_close(outputs["batch"], outputs["detached"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(outputs["batch"], outputs["running"])
    assert torch.equal(block.m, torch.zeros(4))


class CheckpointedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.body, x, use_reentrant=False)


@pytest.mark.parametrize("statistics", ["batch", "detached", "running"])
def test_the_policy_holds_in_what_a_backward_pass_runs_again(statistics: str) -> None:
    model = CheckpointedNorm()
    subject, gradients = Subject(model, torch.randn(PICTURE)), []
    for run in (subject.forward, lambda: model.body(subject.inputs)):
        with subject.running(statistics):
            gradients.append(torch.autograd.grad(run().square().sum(), model.body[0].weight)[0])
    torch.testing.assert_close(*gradients)
    assert torch.equal(model.body[1].running_mean, torch.zeros(4))


def test_a_model_that_writes_to_its_input_does_not_write_to_the_batch() -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2)

    x = torch.ones(2, 4)
    subject = Subject(Writes(), x)
    assert subject.anatomy.units == [] and torch.equal(subject.forward(), 2 * x)
    assert torch.equal(x, torch.ones(2, 4))
