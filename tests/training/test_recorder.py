"""What the flight recorder reads against direct computation; it leaves no hook and changes no bit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua import create_model
from residua.nn import Skip
from residua.training.recorder import (
    QUANTITIES,
    FlightRecorder,
    Traces,
    stages_of,
    warnings,
)


def batch(n=16, classes=4, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, size, size, generator=generator)
    return x, torch.randint(classes, (n,), generator=generator)


def network(name="resnet20_cifar", **options):
    torch.manual_seed(0)
    return create_model(name, 4, 3, **options)


def record(model, x, y, lr=0.1, parts=1):
    """One recorded step of gradient descent; returns the reading and the gradients."""
    recorder = FlightRecorder(model, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    with recorder.listening():
        for some, truth in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
            (F.cross_entropy(model(some), truth) / parts).backward()
    recorder.before_update()
    optimiser.step()
    return recorder.after_update()


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# -- the numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet20_cifar", ["stem", "stages.0", "stages.1", "stages.2", "head"]),
        ("resnet9_cifar", ["stem", "stages.0", "stages.1", "stages.2", "head"]),
        ("plain20_cifar", ["stem", "stages.0", "stages.1", "stages.2", "head"]),
        ("preact_resnet20_cifar", ["stem", "stages.0", "stages.1", "stages.2", "tail", "head"]),
    ],
)
def test_the_parts_are_those_of_the_network(name, stages):
    assert list(stages_of(network(name))) == stages


def test_any_module_is_recorded_by_its_children():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    reading = record(model, *batch())
    assert list(stages_of(model)) == ["0", "3"]
    assert reading["gradient_norm"].keys() == {"0", "3"}


def test_gradient_norms_and_update_ratios_are_those_of_the_weights():
    model = network()
    x, y = batch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    reading = record(model, x, y, lr=0.1)
    for stage, part in stages_of(model).items():
        gradient = torch.cat([p.grad.flatten() for p in part.parameters()]).double()
        weights = torch.cat(
            [v.flatten() for name, v in before.items() if name.startswith(f"{stage}.")]
        )
        norm, size = gradient.norm().item(), weights.double().norm().item()
        assert reading["gradient_norm"][stage] == pytest.approx(norm, rel=1e-4)
        # a step of plain gradient descent moves the weights by lr |g|
        assert reading["update_ratio"][stage] == pytest.approx(0.1 * norm / size, rel=1e-3)


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet20_cifar", "resnet9_cifar"])
def test_second_moments_are_those_of_the_last_skip_of_a_stage(name):
    model = network(name)
    x, y = batch()
    reading = record(model, x, y, lr=0.0)
    for key, stage in list(stages_of(model).items()):
        skips = [m for m in stage.modules() if isinstance(m, Skip)]
        if not skips:
            assert key not in reading["shortcut_second_moment"]
            continue
        for part in ("shortcut", "branch"):
            seen = []
            module = getattr(skips[-1], part)
            handle = module.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
            model(x)
            handle.remove()
            expected = seen[0].double().square().mean().item()
            assert reading[f"{part}_second_moment"][key] == pytest.approx(expected, rel=1e-4)


def test_a_plain_network_has_no_shortcut_to_record():
    reading = record(network("plain20_cifar"), *batch())
    assert reading["shortcut_second_moment"] == {}
    assert reading["branch_second_moment"].keys() == {"stages.0", "stages.1", "stages.2"}


class Switched(nn.Module):
    """One ReLU of ten channels, of which the first `dead` are zero on every picture."""

    def __init__(self, dead):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 1)
        self.act = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.fill_(1.0)[:dead] = -1.0

    def forward(self, x):
        return self.act(self.conv(x))


class OneStage(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, nn.Linear(10, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.mark.parametrize("dead", [0, 3, 10])
def test_the_dead_share_counts_channels_that_are_zero_on_the_whole_batch(dead):
    reading = record(OneStage(Switched(dead)), *batch())
    assert reading["dead_share"] == {"body": pytest.approx(dead / 10)}


def test_a_channel_that_lives_on_one_picture_of_one_part_is_alive():
    model = OneStage(Switched(10))
    with torch.no_grad():  # the first channel looks at the brightness, which one picture has
        model.body.conv.weight[0] = 1.0
    x, y = batch(8)
    x = x.clamp(-0.3, 0.3)
    x[6] = 5.0
    for parts in (1, 2, 4):
        reading = record(model, x, y, lr=0.0, parts=parts)
        assert reading["dead_share"]["body"] == pytest.approx(0.9), parts


def test_moments_of_a_batch_in_parts_are_means_over_the_parts():
    model = network("resnet9_cifar", width=4, norm="none")
    x, y = batch()
    whole, parts = record(model, x, y, lr=0.0), record(model, x, y, lr=0.0, parts=4)
    for quantity in ("shortcut_second_moment", "branch_second_moment"):
        assert parts[quantity] == pytest.approx(whole[quantity], rel=1e-4)


def test_parts_that_are_frozen_have_no_gradient_to_record():
    model = network()
    model.stem.requires_grad_(False)
    reading = record(model, *batch())
    assert "stem" not in reading["gradient_norm"]
    assert "stem" not in reading["update_ratio"]
    assert "stages.0" in reading["gradient_norm"]


# -- nothing is left behind -------------------------------------------------------------------------------


def test_hooks_are_there_while_listening_only():
    model = network()
    recorder = FlightRecorder(model, 10)
    assert hooks(model) == 0
    with recorder.listening():
        assert hooks(model) > 0
    assert hooks(model) == 0
    with pytest.raises(ZeroDivisionError), recorder.listening():
        1 / 0  # noqa: B018
    assert hooks(model) == 0


def test_a_recorded_step_gives_the_same_bits():
    x, y = batch()
    recorded, plain = network(), network()
    record(recorded, x, y, lr=0.1)
    optimiser = torch.optim.SGD(plain.train().parameters(), lr=0.1)
    F.cross_entropy(plain(x), y).backward()
    optimiser.step()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, recorded.state_dict()[key]), key


def test_every_nth_step_is_due():
    recorder = FlightRecorder(network("resnet9_cifar", width=4), 50)
    assert [step for step in range(151) if recorder.due(step)] == [0, 50, 100, 150]


# -- warnings ---------------------------------------------------------------------------------------------


def scaled(model, factor):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(factor)
    return model


def warned(model, *, lr=1e-3, step=50):
    return warnings(record(model, *batch(32), lr=lr), step, 100)


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet20_cifar", "resnet9_cifar"])
def test_a_healthy_residual_network_is_not_warned_of(name):
    model = network(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = batch(32)
    for _ in range(5):
        assert warned(model) == {}
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()


def test_a_deep_plain_network_that_starts_too_small_vanishes():
    found = warned(scaled(network("plain20_cifar", norm="none"), 0.3))
    assert found.keys() == {"vanishing"}
    assert "stem gets" in found["vanishing"]
    assert "Shortcuts" in found["vanishing"]


def test_a_plain_network_of_110_normalised_layers_explodes():
    # Yang et al. 2019: the gradient grows by 1.21 a layer; shortcuts keep the same depth healthy
    found = warned(network("plain110_cifar"), lr=1e-9)
    assert found.keys() == {"exploding"}
    assert warned(network("resnet110_cifar"), lr=1e-9) == {}


def test_a_stage_whose_relus_are_dead_is_named():
    model = network()
    last = [m for m in model.stages[2].modules() if isinstance(m, Skip)][-1]
    with torch.no_grad():  # both ReLUs of the block: the one in the branch, the one after the sum
        for norm in last.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.bias.fill_(-1e3)
    found = warned(model)
    assert "100% of the channels at the end of stages.2 are zero" in found["dead stages.2"]
    assert [key for key in found if key.startswith("dead")] == ["dead stages.2"]


def test_an_absurd_learning_rate_is_named_by_stage_past_the_first_tenth():
    found = warned(network(), lr=50.0)
    assert {"rate stem", "rate stages.0", "rate stages.1", "rate stages.2"} <= found.keys()
    assert "learning rate is too high for stem" in found["rate stem"]
    assert not any(key.startswith("rate") for key in warned(network(), lr=50.0, step=10))


def test_a_warning_is_one_line():
    found = warned(network("plain110_cifar"), lr=50.0)
    assert len(found) > 2
    assert not any("\n" in text for text in found.values())


# -- traces -----------------------------------------------------------------------------------------------


def test_traces_have_one_number_or_none_for_every_step_and_stage():
    traces = Traces(["stem", "stages.0"])
    empty = {quantity: {} for quantity in QUANTITIES}
    traces.add(0, empty | {"gradient_norm": {"stem": 1.0, "stages.0": 2.0}})
    traces.add(50, empty | {"gradient_norm": {"stages.0": 3.0}, "dead_share": {"stem": 0.5}})
    shown = traces.for_report()
    assert shown["stages"] == ["stem", "stages.0"]
    assert shown["traces"] == {
        "gradient_norm": {
            "steps": [0, 50],
            "values": {"stem": [1.0, None], "stages.0": [2.0, 3.0]},
        },
        "dead_share": {"steps": [0, 50], "values": {"stem": [None, 0.5]}},
    }


def test_a_run_without_a_recorded_step_has_no_traces():
    assert Traces(["stem"]).for_report() == {"stages": ["stem"], "traces": {}}
