"""The learning rate of a step against closed forms and torch's own schedulers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from residua.training.optimisers import lr_factor
from residua.training.recipe import ScheduleSection

STEPS, PER_EPOCH = 120, 10


def factors(steps=STEPS, per_epoch=PER_EPOCH, **section):
    section = ScheduleSection(**section)
    return [lr_factor(section, step, steps, per_epoch) for step in range(steps)]


def by_torch(make, steps=STEPS):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimiser)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs_cosine_annealing():
    theirs = by_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS))
    assert factors(name="cosine") == pytest.approx(theirs, abs=1e-12)
    theirs = by_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1))
    assert factors(name="cosine", final=0.1) == pytest.approx(theirs, abs=1e-12)


def test_cosine_after_a_warm_up_is_torchs_over_the_rest():
    ours = factors(name="cosine", warmup_epochs=2)
    rest = by_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS - 20), STEPS - 20)
    assert ours[20:] == pytest.approx(rest, abs=1e-12)


def test_step_is_torchs_multi_step():
    ours = factors(name="step", milestones=(0.3, 0.6, 0.8), gamma=0.2)
    theirs = by_torch(lambda o: lr_scheduler.MultiStepLR(o, [36, 72, 96], gamma=0.2))
    assert ours == pytest.approx(theirs)


def test_one_cycle_is_two_straight_lines_as_torchs_linear_one():
    # torch reaches its start and its end on the first and last step; ours leaves both out, so that
    # no step is wasted at (near) zero: the same lines with one more step on either side.
    steps, peak = 100, 20
    theirs = by_torch(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=steps + 2,
            pct_start=(peak + 2) / (steps + 2),
            anneal_strategy="linear",
            div_factor=1e12,
            final_div_factor=1.0,
            cycle_momentum=False,
        ),
        steps + 2,
    )
    ours = factors(steps, name="one_cycle", peak=0.2)
    assert ours == pytest.approx(theirs[1:-1], abs=1e-6)


def test_warm_up_is_linear_from_its_start_and_ends_at_the_peak():
    ours = factors(name="constant", warmup_epochs=2, warmup_start=0.25)
    assert ours[:20] == pytest.approx([0.25 + 0.75 * (k + 1) / 20 for k in range(20)])
    assert ours[19:] == pytest.approx([1.0] * (STEPS - 19))


def test_he2015_imagenets_thirds_are_whole_epochs():
    ours = factors(90 * 7, 7, name="step", milestones=(1 / 3, 2 / 3))
    assert [ours[k] for k in (209, 210, 419, 420)] == pytest.approx([1, 0.1, 0.1, 0.01])


sections = st.builds(
    ScheduleSection,
    name=st.sampled_from(["cosine", "step", "one_cycle", "constant"]),
    warmup_epochs=st.floats(0, 5),
    warmup_start=st.floats(0, 1),
    peak=st.floats(0, 1),
    final=st.floats(0, 1),
    milestones=st.lists(st.floats(0, 1), max_size=3).map(tuple),
    gamma=st.floats(0.01, 1),
)


@settings(deadline=None)
@given(sections, st.integers(1, 300), st.integers(1, 50))
def test_every_rate_is_positive_and_at_most_the_peak(section, steps, per_epoch):
    rates = [lr_factor(section, step, steps, per_epoch) for step in range(steps)]
    assert all(0 < rate <= 1 + 1e-12 for rate in rates)
    assert all(map(math.isfinite, rates))


@settings(deadline=None)
@given(st.integers(1, 200), st.floats(0, 1))
def test_one_cycle_rises_to_its_peak_and_falls(steps, peak):
    rates = factors(steps, name="one_cycle", peak=peak)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(top - peak * steps) <= 1
