"""The length of a run on a budget, looked at again: it ends with the budget, however fast its steps are."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.cli.progress import TerminalWatcher
from residua.training import checkpoint
from residua.training.api import resume
from residua.training.folder import RunFolder, read_json
from residua.training.pace import LEAST_CHANGE, LOOKS, is_due, planned_seconds, steps_that_fit
from residua.training.plan import Phase, Plan, lengthened
from residua.training.recipe import Recipe, with_overrides
from residua.training.recipes import load_recipe
from residua.training.request import Request
from residua.training.session import Session
from residua.training.state import State, Watcher

RECIPE = Recipe(budget="1000s")
PLAN = Plan(
    steps=1000,
    steps_per_epoch=10,
    evaluate_every=100,
    record_every=50,
    precision="32-true",
    threads=1,
    compile=False,
    lr=0.1,
    phases=(Phase(0, 1000, 32, 1.0),),
    seconds_per_step=1.0,
    seconds_per_evaluation=2.0,
    train_seconds=1020.0,
)


def lived(plan, recipe, slowdown, evaluation):
    """Go through a run whose steps take slowdown(step) times as long as planned; return its end."""
    state, lengths = State(), [plan.steps]
    while state.step < plan.steps:
        at = planned_seconds(plan.phases, state.step, state.step + 1)
        state.step += 1
        state.seconds += slowdown(state.step / plan.steps) * at
        if state.step % plan.evaluate_every == 0 or state.step == plan.steps:
            state.seconds += evaluation
            state.evaluating += evaluation
            state.history.append({})
        if is_due(plan, state):
            plan = lengthened(plan, recipe, 32, steps_that_fit(plan, recipe, state))
            state.looked = (state.step, state.seconds, state.evaluating)
            lengths.append(plan.steps)
    return plan, state, lengths


@settings(deadline=None, max_examples=60)
@given(st.floats(0.5, 4.0), st.floats(0.0, 8.0), st.sampled_from([100, 300, 5000]))
def test_however_fast_the_steps_are_the_run_ends_with_its_time(slowdown, evaluation, every):
    plan, state, _ = lived(
        replace(PLAN, evaluate_every=every), RECIPE, lambda at: slowdown, evaluation
    )
    assert state.step == plan.steps
    least = 0.98 * PLAN.train_seconds - evaluation - slowdown
    # the first evaluation may come after the last look, and was planned to take two seconds
    unknown = max(0.0, evaluation - PLAN.seconds_per_evaluation)
    assert least <= state.seconds <= PLAN.train_seconds * (1 + LEAST_CHANGE) + slowdown + unknown


def test_a_run_at_its_planned_pace_keeps_its_length():
    plan, _, lengths = lived(replace(PLAN, train_seconds=1020.0), RECIPE, lambda at: 1.0, 2.0)
    assert plan.steps == 1000
    assert set(lengths) == {1000} and len(lengths) == 1 + len(LOOKS)


def test_a_slower_second_half_is_seen():
    plan, state, lengths = lived(PLAN, RECIPE, lambda at: 1.0 if at < 0.5 else 1.5, 2.0)
    assert lengths[:3] == [1000] * 3
    assert plan.steps < 900
    assert state.seconds == pytest.approx(PLAN.train_seconds, rel=0.02)


def test_phases_keep_their_shares_and_their_own_seconds():
    recipe = Recipe(budget="1000s", progressive=((0.5, 0.5),))
    plan = replace(
        PLAN, phases=(Phase(0, 500, 16, 0.4), Phase(500, 1000, 32, 1.6)), train_seconds=1020.0
    )
    found, state, _ = lived(plan, recipe, lambda at: 1.25, 2.0)
    assert [phase.size for phase in found.phases] == [16, 32]
    assert [phase.seconds for phase in found.phases] == [0.4, 1.6]
    assert found.phases[0].stop == pytest.approx(found.steps / 2, abs=60)
    assert state.seconds == pytest.approx(1020.0, rel=0.02)


def test_no_more_passes_than_the_recipe_allows_however_much_time_there_is():
    recipe = Recipe(budget="1000s", max_epochs=100)
    plan, state, _ = lived(PLAN, recipe, lambda at: 0.25, 0.0)
    assert (plan.steps, state.step) == (1000, 1000)


def test_out_of_time_one_step_more_is_the_last():
    state = State(step=100, seconds=2000.0)
    assert steps_that_fit(PLAN, RECIPE, state) == 101


def test_without_a_budget_nobody_looks():
    plan = replace(PLAN, train_seconds=None)
    assert not any(is_due(plan, State(step=step)) for step in range(1001))


def test_a_phase_that_a_short_plan_had_no_step_for_takes_what_a_step_takes_on_average():
    recipe = Recipe(budget="1000s", progressive=((0.1, 0.5),))
    short = replace(PLAN, steps=2, phases=(Phase(0, 2, 32, 1.0),), seconds_per_step=0.9)
    assert lengthened(short, recipe, 32, 20).phases == (Phase(0, 2, 16, 0.9), Phase(2, 20, 32, 1.0))


class _Optimist(Session):
    """Plans a thousand times the steps that there is time for."""

    def _plan(self, *parts):
        plan = super()._plan(*parts)
        return replace(lengthened(plan, parts[0].recipe, 8, 1000 * plan.steps), train_seconds=0.5)


def test_a_run_that_was_cut_short_is_recorded_as_what_it_became(tmp_path):
    wish = ["budget=8s", "model=resnet20_cifar", "batch_size=16", "precision=32-true"]
    recipe = with_overrides(load_recipe("quick", "classification"), wish)
    request = Request(source="digits", recipe=recipe, seed=0, device="cpu", task="classification")
    run = _Optimist(RunFolder(tmp_path / "run"), request, Watcher()).start(overwrite=False)
    plan = Plan.from_dict(read_json(run.folder.setup)["plan"])
    state = checkpoint.load(run.folder.checkpoint)["state"]
    assert state["step"] == plan.steps == plan.phases[-1].stop
    said = []
    watcher = Watcher()
    watcher.note = said.append
    resume(run.folder.path, watcher=watcher)  # nothing is left to do
    assert any(text.startswith(f"all {plan.steps:,} steps are done") for text in said)


@pytest.mark.parametrize("quiet", [False, True])
def test_another_number_of_steps_is_told_where_it_is_quite_another(quiet, capsys):
    watcher = TerminalWatcher(quiet)
    watcher.start(PLAN, State())
    for steps in (980, 930, 925, 1200):
        watcher.repaced(replace(PLAN, steps=steps))
    watcher.end()
    said = [
        line.split(" steps")[0] for line in capsys.readouterr().err.splitlines() if "fit" in line
    ]
    assert said == ([] if quiet else ["930", "1,200"])
