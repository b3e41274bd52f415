"""What a clock decides is decided once: steps from a budget, phases, precision, threads."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua import create_model
from residua.data.batches import Batches
from residua.errors import BadInput
from residua.training.classification.objective import Classification
from residua.training.plan import (
    EVALUATION_SHARE,
    MOST_EVALUATIONS,
    Phase,
    Plan,
    Trial,
    _phase_shares,
    _phases,
    choose_precision,
    lengthened,
    make_plan,
)
from residua.training.recipe import Recipe

CPU = torch.device("cpu")


def make_trial(n=80, batch_size=16, size=8, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    batches = Batches(
        pixels, np.arange(n) % 4, batch_size=batch_size, seed=0, size=size, train=True
    )
    torch.manual_seed(0)
    model = create_model("resnet9_cifar", 4, 3, **({"width": 4} | options))
    objective = Classification(Recipe(steps=1), torch.full((3,), 0.5), torch.full((3,), 0.25), 4)
    return Trial(model, batches, objective, CPU)


class Clocked(Trial):
    """A trial whose clock is known: a step costs a second at 32 pixels, by area at other sizes."""

    def _time_step(self, recipe, precision, size, limit):
        threads = 1.0 if torch.get_num_threads() == 1 else self.threads_gain
        half = self.half_gain if precision == "bf16-mixed" else 1.0
        return self.step_seconds * (size / self.batches.size) ** 2 * half * threads

    def time_forward(self, precision, size):
        return self.picture_seconds

    step_seconds, picture_seconds, half_gain, threads_gain = 1.0, 0.01, 1.0, 1.0


def clocked(**gains):
    trial = make_trial()
    found = Clocked(trial.model, trial.batches, trial.objective, CPU)
    for name, value in gains.items():
        setattr(found, name, value)
    return found


def planned(trial=None, *, lr=0.1, spent=0.0, evaluated=20, tested=20, said=None, **recipe):
    trial = trial or make_trial()
    say = (lambda text: None) if said is None else said.append
    recipe = Recipe(**{"batch_size": 16} | recipe)
    return make_plan(recipe, trial, lr=lr, spent=spent, evaluated=evaluated, tested=tested, say=say)


# -- the length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"steps": 7}, 7), ({"epochs": 3}, 15), ({"epochs": 0.5}, 2), ({"epochs": 0.01}, 1)],
)
def test_steps_and_epochs_are_taken_as_they_are(length, steps):
    plan = planned(**length)
    assert (plan.steps, plan.steps_per_epoch, plan.lr) == (steps, 5, 0.1)
    assert plan.phases == (Phase(0, steps, 8),)
    assert plan.seconds_per_step is None


def test_an_evaluation_is_due_every_so_many_epochs():
    assert planned(epochs=10).evaluate_every == 5
    assert planned(epochs=10, evaluation={"every_epochs": 0.4}).evaluate_every == 2
    assert planned(epochs=10, evaluation={"every_epochs": 0.01}).evaluate_every == 1


def test_a_budget_is_what_steps_evaluations_and_the_end_cost_together():
    trial = clocked()
    plan = planned(trial, budget="1000s", spent=100.0, evaluated=20, tested=50)
    evaluations = plan.steps / plan.evaluate_every
    used = 100 + plan.steps * 1.0 + evaluations * 20 * 0.01 + 50 * 0.01
    assert 900 < used < 1000
    assert plan.seconds_per_step == pytest.approx(1.0)


@settings(deadline=None)
@given(
    st.integers(20, 4000),
    st.floats(0.01, 3.0),
    st.floats(1e-5, 0.5),
    st.integers(1, 300),
    st.floats(0, 15),
)
def test_no_budget_is_overdrawn_nor_left_mostly_unused(budget, step, picture, pictures, spent):
    trial = clocked(step_seconds=step, picture_seconds=picture)
    try:
        plan = planned(trial, budget=f"{budget}s", spent=spent, evaluated=pictures, tested=pictures)
    except BadInput:
        assert budget * 0.97 - spent - 4.5 - picture * pictures < step + 0.1 * budget
        return
    evaluations = -(-plan.steps // plan.evaluate_every)
    training = plan.steps * step
    used = spent + training + (evaluations + 1) * pictures * picture
    one = pictures * picture
    assert used <= budget + one  # the last, shorter, stretch has an evaluation as well
    assert evaluations <= MOST_EVALUATIONS + 1 or plan.evaluate_every == plan.steps_per_epoch
    if one < EVALUATION_SHARE * budget:
        assert training >= 0.3 * (budget - spent) - 6 - step


def test_a_longer_preparation_leaves_fewer_steps():
    early, late = (planned(clocked(), budget="500s", spent=s).steps for s in (0.0, 200.0))
    assert late == pytest.approx(early - 0.97 * 200, abs=10)


def test_a_budget_that_is_used_up_before_training_is_one_line():
    with pytest.raises(BadInput) as raised:
        planned(clocked(), budget="60s", spent=59.0)
    message = str(raised.value)
    assert message.startswith("budget 60s: preparing took 59 s and a step takes 1.0 s")
    assert "\n" not in message


def test_a_budget_is_not_used_up_beyond_so_many_epochs():
    assert planned(clocked(), budget="2h", max_epochs=4).steps == 20


def test_a_real_budget_gives_a_plan_for_about_its_time():
    said = []
    plan = planned(budget="30s", said=said)
    assert 0 < plan.seconds_per_step < 1
    assert plan.steps * plan.seconds_per_step < 30
    assert said == [
        f"{plan.steps:,} steps ({plan.steps / 5:.1f} epochs) of 16 pictures,"
        f" {plan.seconds_per_step * 1e3:.0f} ms each, {plan.precision}"
    ]


# -- sizes of pictures ------------------------------------------------------------------------------------


shares = st.lists(st.floats(0, 1), max_size=4).map(sorted)


@settings(deadline=None)
@given(shares, st.integers(1, 5000), st.integers(1, 256))
def test_phases_cover_every_step_once_in_order(until, steps, size):
    recipe = Recipe(epochs=1, progressive=tuple((u, 0.5) for u in until))
    phases = _phases(_phase_shares(recipe, size), steps, {})
    covered = [step for phase in phases for step in range(phase.start, phase.stop)]
    assert covered == list(range(steps))
    assert all(phase.stop > phase.start for phase in phases)
    assert all(phase.size >= 1 for phase in phases)


def test_progressive_sizes_come_in_their_order_and_end_at_the_full_one():
    plan = planned(steps=20, progressive=((0.25, 0.5), (0.5, 0.75)))
    assert plan.phases == (Phase(0, 5, 4), Phase(5, 10, 6), Phase(10, 20, 8))


def test_smaller_pictures_buy_more_steps():
    whole = planned(clocked(), budget="500s").steps
    half = planned(clocked(), budget="500s", progressive=((0.5, 0.5),))
    # half of the steps at a quarter of the cost: a step costs 0.625 s
    assert half.seconds_per_step == pytest.approx(0.625)
    assert half.steps == pytest.approx(whole / 0.625, rel=0.02)
    assert half.phases[0].stop == pytest.approx(half.steps / 2, abs=1)


# -- precision, threads, compiling ------------------------------------------------------------------------


def test_automatic_precision_on_a_cpu_is_bfloat16_only_where_that_is_faster():
    recipe = Recipe(epochs=1, precision="auto")
    assert choose_precision(recipe, clocked(half_gain=0.5), 1.0) == "bf16-mixed"
    assert choose_precision(recipe, clocked(half_gain=0.95), 1.0) == "32-true"
    assert choose_precision(recipe, clocked(half_gain=2.0), 1.0) == "32-true"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_precision_that_is_asked_for_is_recorded(precision):
    assert planned(precision=precision, steps=3).precision == precision
    assert planned(precision=precision, budget="10s").precision == precision


@pytest.mark.parametrize(("gain", "chosen"), [(0.6, 2), (1.5, 1)])
def test_the_number_of_threads_that_is_faster_is_recorded(gain, chosen):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        plan = planned(clocked(threads_gain=gain), budget="100s")
        assert plan.threads == chosen
    finally:
        torch.set_num_threads(before)


def test_without_a_budget_the_threads_are_those_there_are():
    assert planned(steps=3).threads == torch.get_num_threads()


def test_compiling_is_recorded_as_asked_and_not_chosen_on_a_cpu():
    assert planned(steps=3, compile="yes").compile
    assert not planned(steps=10**6, compile="auto").compile
    assert not planned(steps=3, compile="no").compile


# -- nothing is changed -----------------------------------------------------------------------------------


def test_timing_leaves_weights_statistics_mode_and_batches_alone():
    trial = make_trial(stochastic_depth=0.3)
    trial.model.stem.eval()
    modes = [m.training for m in trial.model.modules()]
    before = {key: value.clone() for key, value in trial.model.state_dict().items()}
    first = trial.batches.batch(0)
    planned(trial, budget="20s", precision="auto", progressive=((0.5, 0.5),))
    assert all(torch.equal(value, before[key]) for key, value in trial.model.state_dict().items())
    assert [m.training for m in trial.model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in trial.model.parameters())
    assert trial.batches.size == 8
    again = trial.batches.batch(0)
    assert torch.equal(first.pictures, again.pictures)
    assert not torch.is_autocast_enabled("cpu")


def test_timing_draws_nothing_from_numpy_or_python():
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].copy(), random.getstate()
    planned(budget="10s")
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]


def test_a_setting_is_timed_once(monkeypatch):
    trial, timed = make_trial(), []
    real = trial._time_step
    monkeypatch.setattr(
        trial, "_time_step", lambda *given: timed.append(given[1:3]) or real(*given)
    )
    planned(trial, budget="20s", precision="auto")
    assert len(timed) == len(set(timed)) == 2


# -- there and back ---------------------------------------------------------------------------------------


def test_a_plan_comes_back_from_json():
    plan = planned(budget="20s", progressive=((0.5, 0.5),))
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_longer_plan_keeps_what_was_decided():
    plan = planned(budget="20s", precision="bf16-mixed", progressive=((0.5, 0.5),))
    recipe = Recipe(steps=1, progressive=((0.5, 0.5),))
    longer = lengthened(plan, recipe, 8, 1000)
    assert (longer.steps, longer.precision, longer.threads) == (1000, "bf16-mixed", plan.threads)
    assert [(p.start, p.stop, p.size) for p in longer.phases] == [(0, 500, 4), (500, 1000, 8)]
