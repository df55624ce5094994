"""The tasks by name."""

from __future__ import annotations

from regard.errors import ConfigError, suggest
from regard.tasks.base import Task
from regard.tasks.classify import ClassifyTask
from regard.tasks.denoise import DenoiseTask
from regard.tasks.fill import FillTask
from regard.tasks.generate import GenerateTask
from regard.tasks.tag import TagTask
from regard.tasks.translate import TranslateTask

TASKS: dict[str, Task] = {
    task.name: task
    for task in (TranslateTask(), GenerateTask(), FillTask(), DenoiseTask(), ClassifyTask(), TagTask())
}


def get_task(name: str) -> Task:
    """Give a task by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TASKS:
        raise ConfigError(
            f"unknown task {name!r}; choose from {', '.join(TASKS)}. {suggest(name, TASKS)}".strip()
        )
    return TASKS[name]
