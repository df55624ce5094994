"""A run's settings: sorted into training's and the model's, and refused where they can't be or would do nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from regard.config import ModelConfig, check_types
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError, suggest
from regard.tasks.base import DataSize, Task
from regard.tasks.preparation import base_model, check_tokenizer
from regard.training.config import TrainConfig
from regard.training.events import Warned
from regard.training.precision import choose_device
from regard.training.state import Progress

Settings = dict[str, Any]

# When a setting does something; those that ModelConfig and TrainConfig check themselves are not here.
_OF_TRAINING: dict[str, tuple[Callable[[TrainConfig], bool], str]] = {
    "decay_fraction": (lambda c: c.schedule == "wsd", "--schedule wsd"),
    "ema_decay": (lambda c: c.average == "ema", "--average ema"),
    "average_last": (lambda c: c.average == "last", "--average last"),
}
_OF_MODEL: dict[str, tuple[Callable[[ModelConfig], bool], str]] = {
    "rotary_base": (lambda c: c.position == "rotary", "--position rotary"),
    "relative_buckets": (lambda c: c.position == "t5", "--position t5"),
    "relative_distance": (lambda c: c.position == "t5", "--position t5"),
    "share_embeddings": (lambda c: c.kind == "encoder-decoder", "an encoder-decoder"),
    "tie_embeddings": (lambda c: c.head == "lm", "a task that predicts tokens"),
    "output_bias": (lambda c: c.head == "lm", "a task that predicts tokens"),
    "pooling": (lambda c: c.head == "classify", "classify"),
    "pooler": (lambda c: c.head == "classify", "classify"),
    "head_transitions": (lambda c: c.head == "tag", "tag"),
}


def split_settings(settings: Mapping[str, Any]) -> tuple[Settings, Settings]:
    """Sort settings into training's and the model's; one that is None is as if it weren't there.

    Raises:
        ConfigError: one is neither.
    """
    of_training = {f.name for f in dataclasses.fields(TrainConfig)}
    of_model = {f.name for f in dataclasses.fields(RecurrentConfig)}  # and every field of ModelConfig
    for name in settings:
        if name not in of_training | of_model:
            raise ConfigError(f"unknown setting {name!r}. {suggest(name, of_training | of_model)}".strip())
    given = {name: value for name, value in settings.items() if value is not None}
    return (
        {name: value for name, value in given.items() if name in of_training},
        {name: value for name, value in given.items() if name not in of_training},
    )


def train_config(suited: Settings, given: Settings) -> TrainConfig:
    """Join what suits the data with what was given; an end that is given replaces the one that suits, minutes too.

    A warm-up that nobody gave is at most a tenth of the steps.

    Raises:
        ConfigError: a setting can't be, or would do nothing.
    """
    if {"steps", "epochs", "minutes"} & given.keys():
        suited = {name: value for name, value in suited.items() if name not in ("steps", "epochs")}
    config = TrainConfig.from_dict({**suited, **given})
    if config.steps is not None and "warmup" not in given:
        config = config.replace(warmup=min(config.warmup, max(1, config.steps // 10)))
    _refuse_idle(given, config, _OF_TRAINING)
    return config


def check_ends(given: Settings, before: Settings, done: Progress | None) -> None:
    """Refuse an end, other than the one before, that a run which is to go on has passed already.

    Raises:
        ConfigError: it has.
    """
    if done is None:
        return
    epochs, minutes = done.epoch + (done.batch > 0), done.elapsed / 60
    for name, value in (("steps", done.step), ("epochs", epochs), ("minutes", minutes)):
        if name in given and given[name] != before[name] and given[name] < value:
            shown = f"{value:,.2f}" if name == "minutes" else f"{value:,}"
            raise ConfigError(
                f"{name}={given[name]}, but {shown} {name} are done already; give more, or leave it out."
            )


def check_warmup(
    given: Settings, config: TrainConfig, horizon: int | None, report: Callable[[Any], None]
) -> None:
    """Say so where a run ends before its learning rate has reached its peak."""
    if horizon is not None and config.warmup > horizon:
        whose = "" if "warmup" in given else ", which suits larger data"
        text = (
            f"the learning rate rises for {config.warmup} steps{whose}, and the run has {horizon}: it never reaches "
            f"lr={config.lr:g}; give a smaller --warmup."
        )
        report(Warned(text))


def check_model_settings(given: Settings, config: ModelConfig) -> None:
    """Refuse settings of the model that do nothing in it.

    Raises:
        ConfigError: one does nothing.
    """
    _refuse_idle(given, config, _OF_MODEL)


def check_early(
    task: Task,
    *,
    model: str | ModelConfig | None,
    tokenizer: str | Path | None,
    vocab_size: int | None,
    lowercase: bool,
    of_training: Settings,
    of_model: Settings,
) -> None:
    """Refuse what can be refused before the data is read, which may take long.

    Raises:
        ConfigError, CheckpointError: a setting can't be.
    """
    spec = task.suit(DataSize(0, 0))
    config = train_config(spec.training, of_training)
    choose_device(config.device)
    if model is None:
        of_model = {**spec.model_settings, **of_model}
    free = {name: value for name, value in of_model.items() if name not in task.adjustable}
    base_model(task, model or spec.model).replace(**free)
    check_types(of_model, RecurrentConfig)
    check_tokenizer(tokenizer, vocab_size, lowercase, spec)


def _refuse_idle(
    given: Settings, config: Any, effects: Mapping[str, tuple[Callable[[Any], bool], str]]
) -> None:
    for name, (works, where) in effects.items():
        if name in given and not works(config):
            raise ConfigError(f"{name}={given[name]!r} has no effect here: it is for {where}; leave it out.")
