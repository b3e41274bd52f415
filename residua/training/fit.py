"""The training loop.

Every step is a function of the recipe, the plan, the seed and the step's number:

    torch.manual_seed(hash(seed, step));  batch = batches(seed, step);  lr = schedule(step)
    loss(model(batch)).backward();  update

so that a run that was killed and resumed ends with the same weights, bit by bit, on a CPU. Of a run on a
budget the plan's number of steps is the clock's, on the way too: see `residua.training.pace`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data.batches import Batch, Batches
from residua.data.counter import bits
from residua.errors import ResiduaError
from residua.training.average import Average
from residua.training.interruption import InterruptedRunError, interruptible
from residua.training.objective import Objective, parts_of
from residua.training.optimisers import lr_factor, restore_optimiser
from residua.training.pace import is_due, steps_that_fit
from residua.training.plan import Plan, lengthened
from residua.training.recipe import Recipe
from residua.training.recorder import FlightRecorder, warnings
from residua.training.state import State, Watcher

TRACE_POINTS = 1000  # steps of a run whose loss is kept for the report, about
MOST_SKIPPED = 20  # batches in a row
CHECK_EVERY = 10  # steps between looks at the loss on a device that computes asynchronously


class NonFiniteLossError(ResiduaError):
    """The loss became infinite or NaN."""


@dataclass
class Loop:
    """The parts of one training; `run` trains from state.step to the end of the plan."""

    fabric: Fabric
    model: nn.Module  # the plain module
    recipe: Recipe
    plan: Plan
    seed: int
    batches: Batches
    optimiser: torch.optim.Optimizer
    objective: Objective
    state: State
    evaluate: Callable[[nn.Module], dict[str, Any]]  # measures of the validation split
    save: Callable[[Loop], None]  # writes the checkpoint
    keep_best: Callable[[Loop], None]  # writes the best weights
    describe: Callable[[Any], str]  # the names of the pictures with these indices
    watcher: Watcher
    average: Average | None = None
    frozen: list[nn.Module] = field(default_factory=list)  # norms that stay in evaluation mode
    polish: Callable[[nn.Module], object] | None = None  # done to the result after the last step
    score: str = "accuracy"  # the measure by which weights are best; larger is better

    def __post_init__(self) -> None:
        module: Any = torch.compile(self.model) if self.plan.compile else self.model
        self.wrapped, self.stepper = self.fabric.setup(module, self.optimiser)
        self.recorder = FlightRecorder(self.model, self.plan.record_every)
        if not self.state.traces.stages:
            self.state.traces.stages = list(self.recorder.stages)
        self.asynchronous = self.fabric.device.type != "cpu"
        self.pending: list[tuple[int, torch.Tensor, Any]] = []
        self.keep_step_every = max(1, self.plan.steps // TRACE_POINTS)
        self.losses: list[torch.Tensor] = []  # not yet in state.loss_sum
        self.skipped_in_a_row = 0

    @property
    def result(self) -> nn.Module:
        """The model to evaluate and to keep: the average if there is one."""
        return self.average.model if self.average is not None else self.model

    def contents(self) -> dict[str, Any]:
        """Return all that a checkpoint needs to go on from here."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "state": self.state.as_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take back what `contents` gave; the state was taken when the loop was made."""
        self.model.load_state_dict(saved["model"])
        if self.average is not None:
            self.average.model.load_state_dict(saved["average"])
        restore_optimiser(self.optimiser, saved["optimiser"])
        self.fabric.strategy.precision.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["random"])

    def lr(self, step: int) -> float:
        """Return the learning rate of a step."""
        plan = self.plan
        return plan.lr * lr_factor(self.recipe.schedule, step, plan.steps, plan.steps_per_epoch)

    def run(self) -> None:
        """Train to the end of the plan; saves on the way, at the end and when interrupted."""
        state, plan = self.state, self.plan
        self.watcher.start(plan, state)
        try:
            with interruptible() as interrupted:
                self._run(interrupted)
        finally:
            self.watcher.end()

    def _run(self, interrupted: list[int]) -> None:
        state = self.state
        before, began = state.seconds, time.monotonic()
        saved = began
        self._train_mode()
        while state.step < self.plan.steps:
            phase = next(phase for phase in self.plan.phases if state.step < phase.stop)
            self.batches.set_size(phase.size)
            with contextlib.closing(self._iterate(phase.stop)) as batches:
                for batch in batches:
                    loss = self._step(state.step, batch)
                    state.step += 1
                    state.seconds = before + time.monotonic() - began
                    self._trace(loss)
                    if self._evaluation_is_due():
                        self._evaluate()
                        now = before + time.monotonic() - began
                        state.evaluating += now - state.seconds
                        state.seconds = now
                    if time.monotonic() - saved > self.recipe.checkpoint_seconds:
                        self._save()
                        saved = time.monotonic()
                    if self._asked_to_stop(interrupted):
                        self._save()
                        raise InterruptedRunError(
                            f"stopped at step {state.step} of {self.plan.steps}"
                        )
                    if self._look_is_due() and self._repace():
                        break
        self._save()

    def _evaluation_is_due(self) -> bool:
        step, plan = self.state.step, self.plan
        return step % plan.evaluate_every == 0 or step == plan.steps

    def _look_is_due(self) -> bool:
        """Return whether to look at the plan again; over several ranks by the clock of the first."""
        if self.fabric.world_size == 1:
            return is_due(self.plan, self.state)
        if self.plan.train_seconds is None or self.state.step % CHECK_EVERY:
            return False
        return bool(self.fabric.broadcast(is_due(self.plan, self.state)))

    def _repace(self) -> bool:
        """Look at the plan again; return whether it has another number of steps now."""
        state = self.state
        steps = int(self.fabric.broadcast(steps_that_fit(self.plan, self.recipe, state)))
        state.looked = (state.step, state.seconds, state.evaluating)
        if steps == self.plan.steps:
            return False
        self.plan = lengthened(self.plan, self.recipe, self.plan.phases[-1].size, steps)
        self.watcher.repaced(self.plan)
        self._save()
        return True

    def _asked_to_stop(self, interrupted: list[int]) -> bool:
        """Return whether to stop after this step; over several ranks they stop at the same one."""
        if self.fabric.world_size == 1:
            return bool(interrupted)
        if self.state.step % CHECK_EVERY:
            return False
        asked: Any = self.fabric.all_reduce(torch.tensor(float(bool(interrupted))), reduce_op="max")
        return float(asked) > 0

    def _iterate(self, stop: int) -> Generator[Batch, None, None]:
        yield from self.batches.iterate(self.state.step, stop)

    def _train_mode(self) -> None:
        self.wrapped.train()
        for norm in self.frozen:  # a frozen norm would still move its running statistics
            norm.eval()

    # -- one step ---------------------------------------------------------------------------------

    def _step(self, step: int, batch: Batch) -> torch.Tensor:
        """Do one update and return its loss."""
        self._seed(int(bits(self.seed, 0, step, 0).item()) >> 1)  # dropout and the like
        lr = self.lr(step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        recording = self.recorder.due(step)
        guard = self._buffers() if self.recipe.non_finite == "skip" else None
        # Hooks on a compiled module are not called; its gradients and updates are still recorded.
        listening = recording and not self.plan.compile
        with self.recorder.listening() if listening else contextlib.nullcontext():
            loss = self._forward_backward(step, batch)
        if not self._finite(step, loss, batch, guard):
            self.stepper.zero_grad(set_to_none=True)
            return loss
        if self.recipe.clip_gradient is not None:
            self._clip(step, batch)
        if recording:
            self.recorder.before_update()
        self.stepper.step()
        if recording:
            self._record(step)
        self.stepper.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        return loss

    def _clip(self, step: int, batch: Batch) -> None:
        largest = self.recipe.clip_gradient
        try:
            self.fabric.clip_gradients(self.wrapped, self.stepper, max_norm=largest)
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            raise NonFiniteLossError(
                f"step {step}: the gradient is not finite (learning rate {self.lr(step):.3g});"
                f" the batch held {self.describe(batch.indices)}"
            ) from None

    def _seed(self, seed: int) -> None:
        if self.asynchronous:
            torch.manual_seed(seed)
        else:  # a hundredth of the time, for it leaves the devices alone that are not used
            torch.default_generator.manual_seed(seed)

    def _forward_backward(self, step: int, batch: Batch) -> torch.Tensor:
        """Return the mean loss; gradients are summed over the parts of the batch."""
        parts = min(self.recipe.accumulate, len(batch.labels))
        total: torch.Tensor | None = None
        for i, part in enumerate(parts_of(batch, parts)):
            more = i + 1 < parts
            with self.fabric.no_backward_sync(self.wrapped, enabled=more):
                loss = self.objective.loss(self.wrapped, part, step * parts + i)
                loss = loss * (len(part.labels) / len(batch.labels)) if parts > 1 else loss
                self.fabric.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    # -- when the loss is not a number ----------------------------------------------------------------

    def _buffers(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(b, b.clone()) for b in self.model.buffers()]

    def _finite(self, step: int, loss: torch.Tensor, batch: Batch, guard: list[Any] | None) -> bool:
        """Return whether to update; raises NonFiniteLossError where the recipe says stop."""
        if guard is None and self.asynchronous:
            self.pending.append((step, loss, batch.indices))
            if len(self.pending) >= CHECK_EVERY:
                self._check_pending()
            return True
        finite = bool(torch.isfinite(loss))
        if self.fabric.world_size > 1:
            everywhere: Any = self.fabric.all_reduce(torch.tensor(float(finite)), reduce_op="mean")
            finite = float(everywhere) == 1.0
        if finite:
            self.skipped_in_a_row = 0
            return True
        if guard is None:
            raise self._loss_not_finite(step, float(loss), batch.indices)
        with torch.no_grad():
            for buffer, before in guard:
                buffer.copy_(before)
        self.state.skipped += 1
        self.skipped_in_a_row += 1
        self._warn("non-finite", step, f"step {step}: the loss is {float(loss)}; batch left out")
        if self.skipped_in_a_row >= MOST_SKIPPED:
            raise self._loss_not_finite(step, float(loss), batch.indices)
        return False

    def _check_pending(self) -> None:
        pending, self.pending = self.pending, []
        for step, loss, indices in pending:
            value = float(loss)
            if not math.isfinite(value):
                raise self._loss_not_finite(step, value, indices)

    def _loss_not_finite(self, step: int, value: float, indices: Any) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"step {step}: the loss is {value} (learning rate {self.lr(step):.3g});"
            f" the batch held {self.describe(indices)}"
        )

    def _not_finite(self, what: str) -> NonFiniteLossError:
        step = self.state.step
        return NonFiniteLossError(f"{what} after step {step} (learning rate {self.lr(step):.3g})")

    # -- what is kept -----------------------------------------------------------------------------

    def _record(self, step: int) -> None:
        reading = self.recorder.after_update()
        self.state.traces.add(step, reading)
        for key, text in warnings(reading, step, self.plan.steps).items():
            self._warn(key, step, text)

    def _warn(self, key: str, step: int, text: str) -> None:
        """Warn of each kind of trouble once."""
        if key not in self.state.warned:
            self.state.warned.append(key)
            self.state.warnings.append({"step": step, "text": text})
            self.watcher.warn(text)

    def _trace(self, loss: torch.Tensor) -> None:
        state = self.state
        self.losses.append(loss)
        if state.step % self.keep_step_every == 0:
            last = state.steps[-1] if state.steps else {"step": 0, "seconds": 0.0}
            took = max(state.seconds - last["seconds"], 1e-9)
            pictures = (state.step - last["step"]) * self.recipe.batch
            row = {
                "step": state.step,
                "seconds": state.seconds,
                "loss": float(loss),
                "lr": self.lr(state.step - 1),
                "pictures_per_second": pictures / took,
            }
            state.steps.append(row)
            self.watcher.step(state, row["loss"], row["lr"])

    def _evaluate(self) -> None:
        self._check_pending()
        state = self.state
        self._sum_losses()
        train_loss = state.loss_sum / state.loss_count if state.loss_count else math.nan
        state.loss_sum, state.loss_count = 0.0, 0
        if self.polish is not None and state.step == self.plan.steps:
            self.polish(self.result)
        if self.fabric.world_size > 1:  # each rank has norm statistics of its own
            for buffer in self.result.buffers():
                torch.distributed.broadcast(buffer, 0)
        measures = self.evaluate(self.result)
        self._train_mode()
        if math.isnan(measures["loss"]):
            raise self._not_finite("the validation loss is nan")
        row = {
            "step": state.step,
            "epoch": state.step / self.plan.steps_per_epoch,
            "minutes": state.seconds / 60,
            "train_loss": train_loss,
            "val_loss": measures["loss"],
            f"val_{self.score}": measures[self.score],
            "lr": self.lr(state.step - 1),
        }
        state.history.append(row)
        if measures[self.score] >= state.best_score:
            state.best_score, state.best_step = measures[self.score], state.step
            self.keep_best(self)
        self.watcher.evaluated(row)

    def _sum_losses(self) -> None:
        for loss in self.losses:
            value = float(loss)
            if math.isfinite(value):
                self.state.loss_sum += value
                self.state.loss_count += 1
        self.losses = []

    def _save(self) -> None:
        self._check_pending()
        self._sum_losses()
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise self._not_finite("the weights are not finite")  # and the last checkpoint's are
        self.save(self)
