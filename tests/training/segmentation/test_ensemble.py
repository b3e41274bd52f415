"""Ensembles against sums written out, hand-made votes, and the bounds of information theory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.training.segmentation.ensemble import MAX_MEMBERS, Ensemble


def members(n, classes=3, size=(4, 5), seed=0, sharp=2.0):
    generator = torch.Generator().manual_seed(seed)
    return [(sharp * torch.randn(classes, *size, generator=generator)).softmax(0) for _ in range(n)]


def voting(*votes):
    """Members that are certain, of 3 classes, at one pixel."""
    return Ensemble.of(torch.eye(3)[vote][:, None] for vote in votes)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 6),
    classes=st.integers(2, 5),
    size=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_maps_added_one_at_a_time_are_those_of_all_members_at_once(n, classes, size, seed):
    all_of_them = torch.stack(members(n, classes, tuple(size), seed))
    ensemble = Ensemble.of(all_of_them)
    mean = all_of_them.mean(0)
    votes = all_of_them.argmax(1)
    counts = torch.stack([(votes == k).sum(0) for k in range(classes)])
    entropy = -(mean * mean.log()).sum(0)
    each = -(all_of_them * all_of_them.log()).sum(1)
    assert ensemble.members == n
    torch.testing.assert_close(ensemble.mean(), mean)
    torch.testing.assert_close(ensemble.entropy(), entropy)
    torch.testing.assert_close(
        ensemble.information(), (entropy - each.mean(0)).clamp_min(0), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(ensemble.disagreement(), 1 - counts.amax(0) / n)
    assert torch.equal(counts.gather(0, ensemble.majority()[None])[0], counts.amax(0))
    alike = (votes == votes[0]).all(0)
    assert torch.equal(ensemble.unanimous(), torch.where(alike, votes[0], 0))


def test_five_members_decide_by_majority_and_all_must_agree_for_unanimity():
    ensemble = voting(2, 2, 1, 2, 0)
    assert ensemble.majority().item() == 2
    assert ensemble.unanimous().item() == 0
    assert ensemble.unanimous(otherwise=255).item() == 255
    assert ensemble.disagreement().item() == pytest.approx(2 / 5)
    assert voting(2, 2, 2, 2, 2).unanimous().item() == 2


def test_of_equal_votes_the_larger_mean_decides():
    ensemble = Ensemble.of(
        [torch.tensor([[0.4], [0.6], [0.0]]), torch.tensor([[0.9], [0.1], [0.0]])]
    )
    assert ensemble.majority().item() == 0
    ensemble = Ensemble.of(
        [torch.tensor([[0.1], [0.9], [0.0]]), torch.tensor([[0.6], [0.4], [0.0]])]
    )
    assert ensemble.majority().item() == 1


def test_a_mean_does_not_outvote_a_majority():
    ensemble = Ensemble.of([torch.tensor([[1.0], [0.0]])] + [torch.tensor([[0.49], [0.51]])] * 2)
    assert ensemble.mean()[0].item() > 0.6
    assert ensemble.majority().item() == 1


def test_members_that_say_the_same_have_no_information_however_unsure():
    ensemble = Ensemble.of([torch.full((4, 2, 2), 0.25)] * 3)
    torch.testing.assert_close(ensemble.entropy(), torch.full((2, 2), math.log(4)))
    torch.testing.assert_close(ensemble.information(), torch.zeros(2, 2))


def test_certain_members_that_differ_have_all_entropy_as_information():
    ensemble = voting(0, 1, 2)
    assert ensemble.entropy().item() == pytest.approx(math.log(3))
    assert ensemble.information().item() == pytest.approx(math.log(3))


def test_a_probability_of_zero_gives_no_nan():
    ensemble = voting(0, 0, 1)
    for read in (ensemble.entropy(), ensemble.information(), ensemble.disagreement()):
        assert torch.isfinite(read).all()


def test_the_axis_of_classes_may_be_another_one():
    stacked = torch.stack(members(3))
    first = Ensemble.of(stacked)
    second = Ensemble.of(stacked.movedim(1, 2), dim=1)
    torch.testing.assert_close(second.mean().movedim(1, 0), first.mean())
    assert torch.equal(second.majority(), first.majority())


def test_what_is_kept_does_not_grow_with_the_members():
    def kept(n):
        ensemble = Ensemble.of(members(n))
        return sum(
            value.numel() * value.element_size()
            for value in vars(ensemble).values()
            if isinstance(value, torch.Tensor)
        )

    assert kept(7) == kept(1) == 4 * 5 * (3 * (4 + 1) + 4)


def test_members_come_back_untouched():
    one, *rest = members(3)
    before = one.clone()
    Ensemble.of([one, *rest])
    assert torch.equal(one, before)


def test_wrong_use_is_one_clear_line():
    ensemble = Ensemble.of(members(1))
    with pytest.raises(ValueError, match="expected shape"):
        ensemble.add(torch.ones(3, 4, 6))
    with pytest.raises(ValueError, match="2 classes or more"):
        Ensemble().add(torch.ones(1, 4, 5))
    with pytest.raises(ValueError, match="one member or more"):
        Ensemble().majority()
    with pytest.raises(ValueError, match="one member or more"):
        Ensemble().disagreement()
    with pytest.raises(ValueError, match=f"{MAX_MEMBERS} members at most"):
        Ensemble.of([torch.full((2, 1), 0.5)] * (MAX_MEMBERS + 1))
