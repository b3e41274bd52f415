"""The tasks by name, and which one a source of data is for."""

from __future__ import annotations

from typing import Any

from residua.errors import BadInput, nearest
from residua.training.classification.task import ClassificationTask
from residua.training.task import Task

TASKS: dict[str, Task[Any, Any]] = {task.name: task for task in (ClassificationTask(),)}


def task_named(name: str) -> Task[Any, Any]:
    """Return the task of that name; BadInput if there is none."""
    if name not in TASKS:
        raise BadInput(f"no task is called {name!r}.{nearest(name, TASKS)}")
    return TASKS[name]
