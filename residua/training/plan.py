"""The plan: everything about a run that a clock decides, decided once and recorded.

A budget in minutes becomes a number of steps by timing a few steps on a copy of the model:

    steps = (budget - spent - evaluations) / sum_phase(share of run * seconds a step)

and so do the precision, the number of threads, and whether compiling pays. From there on the run is a
function of the step. (Threads are recorded because sums over them round differently.) Only the number of
steps of a budget is looked at again on the way, and recorded again: see `residua.training.pace`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from residua.data.batches import Batch, Batches
from residua.errors import BadInput
from residua.training.objective import Objective, as_float
from residua.training.optimisers import make_optimiser
from residua.training.recipe import Recipe, seconds

WARM_STEPS, TIMED_STEPS = 1, 30
LEAST_TIMED = 2
TIMED_SHARE, TIMED_SECONDS = 0.05, 4.0  # for timing, at most: of the budget, and for all settings
MARGIN = 0.97  # of the budget is planned: timings are taken once, speed drifts
EVALUATION_SHARE = 0.04  # of the budget, at most, for evaluations on the way
MOST_EVALUATIONS = 20
REPORT_SECONDS = 4.0
RECORD_EVERY = 50  # steps between two looks of the flight recorder
COMPILE_SECONDS = 90.0  # what torch.compile costs here before it pays, on a GPU
COMPILE_GAIN = 0.15  # of the step that it saves, at least, where it is worth trying


@dataclass(frozen=True)
class Phase:
    """Steps start .. stop-1 are trained on pictures of `size` pixels; seconds: of one, where it was timed."""

    start: int
    stop: int
    size: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What was decided: see the module.

    train_seconds: how long the steps and the evaluations between them may take, where there is a budget.
    """

    steps: int
    steps_per_epoch: int
    evaluate_every: int
    record_every: int
    precision: str
    threads: int
    compile: bool
    lr: float
    phases: tuple[Phase, ...]
    seconds_per_step: float | None
    seconds_per_evaluation: float = 0.0
    train_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Return the plan that `as_dict` gave."""
        phases = tuple(Phase(**phase) for phase in values["phases"])
        return cls(**{**values, "phases": phases})


@dataclass
class Trial:
    """What timing a step needs; nothing in it is changed."""

    model: nn.Module
    batches: Batches
    objective: Objective
    device: torch.device
    known: dict[tuple[str, int, int], float] = field(default_factory=dict)  # timed already

    def time_step(self, recipe: Recipe, precision: str, size: int, limit: float) -> float:
        """Return the seconds of a training step: input, forward, backward, update (the median).

        Timing ends after `limit` seconds if three steps are done; each setting is timed once.
        """
        key = (precision, size, torch.get_num_threads())
        if key not in self.known:
            self.known[key] = self._time_step(recipe, precision, size, limit)
        return self.known[key]

    def _time_step(self, recipe: Recipe, precision: str, size: int, limit: float) -> float:
        model = copy.deepcopy(self.model).train()
        optimiser = make_optimiser(model, recipe.optimiser, 1e-3)
        before = self.batches.size
        self.batches.set_size(size)
        times: list[float] = []
        began = start = time.perf_counter()
        with contextlib.closing(self._iterate(WARM_STEPS + TIMED_STEPS)) as batches:
            for batch in batches:
                torch.autograd.backward(self.loss(model, batch, len(times), precision))
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                synchronise(self.device)
                start, before_it = time.perf_counter(), start
                times.append(start - before_it)
                if len(times) >= WARM_STEPS + LEAST_TIMED and start - began > limit:
                    break
        self.batches.set_size(before)
        return statistics.median(times[WARM_STEPS:])

    def loss(self, model: nn.Module, batch: Any, counter: int, precision: str) -> torch.Tensor:
        """Return the loss of a batch, computed as the loop does in that precision."""

        def network(x: torch.Tensor) -> Any:
            with autocast(self.device, precision):
                return as_float(model(x))

        return self.objective.loss(network, batch, counter)

    def _iterate(self, steps: int) -> Generator[Batch, None, None]:
        """Yield batches as the loop gets them, from workers where it has some."""
        yield from self.batches.iterate(0, steps)

    @torch.no_grad()
    def time_forward(self, precision: str, size: int) -> float:
        """Return the seconds of one picture's evaluation."""
        model = copy.deepcopy(self.model).eval()
        batch = self.batches.batch(0)
        x = self.objective.inputs(batch)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            with autocast(self.device, precision):
                model(x)
            synchronise(self.device)
            times.append(time.perf_counter() - start)
        return min(times) / len(batch.labels) * (size / self.batches.size) ** 2


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context that Fabric's precision of that name uses."""
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "32-true")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def likely_precision(recipe: Recipe, device: torch.device) -> str:
    """Return the recipe's precision; for "auto" the one that the device has instructions for."""
    if recipe.precision != "auto":
        return recipe.precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    has_it = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not in every build
    return "bf16-mixed" if device.type == "cpu" and has_it is not None and has_it() else "32-true"


def choose_precision(recipe: Recipe, trial: Trial, limit: float) -> str:
    """Return the recipe's precision; "auto" is bfloat16 where the device is faster in it."""
    likely = likely_precision(recipe, trial.device)
    if recipe.precision != "auto" or trial.device.type != "cpu" or likely == "32-true":
        return likely
    size = trial.batches.size
    half = trial.time_step(recipe, likely, size, limit / 2)
    single = trial.time_step(recipe, "32-true", size, limit / 4)
    return "bf16-mixed" if half < 0.9 * single else "32-true"


def choose_threads(recipe: Recipe, trial: Trial, precision: str, limit: float) -> int:
    """Return all threads or one, whichever trains faster now.

    One is faster for a small network on small pictures, and wherever another process keeps a core
    busy: every parallel loop then waits for it.
    """
    all_of_them = torch.get_num_threads()
    if all_of_them == 1:
        return 1
    size = trial.batches.size
    together = trial.time_step(recipe, precision, size, limit / 2)
    torch.set_num_threads(1)
    try:
        alone = trial.time_step(recipe, precision, size, limit / 4)
    finally:
        torch.set_num_threads(all_of_them)
    return 1 if alone < together else all_of_them


def make_plan(
    recipe: Recipe,
    trial: Trial,
    *,
    lr: float,
    spent: float,
    evaluated: int,
    tested: int,
    say: Callable[[str], None],
) -> Plan:
    """Decide the length of the run and everything else that depends on the clock.

    spent: seconds of the budget that preparation has used. evaluated, tested: inputs of the training
    size that an evaluation on the way, and the one at the end, look at.
    Raises BadInput if the budget is used up before training could begin.
    """
    size, per_epoch = trial.batches.size, trial.batches.steps_per_epoch
    began = time.perf_counter()
    budget = seconds(recipe.budget) if recipe.budget else None
    limit = min(TIMED_SECONDS, max(1.0, TIMED_SHARE * budget)) if budget else TIMED_SECONDS
    threads = torch.get_num_threads()
    if budget is not None and trial.device.type == "cpu":
        threads = choose_threads(recipe, trial, likely_precision(recipe, trial.device), limit)
        torch.set_num_threads(threads)
    precision = choose_precision(recipe, trial, limit)
    shares = _phase_shares(recipe, size)
    step_time: float | None = None
    evaluations: float
    one, left, timed = 0.0, None, dict[int, float]()
    if budget is not None:
        for _, at in shares:
            timed[at] = trial.time_step(recipe, precision, at, limit / len(shares))
        step_time = sum(share * timed[at] for share, at in shares)
        picture = trial.time_forward(precision, size)
        left = (budget - spent - (time.perf_counter() - began)) * MARGIN
        whole = trial.time_forward("32-true", size)  # as the finished model is used
        left -= min(REPORT_SECONDS, 0.1 * budget) + whole * tested
        if left < step_time:
            raise BadInput(
                f"budget {recipe.budget}: preparing took {spent:.0f} s and a step takes"
                f" {step_time:.1f} s, so there is no time to train; give more"
            )
        one = picture * evaluated
        evaluations = min(max(1.0, EVALUATION_SHARE * left / one), MOST_EVALUATIONS)
        steps = max(1, int((left - min(evaluations * one, left / 2)) / step_time))
        steps = min(steps, most_steps(recipe, per_epoch))
        evaluate_every = max(1, math.ceil(steps / evaluations), min(per_epoch, steps))
    else:
        steps = recipe.steps or max(1, round((recipe.epochs or 1) * per_epoch))
        evaluate_every = max(1, round(recipe.evaluation.every_epochs * per_epoch))
    plan = Plan(
        steps=steps,
        steps_per_epoch=per_epoch,
        evaluate_every=evaluate_every,
        record_every=RECORD_EVERY,
        precision=precision,
        threads=threads,
        compile=_compile(recipe, trial.device, steps, step_time),
        lr=lr,
        phases=_phases(shares, steps, timed),
        seconds_per_step=step_time,
        seconds_per_evaluation=one,
        train_seconds=left,
    )
    say(_sentence(plan, recipe))
    return plan


def most_steps(recipe: Recipe, per_epoch: int) -> int:
    """Return how many steps a budget is used for at most."""
    if recipe.max_epochs is None:
        return sys.maxsize
    return max(1, math.ceil(recipe.max_epochs * per_epoch))


def lengthened(plan: Plan, recipe: Recipe, size: int, steps: int) -> Plan:
    """Return the plan with another number of steps in all."""
    shares = _phase_shares(recipe, size)
    usual = plan.seconds_per_step or 0.0  # of a phase that the shorter plan had no step for
    seconds = dict.fromkeys((at for _, at in shares), usual)
    seconds |= {phase.size: phase.seconds for phase in plan.phases}
    return replace(plan, steps=steps, phases=_phases(shares, steps, seconds))


def _phase_shares(recipe: Recipe, size: int) -> list[tuple[float, int]]:
    """Return (share of the run, size) for each phase; the last one is at the full size.

    >>> _phase_shares(Recipe(epochs=1, progressive=((0.5, 0.75),)), 32)
    [(0.5, 24), (0.5, 32)]
    """
    shares, before = [], 0.0
    for until, scale in recipe.progressive:
        shares.append((until - before, max(1, round(size * scale))))
        before = until
    shares.append((1.0 - before, size))
    return [(share, at) for share, at in shares if share > 0]


def _phases(
    shares: list[tuple[float, int]], steps: int, seconds: Mapping[int, float]
) -> tuple[Phase, ...]:
    """Return the phases of so many steps; seconds: of a step at each size that was timed."""
    phases, start, until = [], 0, 0.0
    for share, size in shares:
        until += share
        stop = min(steps, round(until * steps))
        if stop > start:
            phases.append(Phase(start, stop, size, seconds.get(size, 0.0)))
        start = stop
    return tuple(phases)


def _compile(recipe: Recipe, device: torch.device, steps: int, step_time: float | None) -> bool:
    """Return whether compiling is expected to save more than it costs within the run."""
    if recipe.compile != "auto":
        return recipe.compile == "yes"
    if device.type != "cuda" or recipe.progressive:
        return False  # on a CPU it was measured to give no more than channels-last does
    run = steps * (step_time if step_time is not None else 0.1)
    return run * COMPILE_GAIN > COMPILE_SECONDS


def _sentence(plan: Plan, recipe: Recipe) -> str:
    epochs = plan.steps / plan.steps_per_epoch
    text = f"{plan.steps:,} steps ({epochs:.1f} epochs) of {recipe.batch} pictures"
    if plan.seconds_per_step is not None:
        text += f", {plan.seconds_per_step * 1e3:.0f} ms each"
    return f"{text}, {plan.precision}" + (", compiled" if plan.compile else "")
