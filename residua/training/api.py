"""Train a network on pictures, go on with a run, open a run that is there.

run = residua.train("path/to/pictures", model="resnet18", budget="10m")
run.predict("picture.jpg")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from residua.errors import BadInput
from residua.training.devices import first_does
from residua.training.folder import RunFolder
from residua.training.lr_range import RangeTest
from residua.training.recipe import LENGTHS, Recipe, check_task, read_yaml, with_overrides
from residua.training.recipes import load_recipe
from residua.training.request import Request
from residua.training.run import Run
from residua.training.session import Session
from residua.training.state import Watcher
from residua.training.tasks import open_run, task_named, task_of

HEADS = ("keep", "new")


def train(
    source: str | Path,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    model: str | None = None,
    recipe: str | Recipe = "quick",
    budget: str | None = None,
    epochs: float | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
    head: Literal["keep", "new"] = "keep",
    overwrite: bool = False,
    skip_unreadable: bool = False,
    task: str | None = None,
    watcher: Watcher | None = None,
    command: str = "",
) -> Run[Any]:
    """Train a network and write a report; return the finished run.

    Args:
        source: a folder of class folders, a CSV, an archive, or a named set such as "digits".
        out: the run's folder; None takes runs/NAME-MODEL with the next free number.
        data: where a named set's files are.
        model: one of `residua.list_models()`; None chooses by the pictures' size.
        recipe: a name, a .yaml file or a Recipe.
        budget: wall clock for everything, as "10m"; or epochs: passes over the data.
        settings: "dotted.key=value", as `--set`.
        seed: decides initial weights, splits, order and augmentation.
        workers: processes that prepare pictures; None: as many as pay.
        device: "auto", "cpu", "cuda" or "mps".
        weights: a checkpoint to start from; for masks also a classification network's, for the encoder.
            head "new" leaves its last layers out; "keep", of masks and joints, takes them where there are
            as many classes or joints.
        overwrite: replace a run that is in `out` already.
        skip_unreadable: leave pictures out that cannot be read, rather than refuse the set.
        task: "classification", "segmentation" or "pose"; None: what the data is for.
        watcher: is told of progress.

    Raises:
        BadInput: anything wrong with what was given, in one line. ResiduaError: a run that failed.
    """
    if head not in HEADS:
        raise BadInput(f"head {head!r} is unknown: expected {' or '.join(HEADS)}")
    task = task or task_of(source)
    request = Request(
        source=str(source),
        data=None if data is None else str(data),
        recipe=_chosen(recipe, settings, task, model=model, budget=budget, epochs=epochs),
        seed=seed,
        workers=workers,
        device=device,
        weights=None if weights is None else str(weights),
        head=head,
        skip_unreadable=skip_unreadable,
        command=command,
        task=task,
    )
    path = Path(out) if out is not None else first_does(lambda: _free_folder(request))
    return Session(RunFolder(path), request, watcher or Watcher()).start(overwrite=overwrite)


def find_lr(source: str | Path, **request: Any) -> RangeTest:
    """Run a learning-rate range test (Smith 2017) instead of training; takes what `train` takes."""
    task = request.pop("task", None) or task_of(source)
    recipe = _chosen(
        request.pop("recipe", "quick"),
        request.pop("settings", ()),
        task,
        **{key: request.pop(key, None) for key in ("model", "budget", "epochs")},
    )
    watcher = request.pop("watcher", None) or Watcher()
    for key in ("data", "weights"):
        if request.get(key) is not None:
            request[key] = str(request[key])
    asked = Request(source=str(source), recipe=recipe, task=task, **request)
    return Session(RunFolder(Path()), asked, watcher).find_lr()


def _chosen(recipe: str | Recipe, settings: Sequence[str], task: str, **values: Any) -> Recipe:
    """Return the recipe with settings applied, those with an argument of their own last."""
    task_named(task)
    base = load_recipe(recipe, task) if isinstance(recipe, str) else recipe
    named = [f"{key}={value}" for key, value in values.items() if value is not None]
    chosen = with_overrides(base, [*settings, *named])
    check_task(chosen, task)
    return chosen


def resume(
    path: str | Path,
    *,
    budget: str | None = None,
    epochs: float | None = None,
    settings: Sequence[str] = (),
    workers: int | None = None,
    device: str | None = None,
    watcher: Watcher | None = None,
) -> Run[Any]:
    """Go on with a run after a crash, a kill or an interruption, or make a finished one longer.

    Only the length can change: epochs and steps are totals, a budget is time to add.
    """
    folder = RunFolder(Path(path))
    if not folder.config.exists():
        raise BadInput(f"{path}: no run to go on with (there is no {folder.config.name})")
    request = Request.from_config(read_yaml(folder.config), str(folder.config))
    asked = list(settings)
    for key, value in (("budget", budget), ("epochs", epochs)):
        if value is not None:
            asked.append(f"{key}={value}")
    strange = [a for a in asked if a.partition("=")[0].strip() not in LENGTHS]
    if strange:
        raise BadInput(
            f"{strange[0]}: a run that goes on keeps its recipe; only {', '.join(LENGTHS)} can change"
        )
    longer = None
    if asked:
        longer = with_overrides(request.recipe, asked)
    changes: dict[str, Any] = {}
    if workers is not None:
        changes["workers"] = workers
    if device is not None:
        changes["device"] = device
    session = Session(folder, request.changed(**changes), watcher or Watcher())
    return session.resume(longer)


def _free_folder(request: Request) -> Path:
    """Return runs/NAME-MODEL, or with the next number if that is taken."""
    name = Path(request.source).expanduser().absolute().name or request.source
    stem = f"{name}-{request.recipe.model or request.recipe.name}"
    number, path = 1, Path("runs") / stem
    while path.exists():
        number += 1
        path = Path("runs") / f"{stem}-{number}"
    return path


__all__ = ["Recipe", "Run", "find_lr", "open_run", "resume", "train"]
