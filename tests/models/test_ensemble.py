"""Ensembles: the mean of the members' probabilities, their counts, maps and gradients."""

import pytest
import torch
import torch.nn.functional as F

from residua.errors import BadInput
from residua.models import create_model, record

NAME = "resnet_ensemble_20_32_44_cifar"
MEMBERS = {
    NAME: ["resnet20_cifar", "resnet32_cifar", "resnet44_cifar"],
    "resnet_ensemble_18_34_50": ["resnet18", "resnet34", "resnet50"],
}


def built(**options):
    torch.manual_seed(0)
    model = create_model(NAME, num_classes=5, **options).double()
    return model.train()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MEMBERS)
def test_an_ensemble_is_as_large_as_its_members_together(name):
    assert record(name).parameters == sum(record(m).parameters for m in MEMBERS[name])
    assert record(name).multiply_adds == sum(record(m).multiply_adds for m in MEMBERS[name])


def test_its_answer_is_the_mean_of_the_members_probabilities():
    model, x = built(), pictures(6, 3, 9, 11)
    model(x)
    model.eval()
    expected = sum(member(x).exp() / member(x).exp().sum(1, True) for member in model.members) / 3
    torch.testing.assert_close(model(x).exp(), expected)
    torch.testing.assert_close(model(x).exp().sum(1), torch.ones(6, dtype=torch.float64))
    answers = [member(x).argmax(1) for member in model.members]
    assert not torch.equal(answers[0], answers[1])  # they do differ


def test_cross_entropy_is_that_of_the_mean_and_trains_every_member():
    model, x, labels = built(), pictures(6, 3, 9, 11), torch.arange(6) % 5
    loss = F.cross_entropy(model(x), labels)
    mean = sum(member(x).softmax(1) for member in model.members) / 3
    torch.testing.assert_close(loss, -mean[range(6), labels].log().mean())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_scores_that_would_overflow_an_exponential_are_no_harm():
    model, x = built().eval(), pictures(2, 3, 8, 8)
    with torch.no_grad():
        for member in model.members:
            member.head.fc.weight.mul_(1e6)
    scores = model(x)
    assert scores.isfinite().all()
    assert scores.max() <= 0


def test_maps_are_the_members_one_after_another():
    model, x = built(features_only=True).eval(), pictures(2, 3, 17, 20)
    maps = model(x)
    assert [m.shape[1] for m in maps] == [48, 96, 192] == list(model.stage_channels)
    for i, found in enumerate(maps):
        torch.testing.assert_close(found, torch.cat([member(x)[i] for member in model.members], 1))
    named = model.forward_stages(x)
    assert list(named) == ["stem", "stages.0", "stages.1", "stages.2"]
    torch.testing.assert_close(named["stages.1"], maps[1])


def test_a_member_takes_the_weights_of_a_network_that_was_trained_alone():
    alone = create_model("resnet32_cifar", num_classes=5).double().eval()
    model = built().eval()
    model.members[1].load_state_dict(alone.state_dict())
    x = pictures(2, 3, 8, 8)
    torch.testing.assert_close(model.members[1](x), alone(x))


def test_options_are_for_every_member():
    with torch.device("meta"):
        model = create_model(NAME, norm="group", stochastic_depth=0.5)
        assert all("GroupNorm" in str(member) for member in model.members)
        assert all("StochasticDepth" in str(member) for member in model.members)
    with pytest.raises(BadInput, match="norm 'grup' is unknown"):
        create_model(NAME, norm="grup")
