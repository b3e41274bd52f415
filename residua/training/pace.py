"""The pace of a run on a budget: whether its steps still fit into the time, looked at now and then.

    slowdown = seconds that the steps since the last look took / what they were planned to take
    steps N  = the most with   slowdown * planned(step .. N) + evaluations(step .. N) <= seconds left

A plan's steps were timed for a few seconds before training; processors slow down, neighbours wake up, and the
flight recorder and checkpoints take their share. At each of LOOKS the number of steps is set anew. From there
on the schedule is that of the new number, and so it ends where it should: with the budget.
"""

from __future__ import annotations

from residua.training.plan import Phase, Plan, lengthened, most_steps
from residua.training.recipe import Recipe
from residua.training.state import State

LOOKS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)  # shares of the time
MOST = 1.5  # times as many steps as there were, after one look
LEAST_CHANGE = 0.01  # of the steps ahead: smaller ones are left alone


def is_due(plan: Plan, state: State) -> bool:
    """Return whether the plan is to be looked at after this step."""
    if plan.train_seconds is None or state.step >= plan.steps:
        return False
    _, before, _ = state.looked
    return any(before < share * plan.train_seconds <= state.seconds for share in LOOKS)


def steps_that_fit(plan: Plan, recipe: Recipe, state: State) -> int:
    """Return how many steps in all the time left allows: one more than are done at least."""
    assert plan.train_seconds is not None
    size = plan.phases[-1].size
    step, seconds, evaluating = state.looked
    took = (state.seconds - seconds) - (state.evaluating - evaluating)
    slowdown = took / max(planned_seconds(plan.phases, step, state.step), 1e-9)
    one = state.evaluating / len(state.history) if state.history else plan.seconds_per_evaluation
    left = plan.train_seconds - state.seconds

    def fits(steps: int) -> bool:
        ahead = planned_seconds(lengthened(plan, recipe, size, steps).phases, state.step, steps)
        evaluations = -(-steps // plan.evaluate_every) - state.step // plan.evaluate_every
        return slowdown * ahead + one * evaluations <= left

    least, most = state.step + 1, int(MOST * plan.steps)
    most = max(least, min(most, most_steps(recipe, plan.steps_per_epoch)))
    while least < most:  # the largest that fits
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    if abs(least - plan.steps) < LEAST_CHANGE * (plan.steps - state.step):
        return plan.steps
    return least


def planned_seconds(phases: tuple[Phase, ...], start: int, stop: int) -> float:
    """Return what steps start .. stop-1 were planned to take.

    >>> planned_seconds((Phase(0, 10, 24, 1.0), Phase(10, 20, 32, 2.0)), 5, 12)
    9.0
    """
    return sum(
        phase.seconds * max(0, min(stop, phase.stop) - max(start, phase.start)) for phase in phases
    )
