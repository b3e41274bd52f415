"""The average of the weights follows its recurrence; what is frozen stays as it is."""

import pytest
import torch
from torch import nn

from residua import create_model
from residua.errors import BadInput
from residua.nn import is_norm
from residua.training.average import Average, freeze


def network():
    return create_model("resnet9_cifar", 4, 3, width=4)


def shaken(model, seed):
    """Change weights and statistics, as a step of training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    model.train()(torch.randn(8, 3, 8, 8, generator=generator))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_follows_its_recurrence_in_float64(decay):
    model = network()
    average = Average(model, decay)
    expected = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
    for step in range(12):
        shaken(model, step)
        average.update(step)
        d = min(decay, (1 + step) / (10 + step))
        for key, value in expected.items():
            expected[key] = d * value + (1 - d) * model.state_dict()[key].double()
    found = average.model.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(found[key].double(), value, rtol=1e-5, atol=1e-6)


def test_statistics_of_norms_are_averaged_and_their_counters_copied():
    model = network()
    average = Average(model, 0.9)
    shaken(model, 0)
    average.update(0)
    ours, theirs = average.model.stem.norm, model.stem.norm
    mean = 0.1 * 0.0 + 0.9 * theirs.running_mean  # the first decay is 1 / 10
    torch.testing.assert_close(ours.running_mean, mean)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 1


def test_the_average_is_a_model_of_its_own_in_evaluation_without_gradients():
    model = network()
    average = Average(model, 0.9)
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    before = {k: v.clone() for k, v in average.model.state_dict().items()}
    shaken(model, 0)
    for key, value in average.model.state_dict().items():
        assert torch.equal(value, before[key]), key


# -- freezing -------------------------------------------------------------------------------------------


def test_freezing_stops_gradients_under_the_prefix_only_and_returns_its_norms():
    model = network()
    norms = freeze(model, ("stem", "stages.1"))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    expected = {n for n, _ in model.named_parameters() if n.startswith(("stem.", "stages.1."))}
    assert frozen == expected
    parts = [*model.stem.modules(), *model.stages[1].modules()]
    assert [id(m) for m in norms] == [id(m) for m in parts if is_norm(m)]
    assert len(norms) == 2


def test_nothing_is_frozen_without_a_prefix():
    model = network()
    assert freeze(model, ()) == []
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("prefix", ["stm", "stages.9", "stem.", "stem.conv.weight"])
def test_a_prefix_that_names_no_module_is_one_line_with_the_names_there_are(prefix):
    with pytest.raises(BadInput) as raised:
        freeze(network(), (prefix,))
    message = str(raised.value)
    assert repr(prefix) in message
    assert "stem, stages" in message
    assert "\n" not in message


def test_frozen_norms_of_every_kind_are_found():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.ReLU())
    assert len(freeze(nn.Sequential(model), ("0",))) == 3
