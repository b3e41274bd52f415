"""Where a run is, and who is told about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from residua.training.plan import Plan
from residua.training.recorder import Traces


@dataclass
class State:
    """Where a run is; everything that a checkpoint holds besides tensors."""

    step: int = 0
    seconds: float = 0.0  # of training so far, over all resumptions
    evaluating: float = 0.0  # of those, in evaluations
    looked: tuple[int, float, float] = (
        0,
        0.0,
        0.0,
    )  # step, seconds, evaluating at the last look at the pace
    best_score: float = -1.0
    best_step: int = 0
    skipped: int = 0
    loss_sum: float = 0.0  # of training, since the last evaluation
    loss_count: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # a row an evaluation
    steps: list[dict[str, Any]] = field(default_factory=list)  # a row a kept step
    warnings: list[dict[str, Any]] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    traces: Traces = field(default_factory=lambda: Traces([]))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> State:
        """Return the state that `as_dict` gave."""
        looked = tuple(values.get("looked", (0, 0.0, 0.0)))
        return cls(**{**values, "looked": looked, "traces": Traces(**values["traces"])})


class Watcher:
    """What the loop tells the outside; every method does nothing unless overridden."""

    def note(self, text: str) -> None:
        """Say something once, in plain words."""

    def warn(self, text: str) -> None:
        """Say what goes wrong, in plain words."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Say how far a longer preparation is."""

    def start(self, plan: Plan, state: State) -> None:
        """Say that training begins or goes on at state.step."""

    def repaced(self, plan: Plan) -> None:
        """Say that the plan has another number of steps now."""

    def step(self, state: State, loss: float, lr: float) -> None:
        """Say that a step is done; now and then only."""

    def evaluated(self, row: dict[str, Any]) -> None:
        """Say what an evaluation found."""

    def end(self) -> None:
        """Say that the loop has ended, in whichever way."""
