"""metrics.csv and TensorBoard events of a run; rows past the checkpoint are dropped on a resume."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from residua.training.checkpoint import CannotSaveError, write_text
from residua.training.plan import Plan
from residua.training.state import State, Watcher


def columns(score: str) -> tuple[str, ...]:
    """Return the columns of metrics.csv for a task's score."""
    return ("step", "epoch", "minutes", "train_loss", "val_loss", f"val_{score}", "lr")


class Logs:
    """Writes one row an evaluation, and the loss and learning rate of the steps that are kept."""

    def __init__(
        self, folder: Path, history: list[dict[str, Any]], step: int, score: str = "accuracy"
    ) -> None:
        """Go on after `step`, of which `history` holds the evaluations."""
        self.score = score
        self.csv = folder / "metrics.csv"
        self.history = history
        self.rewrite()
        try:
            self.events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        except OSError as error:
            raise CannotSaveError(f"{folder}: cannot be written ({error.strerror})") from error

    def rewrite(self) -> None:
        """Write metrics.csv anew from the history; it is short, and so it is always whole."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns(self.score), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.csv, text.getvalue())

    def step(self, step: int, loss: float, lr: float) -> None:
        """Log one step to TensorBoard."""
        self._scalars(step, {"train/loss": loss, "train/lr": lr})

    def evaluated(self, row: dict[str, Any]) -> None:
        """Log one evaluation to both."""
        self.rewrite()
        score = row[f"val_{self.score}"]
        values = {"val/loss": row["val_loss"], f"val/{self.score}": score}
        self._scalars(row["step"], values | {"train/mean_loss": row["train_loss"]})

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        try:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)
        except OSError as error:
            raise CannotSaveError(
                f"{self.csv.parent}: TensorBoard events cannot be written ({error.strerror})"
            ) from error

    def close(self) -> None:
        """Flush and close the events."""
        self.events.close()


class Logged(Watcher):
    """Passes everything on to the user's watcher, and rows to the logs as well."""

    def __init__(self, watcher: Watcher, logs: Logs | None) -> None:
        self.watcher, self.logs = watcher, logs

    def note(self, text: str) -> None:
        """Pass on."""
        self.watcher.note(text)

    def warn(self, text: str) -> None:
        """Pass on."""
        self.watcher.warn(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Pass on."""
        self.watcher.progress(what, done, total)

    def start(self, plan: Plan, state: State) -> None:
        """Pass on."""
        self.watcher.start(plan, state)

    def repaced(self, plan: Plan) -> None:
        """Pass on."""
        self.watcher.repaced(plan)

    def step(self, state: State, loss: float, lr: float) -> None:
        """Log and pass on."""
        if self.logs is not None:
            self.logs.step(state.step, loss, lr)
        self.watcher.step(state, loss, lr)

    def evaluated(self, row: dict[str, Any]) -> None:
        """Log and pass on."""
        if self.logs is not None:
            self.logs.evaluated(row)
        self.watcher.evaluated(row)

    def end(self) -> None:
        """Pass on."""
        self.watcher.end()
