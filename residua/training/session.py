"""A session: from a request to a finished run, starting anew or going on.

    gather (pictures) -> decide (size, model) -> plan -> loop -> finish (model, report)

What was decided is recorded before training begins, and a resumed session reads it again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.errors import BadInput, ResiduaError
from residua.nn.norms import tracks_statistics
from residua.training import checkpoint
from residua.training.average import Average, freeze
from residua.training.cards import Card, card_of
from residua.training.devices import choose_device, first_does, is_main, make_fabric, world_size
from residua.training.fit import Loop
from residua.training.folder import RunFolder, read_json, write_model
from residua.training.interruption import InterruptedRunError
from residua.training.logs import Logged, Logs
from residua.training.lr_range import RangeTest, range_test
from residua.training.memory import keep_freed_memory
from residua.training.optimisers import make_optimiser
from residua.training.plan import Plan, Trial, lengthened, make_plan
from residua.training.precise_bn import precise_bn
from residua.training.recipe import Recipe
from residua.training.request import Request
from residua.training.run import Run
from residua.training.starting import start_with
from residua.training.state import State, Watcher
from residua.training.task import Material
from residua.training.tasks import task_named
from residua.training.versions import versions


class Session:
    """One call of train or resume."""

    def __init__(self, folder: RunFolder, request: Request, watcher: Watcher) -> None:
        self.folder, self.request = folder, request
        self.watcher = watcher if is_main() else Watcher()  # one rank speaks
        self.began = time.monotonic()
        self.device = choose_device(request.device)
        self.task = task_named(request.task)
        if self.device.type == "cpu":
            keep_freed_memory()

    # -- the ways in ------------------------------------------------------------------------------

    def start(self, overwrite: bool) -> Run[Any]:
        """Begin a run in an empty folder."""
        first_does(lambda: self._refuse(overwrite))
        material = self.task.gather(self.request, None, self.watcher)
        if is_main():
            self.folder.clear()
            self.folder.write_config(self.request.as_config())
            self._write_split(material)
        with self._resumable():
            return self._train(material, None, None)

    def _refuse(self, overwrite: bool) -> None:
        path, there = self.folder.path, self.folder.config.exists()
        if there and not overwrite:
            raise BadInput(
                f"{path}: holds a run already; go on with `residua train --resume {path}`,"
                " replace it with --overwrite, or choose another --out"
            )
        if not there and self.folder.holds_others():
            raise BadInput(f"{path}: is there already and is no run; choose another --out")

    def resume(self, longer: Recipe | None) -> Run[Any]:
        """Go on with the run in the folder."""
        split, saved = first_does(self._recorded)
        if is_main():
            self.folder.tidy()
        if longer is not None:
            self.request = self.request.changed(recipe=longer)
        material = self.task.gather(self.request, split, self.watcher)
        if split is None and is_main():
            self._write_split(material)
        with self._resumable():
            return self._train(material, saved, longer)

    @contextlib.contextmanager
    def _resumable(self) -> Iterator[None]:
        """Say how to go on where an interruption comes before or after the loop, which saves itself."""
        try:
            yield
        except KeyboardInterrupt:
            how = f"go on with `residua train --resume {self.folder.path}`"
            raise InterruptedRunError(f"interrupted; {how}") from None

    def _recorded(self) -> tuple[Any, Any]:
        """Return the split and the checkpoint that are in the folder; None for what is not."""
        folder = self.folder
        split = read_json(folder.split) if folder.split.exists() else None
        return split, checkpoint.load(folder.checkpoint) if folder.checkpoint.exists() else None

    def find_lr(self) -> RangeTest:
        """Run a learning-rate range test; nothing is written."""
        material = self.task.gather(self.request, None, self.watcher)
        card = self.task.decide(material, self.request, self.device, self.watcher)
        trial = self._trial(material, card, self._model(card))
        return range_test(material.recipe, trial, seed=self.request.seed)

    def _write_split(self, material: Material) -> None:
        checkpoint.write_text(self.folder.split, json.dumps(material.split_record))

    def _write_setup(self, setup: dict[str, Any]) -> None:
        checkpoint.write_text(self.folder.setup, json.dumps(setup, indent=1))

    # -- deciding -----------------------------------------------------------------------------------

    def _train(
        self, material: Material, saved: dict[str, Any] | None, longer: Recipe | None
    ) -> Run[Any]:
        state = State.from_dict(saved["state"]) if saved else State()
        setup = first_does(lambda: self._decided(saved))
        if setup is None:
            card = self.task.decide(material, self.request, self.device, self.watcher)
            model = self._model(card)
            plan = first_does(lambda: self._plan(material, card, model))
        else:
            card, plan = card_of(setup["card"]), Plan.from_dict(setup["plan"])
            self.task.prepare(material, card, self.watcher)
            model = self._model(card, fresh=saved is None)
            if longer is not None:
                old = plan
                plan = first_does(lambda: self._longer(old, longer, state, material, card, model))
        setup = {"card": card.as_dict(), "plan": plan.as_dict(), "versions": versions()}
        if is_main():
            self._write_setup(setup)
            self.folder.write_config(self.request.as_config())
        run = self.task.run(self.folder, self.request.device)
        config, threads = self.request.as_config(), torch.get_num_threads()
        torch.set_num_threads(plan.threads)
        try:
            if state.step >= plan.steps:
                self.watcher.note(
                    f"all {plan.steps:,} steps are done: measuring and writing the report again"
                )
            else:
                plan = self._run(material, card, plan, setup, model, state, saved)
            run.measures = self.task.finish(
                self.folder, config, material, state, plan, run, self.watcher
            )
        finally:
            torch.set_num_threads(threads)
        return run

    def _decided(self, saved: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the setup of the folder: newer than the checkpoint's, where a run became longer."""
        if self.folder.setup.exists():
            setup: dict[str, Any] = read_json(self.folder.setup)
            return setup
        return saved["setup"] if saved else None

    def _model(self, card: Card, fresh: bool = True) -> nn.Module:
        """Return the network to begin with; one that goes on takes its weights from the checkpoint."""
        torch.manual_seed(self.request.seed)
        model = card.build()
        if fresh and self.request.weights is not None:
            report = start_with(model, card, Path(self.request.weights), self.request.head)
            self.watcher.note(str(report))
        return model

    def _trial(self, material: Material, card: Card, model: nn.Module) -> Trial:
        """Return what is needed to time steps; the batches are one rank's share."""
        batches = self.task.training_batches(
            material, card, self.request, self.device, 0, world_size()
        )
        objective = self.task.objective(material, card, self.request.seed, self.device)
        freeze(model, material.recipe.freeze)
        return Trial(model.to(self.device), batches, objective, self.device)

    def _plan(self, material: Material, card: Card, model: nn.Module) -> Plan:
        recipe, looks = material.recipe, material.looks
        batch = recipe.batch if self.task.repeats else min(recipe.batch, len(material.names))
        least = 2 if any(tracks_statistics(m) for m in model.modules()) else 1
        if batch // world_size() // recipe.accumulate < least:
            raise BadInput(
                f"a batch of {batch} pictures in {recipe.accumulate * world_size()} parts"
                f" (batch_size {recipe.batch}, accumulate {recipe.accumulate}): each part needs"
                f" {least} pictures or more" + (", for the batch norms" if least > 1 else "")
            )
        trial = self._trial(material, card, model)
        lr = recipe.optimiser.lr
        if lr == "auto":
            lr = range_test(recipe, trial).suggestion
            self.watcher.note(f"learning rate {lr:.3g}, from a range test")
        threads = torch.get_num_threads()
        plan = make_plan(
            recipe,
            trial,
            lr=lr,
            spent=time.monotonic() - self.began,
            evaluated=looks["val"],
            tested=looks.get("test", looks["val"]),
            say=self.watcher.note,
        )
        torch.set_num_threads(threads)
        trial.batches.close()
        return plan

    def _longer(
        self,
        plan: Plan,
        longer: Recipe,
        state: State,
        material: Material,
        card: Card,
        model: nn.Module,
    ) -> Plan:
        """Return the plan of a run made longer; its schedule is that of the whole new length."""
        added = self._plan(material, card, model)
        total = added.steps + state.step if longer.budget else added.steps
        if total <= state.step:
            raise BadInput(
                f"step {state.step} is done already: {total} steps in all are not longer"
            )
        time_in_all = state.seconds + added.train_seconds if added.train_seconds else None
        return replace(lengthened(plan, longer, card.size, total), train_seconds=time_in_all)

    # -- training ---------------------------------------------------------------------------------

    def _run(
        self,
        material: Material,
        card: Card,
        plan: Plan,
        setup: dict[str, Any],
        model: nn.Module,
        state: State,
        saved: dict[str, Any] | None,
    ) -> Plan:
        """Train to the end of the plan and return it; an error says what the last good checkpoint is."""
        fabric = make_fabric(self.device, plan.precision)
        logs = None
        if fabric.is_global_zero:
            logs = Logs(self.folder.path, state.history, state.step, self.task.score)
        loop = self._loop(fabric, logs, material, card, plan, setup, model, state)
        if saved is not None:
            self._restore(loop, saved)
        else:
            loop.save(loop)
        path = self.folder.path
        try:
            loop.run()
        except InterruptedRunError as stop:
            raise InterruptedRunError(
                f"{stop}; go on with `residua train --resume {path}`"
            ) from None
        except ResiduaError as error:
            good = f"; the last good checkpoint is {self.folder.checkpoint}"
            raise type(error)(f"{error}{good}") from error
        finally:
            loop.batches.close()
            if logs is not None:
                logs.close()
        return loop.plan

    def _loop(
        self,
        fabric: Fabric,
        logs: Logs | None,
        material: Material,
        card: Card,
        plan: Plan,
        setup: dict[str, Any],
        model: nn.Module,
        state: State,
    ) -> Loop:
        recipe, folder, names = material.recipe, self.folder, material.names
        model = model.to(fabric.device)
        frozen = freeze(model, recipe.freeze)
        objective = self.task.objective(material, card, self.request.seed, fabric.device)

        def save(loop: Loop) -> None:
            if fabric.is_global_zero:
                if (now := loop.plan.as_dict()) != setup["plan"]:
                    setup["plan"] = now
                    self._write_setup(setup)
                parts = {"recipe": recipe.model_dump(mode="json"), "setup": setup}
                checkpoint.save(folder.checkpoint, loop.contents() | parts)

        def keep_best(loop: Loop) -> None:
            if fabric.is_global_zero:
                facts = {"step": state.step, f"val_{self.task.score}": state.best_score}
                write_model(folder.best, loop.result, card, facts | setup["versions"])

        def describe(indices: Any) -> str:
            shown = ", ".join(names[int(i)] for i in indices[:3])
            return f"{shown} and {len(indices) - 3} more" if len(indices) > 3 else shown

        batches = self.task.training_batches(
            material, card, self.request, fabric.device, fabric.global_rank, fabric.world_size
        )
        n = recipe.precise_bn

        def polish(result: nn.Module) -> None:
            precise_bn(result, batches, n, objective, frozen=recipe.freeze)

        return Loop(
            fabric=fabric,
            model=model,
            recipe=recipe,
            plan=plan,
            seed=self.request.seed,
            batches=batches,
            optimiser=make_optimiser(model, recipe.optimiser, plan.lr),
            objective=objective,
            state=state,
            evaluate=self.task.evaluator(material, card, fabric),
            save=save,
            keep_best=keep_best,
            describe=describe,
            watcher=Logged(self.watcher, logs),
            average=Average(model, recipe.ema) if recipe.ema else None,
            frozen=frozen,
            polish=polish if n else None,
            score=self.task.score,
        )

    def _restore(self, loop: Loop, saved: dict[str, Any]) -> None:
        """Put a checkpoint's tensors back; BadInput if they are not this model's."""
        try:
            loop.restore(saved)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(
                f"{self.folder.checkpoint}: is not of this run's model ({reason})"
            ) from None
