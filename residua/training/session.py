"""A session: from a request to a finished run, starting anew or going on.

prepare (data, picture size, model) -> plan (or the recorded one) -> loop -> finish (model, report)
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data.batches import Batches
from residua.data.check import check, readable
from residua.data.pictures import Pictures, open_pictures
from residua.errors import BadInput, ResiduaError
from residua.models import record
from residua.models.weights import load_weights
from residua.nn import is_norm
from residua.training import checkpoint, inputs
from residua.training.devices import choose_device, is_main, make_fabric, world_size
from residua.training.evaluation import predict_all
from residua.training.finish import finish
from residua.training.fit import Average, InterruptedRunError, Loop, State, Watcher, freeze
from residua.training.folder import ModelCard, RunFolder, read_json, write_model
from residua.training.logs import Logs
from residua.training.lr_range import RangeTest, range_test
from residua.training.optimisers import make_optimiser
from residua.training.plan import Plan, Trial, lengthened, make_plan
from residua.training.precise_bn import precise_bn
from residua.training.recipe import Recipe, build, with_batch_size
from residua.training.run import Run
from residua.training.task import summary
from residua.training.versions import versions

MOST_VALIDATION = 2500  # pictures held out by default: 0.6 points of standard error at 90 %
QUICK_WIDTHS = {"cpu": 32}  # of resnet9_cifar; elsewhere its own 64


@dataclass(frozen=True)
class Request:
    """What a user asked for."""

    source: str
    recipe: Recipe
    data: str | None = None
    seed: int = 0
    workers: int | None = None
    device: str = "auto"
    weights: str | None = None
    head: str = "keep"
    skip_unreadable: bool = False
    command: str = ""

    def as_config(self) -> dict[str, Any]:
        """Return the contents of config.yaml."""
        values = asdict(replace(self, recipe=None))  # type: ignore[arg-type]
        if Path(self.source).expanduser().exists():
            values["source"] = str(Path(self.source).expanduser().absolute())
        return values | {"recipe": self.recipe.model_dump(mode="json")}

    @classmethod
    def from_config(cls, values: dict[str, Any], where: str) -> Request:
        """Return the request in a config.yaml; BadInput for an unknown or missing key."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        missing = {"source", "recipe"} - set(values)
        if unknown or missing:
            what = f"unknown key {min(unknown)!r}" if unknown else f"no key {min(missing)!r}"
            raise BadInput(f"{where}: {what}")
        return cls(**{**values, "recipe": build(values["recipe"], where)})

    def changed(self, **changes: Any) -> Request:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


class Session:
    """One call of train or resume."""

    def __init__(self, folder: RunFolder, request: Request, watcher: Watcher) -> None:
        self.folder, self.request, self.watcher = folder, request, watcher
        self.began = time.monotonic()
        self.device = choose_device(request.device)

    # -- the two ways in --------------------------------------------------------------------------

    def start(self, overwrite: bool) -> Run:
        """Begin a run in an empty folder."""
        path = self.folder.path
        if self.folder.config.exists() and not overwrite:
            raise BadInput(
                f"{path}: holds a run already; go on with `residua train --resume {path}`,"
                " replace it with --overwrite, or choose another --out"
            )
        if path.is_dir() and not self.folder.config.exists() and any(path.iterdir()):
            raise BadInput(f"{path}: is a folder with other things in it; choose another --out")
        pictures = self._open(None)
        if overwrite and is_main():
            self._clear()
        if is_main():
            self.folder.write_config(self.request.as_config())
            checkpoint.write_text(self.folder.split, json.dumps(pictures.split_record))
        return self._train(pictures, None)

    def resume(self, longer: Recipe | None) -> Run:
        """Go on with the run in the folder."""
        split = read_json(self.folder.split) if self.folder.split.exists() else None
        pictures = self._open(split)
        if split is None and is_main():
            checkpoint.write_text(self.folder.split, json.dumps(pictures.split_record))
        saved = checkpoint.load(self.folder.checkpoint) if self.folder.checkpoint.exists() else None
        return self._train(pictures, saved, longer)

    def find_lr(self) -> RangeTest:
        """Run a learning-rate range test; nothing is written."""
        pictures = self._open(None)
        card, stores = self._setup(pictures)
        trial = self._trial(self._model(card), card, pictures, stores)
        return range_test(self.recipe, trial, seed=self.request.seed)

    def _clear(self) -> None:
        """Remove the files of the run that was here, and nothing else."""
        folder = self.folder
        ours = [folder.config, folder.split, folder.setup, folder.checkpoint, folder.best]
        ours += [folder.model, folder.report, folder.path / "metrics.csv"]
        ours += folder.path.glob("events.out.tfevents.*")
        for file in ours:
            file.unlink(missing_ok=True)

    # -- preparation ------------------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """The recipe, with what depends on the number of pictures settled."""
        return with_batch_size(self.request.recipe, self.training_pictures)

    def _open(self, split_record: dict[str, Any] | None) -> Pictures:
        """Open and check the pictures; an error in them ends the run before it began."""
        request = self.request
        pictures = open_pictures(
            request.source,
            data=None if request.data is None else Path(request.data),
            seed=request.seed,
            val_fraction=request.recipe.val_fraction or 0.1,
            split_record=split_record,
        )
        if request.recipe.val_fraction is None and split_record is None:
            pictures = self._bounded_validation(pictures)
        found = check(
            pictures,
            skip_unreadable=request.skip_unreadable,
            progress=lambda done, total: self.watcher.progress("checking", done, total),
        )
        self.watcher.note(found.text())
        if found.errors:
            more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
            raise BadInput(found.errors[0] + more)
        if found.unreadable:
            pictures = readable(pictures, found)
        self.findings = found
        self.training_pictures = len(pictures.splits["train"])
        return pictures

    def _bounded_validation(self, pictures: Pictures) -> Pictures:
        """Hold out no more than is needed to tell networks apart, where the split is ours to make."""
        held_out, n = len(pictures.splits["val"]), len(pictures.splits["train"])
        if held_out <= MOST_VALIDATION or pictures.split_record["how"]["val"] != "made":
            return pictures
        request = self.request
        return open_pictures(
            request.source,
            data=None if request.data is None else Path(request.data),
            seed=request.seed,
            val_fraction=MOST_VALIDATION / (held_out + n),
        )

    def _setup(self, pictures: Pictures) -> tuple[ModelCard, dict[str, Any]]:
        """Choose size and model, decode the pictures, measure them."""
        recipe = self.recipe
        height, width = self.findings.facts["sizes"]["median"]
        shape = inputs.decide_shape(
            recipe, (height, width), pictures.channels, self.device.type != "cpu"
        )
        stores = self._stores(pictures, shape)
        name, options = self._choose_model(shape)
        augmentation = inputs.augmentation_of(recipe, pictures.classes, shape)
        card = ModelCard(
            name,
            options,
            pictures.classes,
            shape,
            inputs.measure(stores["train"], shape.channels, self.request.seed),
            flip=recipe.evaluation.flip and augmentation.flip,
        )
        return card, stores

    def _stores(self, pictures: Pictures, shape: inputs.Shape) -> dict[str, Any]:
        height, width = self.findings.facts["sizes"]["median"]
        stores = {}
        for key, split in pictures.splits.items():
            stores[key] = inputs.open_store(split, shape, (height, width), self.watcher.progress)
            if stores[key].note:
                self.watcher.note(stores[key].note)
        return stores

    def _choose_model(self, shape: inputs.Shape) -> tuple[str, dict[str, Any]]:
        recipe = self.recipe
        options = dict(recipe.model_options)
        if recipe.model is not None:
            record(recipe.model)  # says at once if there is no such model
            return recipe.model, options
        if not shape.small:
            return "resnet18", options
        width = QUICK_WIDTHS.get(self.device.type)
        return "resnet9_cifar", ({"width": width} if width else {}) | options

    def _train_batches(
        self, pictures: Pictures, stores: dict[str, Any], card: ModelCard, fabric: Fabric | None
    ) -> Batches:
        recipe = self.recipe
        store = stores["train"]
        augmentation = inputs.augmentation_of(recipe, card.classes, card.shape)
        workers = self.request.workers
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
            light = store.uniform and augmentation.vectorised
            workers = 0 if light else max(1, min(8, cores - 1))
        return Batches(
            store,
            pictures.splits["train"].labels,
            batch_size=recipe.batch,
            seed=self.request.seed,
            augmentation=augmentation,
            size=card.shape.size,
            train=True,
            rank=fabric.global_rank if fabric else 0,
            world=fabric.world_size if fabric else world_size(),
            workers=workers,
            device=fabric.device if fabric else self.device,
            repeats=recipe.augmentation.repeats,
        )

    # -- training ---------------------------------------------------------------------------------

    def _train(
        self, pictures: Pictures, saved: dict[str, Any] | None, longer: Recipe | None = None
    ) -> Run:
        setup = saved["setup"] if saved else None
        if setup is None and self.folder.setup.exists():
            setup = read_json(self.folder.setup)
        state = State.from_dict(saved["state"]) if saved else State()
        if setup is not None:
            card, plan = ModelCard.from_dict(setup["card"]), Plan.from_dict(setup["plan"])
            stores = self._stores(pictures, card.shape)
            model = self._model(card)
        else:
            card, stores = self._setup(pictures)
            model = self._model(card)
            plan = self._plan(model, card, pictures, stores)
        if longer is not None:
            plan = self._longer(plan, longer, state.step, model, card, pictures, stores)
        setup = {"card": card.as_dict(), "plan": plan.as_dict(), "versions": versions()}
        if is_main():
            if longer is not None:
                self.folder.write_config(self.request.as_config())
            checkpoint.write_text(self.folder.setup, json.dumps(setup, indent=1))
        loop, logs = self._loop(pictures, stores, model, card, plan, state, setup, saved)
        if state.step < plan.steps:
            try:
                if saved is None or longer is not None:
                    loop.save(loop)
                loop.run()
            except InterruptedRunError as stop:
                path = self.folder.path
                raise InterruptedRunError(
                    f"{stop}; go on with `residua train --resume {path}`"
                ) from None
            except ResiduaError as error:
                good = f"; the last good checkpoint is {self.folder.checkpoint}"
                where = good if self.folder.checkpoint.exists() else ""
                raise type(error)(f"{error}{where}") from error
            finally:
                loop.batches.close()
                if logs is not None:
                    logs.close()
        run = Run(self.folder, self.request.device)
        run.measures = finish(
            self.folder,
            self.request.as_config(),
            pictures,
            stores,
            state,
            plan,
            self.findings,
            run,
            self.watcher,
        )
        return run

    def _model(self, card: ModelCard) -> nn.Module:
        torch.manual_seed(self.request.seed)
        model = card.build()
        if self.request.weights is not None:
            head = "new" if self.request.head == "new" else "keep"
            report = load_weights(model, Path(self.request.weights), head=head)  # type: ignore[arg-type]
            self.watcher.note(str(report))
        freeze(model, self.request.recipe.freeze)
        return model

    def _trial(
        self, model: nn.Module, card: ModelCard, pictures: Pictures, stores: dict[str, Any]
    ) -> Trial:
        mean, std = (t.to(self.device) for t in card.normalisation.tensors())
        batches = self._train_batches(pictures, stores, card, None)
        return Trial(model.to(self.device), batches, mean, std, self.device)

    def _plan(
        self, model: nn.Module, card: ModelCard, pictures: Pictures, stores: dict[str, Any]
    ) -> Plan:
        recipe = self.recipe
        trial = self._trial(model, card, pictures, stores)
        per_part = min(recipe.batch, len(pictures.splits["train"])) // recipe.accumulate
        if per_part < 2 and any(is_norm(m) for m in model.modules()):
            raise BadInput(
                f"batch_size {recipe.batch_size} with accumulate {recipe.accumulate}: a norm needs"
                " two pictures or more at a time"
            )
        lr = recipe.optimiser.lr
        if lr == "auto":
            lr = range_test(recipe, trial).suggestion
            self.watcher.note(f"learning rate {lr:.3g}, from a range test")
        splits = pictures.splits
        return make_plan(
            recipe,
            trial,
            lr=lr,
            spent=time.monotonic() - self.began,
            evaluated=len(splits["val"]),
            tested=len(splits["test"]) if "test" in splits else len(splits["val"]),
            say=self.watcher.note,
        )

    def _longer(
        self,
        plan: Plan,
        longer: Recipe,
        done: int,
        model: nn.Module,
        card: ModelCard,
        pictures: Pictures,
        stores: dict[str, Any],
    ) -> Plan:
        """Return the plan of a run made longer; its schedule is that of the whole new length."""
        self.request = self.request.changed(recipe=longer)
        steps = self._plan(model, card, pictures, stores).steps
        total = steps + done if longer.budget else steps
        if total <= done:
            raise BadInput(f"step {done} is done already: {total} steps in all are not longer")
        return lengthened(plan, longer, card.shape.size, total)

    def _loop(
        self,
        pictures: Pictures,
        stores: dict[str, Any],
        model: nn.Module,
        card: ModelCard,
        plan: Plan,
        state: State,
        setup: dict[str, Any],
        saved: dict[str, Any] | None,
    ) -> tuple[Loop, Logs | None]:
        recipe, folder = self.recipe, self.folder
        fabric = make_fabric(self.device, plan.precision)
        model = model.to(fabric.device)
        frozen = freeze(model, recipe.freeze)
        optimiser = make_optimiser(model, recipe.optimiser, plan.lr)
        average = Average(model, recipe.ema) if recipe.ema else None
        mean, std = (t.to(fabric.device) for t in card.normalisation.tensors())
        validation = inputs.evaluation_batches(
            stores["val"],
            pictures.splits["val"].labels,
            card.shape,
            recipe.evaluation.batch_size or recipe.batch,
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
        )
        logs = Logs(folder.path, state.history, state.step) if fabric.is_global_zero else None

        def evaluate(result: nn.Module) -> dict[str, Any]:
            found = predict_all(fabric, result, validation, mean, std, flip=card.flip)
            return summary(found, len(card.classes))

        def save(loop: Loop) -> None:
            if not fabric.is_global_zero:
                return
            checkpoint.save(
                folder.checkpoint,
                {
                    "model": model.state_dict(),
                    "average": average.model.state_dict() if average else None,
                    "optimiser": optimiser.state_dict(),
                    "scaler": fabric.strategy.precision.state_dict(),
                    "random": torch.get_rng_state(),
                    "state": state.as_dict(),
                    "recipe": recipe.model_dump(mode="json"),
                    "setup": setup,
                },
            )

        def keep_best(loop: Loop) -> None:
            if fabric.is_global_zero:
                facts = {"step": state.step, "val_accuracy": state.best_accuracy} | setup[
                    "versions"
                ]
                write_model(folder.best, loop.result, card, facts)

        def describe(indices: Any) -> str:
            names = pictures.splits["train"].names
            shown = ", ".join(names[int(i)] for i in indices[:3])
            return f"{shown} and {len(indices) - 3} more" if len(indices) > 3 else shown

        if saved is not None:
            model.load_state_dict(saved["model"])
            if average is not None:
                average.model.load_state_dict(saved["average"])
        loop = Loop(
            fabric=fabric,
            model=model,
            recipe=recipe,
            plan=plan,
            seed=self.request.seed,
            batches=self._train_batches(pictures, stores, card, fabric),
            optimiser=optimiser,
            mean=mean,
            std=std,
            classes=len(card.classes),
            state=state,
            evaluate=evaluate,
            save=save,
            keep_best=keep_best,
            describe=describe,
            watcher=_Logged(self.watcher, logs),
            average=average,
            frozen=frozen,
        )
        if saved is not None:
            optimiser.load_state_dict(saved["optimiser"])
            fabric.strategy.precision.load_state_dict(saved["scaler"])
            torch.set_rng_state(saved["random"])
        if recipe.precise_bn:
            n = recipe.precise_bn
            loop.polish = lambda result: precise_bn(result, loop.batches, n, mean, std)
        return loop, logs


class _Logged(Watcher):
    """Passes everything on to the user's watcher, and rows to the logs."""

    def __init__(self, watcher: Watcher, logs: Logs | None) -> None:
        self.watcher, self.logs = watcher, logs
        self.note, self.warn, self.progress = watcher.note, watcher.warn, watcher.progress  # type: ignore[method-assign]
        self.start, self.end = watcher.start, watcher.end  # type: ignore[method-assign]

    def step(self, state: State, loss: float, lr: float) -> None:
        if self.logs is not None:
            self.logs.step(state.step, loss, lr)
        self.watcher.step(state, loss, lr)

    def evaluated(self, row: dict[str, Any]) -> None:
        if self.logs is not None:
            self.logs.evaluated(row)
        self.watcher.evaluated(row)
