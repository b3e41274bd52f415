"""The tasks by name, and which one a source of data, or a run, is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from residua.errors import BadInput, nearest
from residua.training.classification.task import ClassificationTask
from residua.training.folder import RunFolder, read_model
from residua.training.pose.task import PoseTask
from residua.training.recipe import read_yaml
from residua.training.run import Run
from residua.training.segmentation.task import SegmentationTask
from residua.training.task import Task

TASKS: dict[str, Task[Any, Any]] = {
    task.name: task for task in (PoseTask(), SegmentationTask(), ClassificationTask())
}


def task_named(name: str) -> Task[Any, Any]:
    """Return the task of that name; BadInput if there is none."""
    if name not in TASKS:
        raise BadInput(f"no task is called {name!r}.{nearest(name, TASKS)}")
    return TASKS[name]


def task_of(source: str | Path) -> str:
    """Return the name of the task that a source of data is for; any source is for one."""
    for name, task in TASKS.items():
        if task.recognises(source):
            return name
    return ClassificationTask.name


def open_run(path: str | Path) -> Run[Any]:
    """Open a run that has been trained, to evaluate it or to predict with it."""
    folder = RunFolder(Path(path))
    name = ClassificationTask.name
    if folder.config.exists():
        name = read_yaml(folder.config).get("task", name)
    elif folder.path.is_file():
        name = read_model(folder.path)[1].task
    return task_named(name).run(folder, "auto")
