"""The tasks by name."""

from __future__ import annotations

from regard.errors import ConfigError, suggest
from regard.tasks.base import Task
from regard.tasks.classify import ClassifyTask
from regard.tasks.classify_several import ClassifySeveralTask
from regard.tasks.converse import ChatTask
from regard.tasks.denoise import DenoiseTask
from regard.tasks.fill import FillTask
from regard.tasks.generate import GenerateTask
from regard.tasks.tag import TagTask
from regard.tasks.translate import TranslateTask

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TranslateTask(),
        GenerateTask(),
        FillTask(),
        DenoiseTask(),
        ClassifyTask(),
        TagTask(),
        ChatTask(),
    )
}


def get_task(name: str, label_separator: str | None = None) -> Task:
    """Give a task by its name; with `label_separator`, to classify texts that have any number of labels.

    Raises:
        ConfigError: there is none of that name, or it has no labels to separate.
    """
    if name not in TASKS:
        raise ConfigError(
            f"unknown task {name!r}; choose from {', '.join(TASKS)}. {suggest(name, TASKS)}".strip()
        )
    if label_separator is None:
        return TASKS[name]
    if name != "classify":
        raise ConfigError(
            f"label_separator={label_separator!r} is for classify, not for {name}; leave it out."
        )
    return ClassifySeveralTask(label_separator)
