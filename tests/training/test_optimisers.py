"""Parameter groups and updates against their equations, written out in float64."""

import pytest
import torch
from torch import nn

from residua import create_model
from residua.errors import ResiduaError
from residua.training.average import freeze
from residua.training.optimisers import make_optimiser, parameter_groups, restore_optimiser
from residua.training.recipe import OptimiserSection

NAMES = ("sgd", "adamw", "lamb")


def network():
    return create_model("resnet9_cifar", 4, 3, width=4)


def decays(model, **section):
    """The decay of every parameter that is trained, by name."""
    groups = parameter_groups(model, OptimiserSection(**section))
    by_id = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}


# -- groups ---------------------------------------------------------------------------------------------


def test_norms_and_biases_are_not_decayed_and_every_other_weight_is():
    model = create_model("resnet20_cifar", 4)
    found = decays(model, weight_decay=0.3)
    assert found.keys() == dict(model.named_parameters()).keys()
    exempt = {
        f"{name}.{own}"
        for name, module in model.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or own == "bias"
    }
    assert len(exempt) == 2 * 19 + 1  # 19 norms and the last layer's bias
    assert {name for name, decay in found.items() if decay == 0.0} == exempt
    assert {decay for name, decay in found.items() if name not in exempt} == {0.3}


def test_all_are_decayed_where_the_recipe_says_so():
    found = decays(network(), weight_decay=0.3, decay_norms_and_biases=True)
    assert set(found.values()) == {0.3}


def test_what_is_frozen_is_left_out():
    model = network()
    freeze(model, ("stem", "stages.0"))
    found = decays(model)
    assert found
    assert not any(name.startswith(("stem", "stages.0")) for name in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_frozen_altogether_cannot_be_trained(name):
    model = network().requires_grad_(False)
    with pytest.raises(ResiduaError, match="nothing to train: `freeze`"):
        make_optimiser(model, OptimiserSection(name=name), 0.1)


# -- updates --------------------------------------------------------------------------------------------


class Two(nn.Module):
    """A matrix, which is decayed, and a vector, which is not."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
        self.vector = nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))

    def forward(self):
        return self.matrix.sin().sum() * self.vector.cos().mean() + self.vector.square().sum()


def follow(update, section, steps=5, lr=0.03):
    """Take steps with our optimiser and with `update(w, g, memory, decay, step)`; return both ends."""
    model, copy = Two(), Two()
    optimiser = make_optimiser(model, section, lr)
    memory = [{}, {}]
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        model().backward()
        optimiser.step()
        gradients = torch.autograd.grad(copy(), list(copy.parameters()))
        with torch.no_grad():
            for w, g, own in zip(copy.parameters(), gradients, memory, strict=True):
                update(w, g, own, section.weight_decay if w.ndim > 1 else 0.0, step)
    return list(model.parameters()), list(copy.parameters())


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_momentum_with_l2_in_the_gradient(nesterov):
    section = OptimiserSection(momentum=0.8, nesterov=nesterov, weight_decay=0.1)

    def update(w, g, memory, decay, step):
        g = g + decay * w
        v = memory["v"] = 0.8 * memory.get("v", 0) + g
        w -= 0.03 * (g + 0.8 * v if nesterov else v)

    ours, written_out = follow(update, section)
    torch.testing.assert_close(ours, written_out, rtol=1e-12, atol=0)


def test_sgd_without_momentum_is_gradient_descent():
    ours, written_out = follow(
        lambda w, g, memory, decay, step: w.sub_(0.03 * g),
        OptimiserSection(momentum=0.0, weight_decay=0.0),
    )
    torch.testing.assert_close(ours, written_out, rtol=1e-12, atol=0)


def test_adamw_decays_apart_from_the_gradient():
    def update(w, g, memory, decay, step):
        m = memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
        v = memory["v"] = 0.95 * memory.get("v", 0) + 0.05 * g * g
        w -= 0.03 * decay * w
        w -= 0.03 * (m / (1 - 0.8**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-6)

    section = OptimiserSection(name="adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    ours, written_out = follow(update, section)
    torch.testing.assert_close(ours, written_out, rtol=1e-10, atol=0)


def test_lamb_scales_each_tensors_update_with_its_decay_to_the_size_of_its_weights():
    # You et al. 2020, algorithm 2, with phi(z) = min(z, 10) and the moments as they are
    def update(w, g, memory, decay, step):
        m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        v = memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * g * g
        r = m / (v.sqrt() + 1e-6) + decay * w
        w -= 0.03 * w.norm().clamp(max=10) / r.norm() * r

    section = OptimiserSection(name="lamb", betas=(0.9, 0.99), eps=1e-6, weight_decay=0.2)
    ours, written_out = follow(update, section)
    torch.testing.assert_close(ours, written_out, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_two_groups_have_the_rate_that_was_asked_for(name):
    optimiser = make_optimiser(network(), OptimiserSection(name=name, lr=0.5), 0.07)
    assert [group["lr"] for group in optimiser.param_groups] == [0.07, 0.07]


# -- back from a checkpoint ----------------------------------------------------------------------------


def steps(model, optimiser, numbers):
    for number in numbers:
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        optimiser.zero_grad()
        model(x.to(memory_format=torch.channels_last)).square().mean().backward()
        optimiser.step()


def without_strides(state):
    """The state as a file gives it back: every tensor row by row."""
    if isinstance(state, torch.Tensor):
        return state.clone(memory_format=torch.contiguous_format)
    if isinstance(state, dict):
        return {key: without_strides(value) for key, value in state.items()}
    return [without_strides(v) for v in state] if isinstance(state, list) else state


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_optimiser_goes_on_bit_by_bit_in_channels_last(name):
    section = OptimiserSection(name=name)

    def fresh():
        torch.manual_seed(0)
        model = network().to(memory_format=torch.channels_last)
        return model, make_optimiser(model, section, 0.01)

    whole, optimiser = fresh()
    steps(whole, optimiser, range(4))
    first, optimiser = fresh()
    steps(first, optimiser, range(2))
    saved = without_strides(optimiser.state_dict())
    second, optimiser = fresh()
    second.load_state_dict(first.state_dict())
    restore_optimiser(optimiser, saved)
    steps(second, optimiser, range(2, 4))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
