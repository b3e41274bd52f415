"""What a person sees while a network trains: notes, a progress bar, a row an evaluation."""

from __future__ import annotations

import time
from typing import Any

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from residua.cli.output import remarks
from residua.training.plan import Plan
from residua.training.state import State, Watcher

LONG = 2.0  # seconds after which a preparation shows a bar
WORTH_A_WORD = 0.05  # of a run's steps


class TerminalWatcher(Watcher):
    """Prints to standard error; nothing but warnings when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.what = ""
        self.began = 0.0
        self.plan: Plan | None = None

    def note(self, text: str) -> None:
        """Print a note, unless quiet."""
        self._close()
        if not self.quiet:
            remarks().print(escape(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        remarks().print(f"[bold yellow]warning:[/] {escape(text)}", soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show a bar for a preparation that takes more than two seconds."""
        if what != self.what:
            self._close()
            self.what, self.began = what, time.monotonic()
        if self.quiet or time.monotonic() - self.began < LONG:
            return
        if self.bar is None:
            self._open(what, total)
        self._advance(done)
        if done >= total:
            self._close()

    def start(self, plan: Plan, state: State) -> None:
        """Open the bar of the training."""
        self._close()
        self.plan = plan
        if state.step:
            self.note(f"going on at step {state.step:,} of {plan.steps:,}")
        if not self.quiet:
            self._open("training", plan.steps)
            self._advance(state.step)

    def repaced(self, plan: Plan) -> None:
        """Give the bar another length, and say so where it is quite another one."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, total=plan.steps)
        if self.plan is not None and abs(plan.steps / self.plan.steps - 1) > WORTH_A_WORD:
            self.plan = plan
            if not self.quiet:
                remarks().print(f"{plan.steps:,} steps fit into the budget now", soft_wrap=True)

    def step(self, state: State, loss: float, lr: float) -> None:
        """Move the bar."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=state.step, loss=f"loss {loss:.3f}")

    def evaluated(self, row: dict[str, Any]) -> None:
        """Print a row."""
        if not self.quiet:
            score = next(k[4:] for k in row if k.startswith("val_") and k != "val_loss")
            remarks().print(
                f"step {row['step']:>7,}  epoch {row['epoch']:6.2f}  {row['minutes']:6.2f} min"
                f"  train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
                f"  val {score} [bold]{row[f'val_{score}']:.2%}[/]",
                soft_wrap=True,
            )

    def end(self) -> None:
        """Close the bar."""
        self._close()

    def _open(self, what: str, total: int) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=remarks(),
            transient=True,
            refresh_per_second=4,
        )
        self.task = self.bar.add_task(what, total=total, loss="")
        self.bar.start()

    def _advance(self, done: int) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=done)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar = None
        self.what = ""
