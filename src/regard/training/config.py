"""How a run trains: one frozen value, checked when it is made, readable without torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

from regard.errors import ConfigError, suggest

__all__ = ["FALLING", "Average", "OptimizerKind", "PrecisionKind", "ScheduleKind", "TrainConfig"]

ScheduleKind = Literal["inverse-sqrt", "cosine", "wsd", "constant", "linear"]
OptimizerKind = Literal["adamw", "muon"]
Average = Literal["none", "ema", "last"]
ClassWeights = Literal["none", "balanced"]
PrecisionKind = Literal["auto", "fp32", "bf16"]

_COUNT = (1, 10**12)
_RANGES: dict[str, tuple[float, float]] = {
    "steps": _COUNT, "epochs": _COUNT, "minutes": (1e-6, 10**8), "patience": (1, 10**6),
    "batch_tokens": (1, 10**9), "micro_tokens": (1, 10**9), "lr": (0, 100), "warmup": (0, 10**9),
    "decay_fraction": (0, 1), "min_lr_ratio": (0, 1), "beta1": (0, 0.999999), "beta2": (0, 0.99999999),
    "eps": (1e-20, 1), "weight_decay": (0, 100), "clip": (0, 1e9), "label_smoothing": (0, 0.99),
    "word_dropout": (0, 0.99),
    "ema_decay": (0, 0.99999999), "average_last": (1, 100), "evaluate_every": _COUNT, "save_every": _COUNT,
    "layer_decay": (0.01, 1), "keep": (1, 10_000),
    "log_every": _COUNT, "seed": (0, 2**63 - 1), "max_bad_steps": (1, 10**6),
}  # fmt: skip
FALLING: tuple[ScheduleKind, ...] = ("cosine", "wsd", "linear")
"""The schedules that fall to an end: to that of the steps, or of the time where minutes alone end a run."""


@dataclass(frozen=True)
class TrainConfig:
    """Describe how a run trains: when it ends, what a step is, and what is kept.

    A run ends at whichever of `steps`, `epochs`, `minutes` and `patience` comes first; the schedules that
    fall to an end (cosine, wsd, linear) need one of the first three to know where that is. They follow the steps where
    `steps` or `epochs` are given, and the time where `minutes` alone are.

    Raises:
        ConfigError: a value of the wrong type or out of its range, or one that would have no effect.

    Example:
        >>> TrainConfig(steps=100, schedule="cosine", warmup=10).lr
        0.001
    """

    steps: Annotated[int | None, "End after this many optimizer steps."] = None
    epochs: Annotated[int | None, "End after this many passes over the training data."] = None
    minutes: Annotated[
        float | None, "End after this much time; alone, it is that of the whole process, and sizes the run."
    ] = None
    patience: Annotated[int | None, "End after this many evaluations in a row without improvement."] = None

    batch_tokens: Annotated[int, "Tokens in one optimizer step, padding included."] = 4096
    micro_tokens: Annotated[int | None, "Tokens in memory at once; a batch is split to fit. Unset: all."] = (
        None
    )

    lr: Annotated[float, "The schedule's peak learning rate."] = 1e-3
    schedule: Annotated[ScheduleKind, "How the learning rate moves after the warm-up."] = "inverse-sqrt"
    warmup: Annotated[int, "Steps in which the learning rate rises from zero to its peak."] = 400
    decay_fraction: Annotated[float, "For wsd: the last part of the run, in which the rate falls."] = 0.2
    min_lr_ratio: Annotated[float, "Where cosine, wsd and linear end, as a part of the peak."] = 0.0

    optimizer: Annotated[OptimizerKind, "muon is for the hidden matrices; adamw then takes the rest."] = (
        "adamw"
    )
    beta1: Annotated[float, "Decay of AdamW's mean of the gradients."] = 0.9
    beta2: Annotated[float, "Decay of AdamW's mean of their squares."] = 0.98
    eps: Annotated[float, "What AdamW adds to its denominator."] = 1e-9
    weight_decay: Annotated[float, "Decoupled decay of the matrices; vectors and embeddings have none."] = 0.0
    layer_decay: Annotated[
        float, "What each layer learns at, as a part of the rate of the layer above it; 1: all alike."
    ] = 1.0
    class_weights: Annotated[
        ClassWeights, "balanced: for classify and tag, each label weighs the same, however rare it is."
    ] = "none"
    clip: Annotated[float, "Largest norm of the whole gradient; 0: no limit."] = 1.0
    label_smoothing: Annotated[float, "Probability spread evenly over the vocabulary in the target."] = 0.0
    word_dropout: Annotated[
        float, "For classify and tag: the share of a text's tokens that are hidden, others at each step."
    ] = 0.0

    average: Annotated[Average, "Which weights are evaluated and kept: the last, or a mean of them."] = "none"
    ema_decay: Annotated[float, "For ema: how much of the mean stays at every step."] = 0.999
    average_last: Annotated[int, "For last: how many evaluation points are averaged."] = 5

    precision: Annotated[PrecisionKind, "auto: bf16 where this processor is found to be fast at it."] = "auto"
    compile: Annotated[
        bool, "Compile the model with torch.compile; takes a minute, then steps are faster."
    ] = False
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: the accelerator where there is one."] = "auto"
    seed: Annotated[int, "Where dropout's and the data's randomness begins."] = 1

    evaluate_every: Annotated[int, "Steps between evaluations."] = 500
    save_every: Annotated[int, "Steps between saves of the state from which a run resumes."] = 500
    keep: Annotated[int, "How many of these saves stay on disk."] = 2
    log_every: Annotated[int, "Steps between lines of metrics; a line is the mean since the one before."] = 10
    max_bad_steps: Annotated[int, "Infinite or NaN steps in a row after which the run stops."] = 10

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name])
        if self.micro_tokens is not None and self.micro_tokens > self.batch_tokens:
            raise ConfigError(
                f"micro_tokens={self.micro_tokens} is more than batch_tokens={self.batch_tokens}; "
                "a step is split into parts, so it must be less, or unset."
            )
        if self.min_lr_ratio and self.schedule not in FALLING:
            raise ConfigError(
                f"min_lr_ratio={self.min_lr_ratio:g} has no effect with schedule={self.schedule!r}; "
                f"leave it out or choose {', '.join(FALLING)}."
            )

    def horizon(self, batches_per_epoch: int) -> int | None:
        """Give the step at which the schedule ends: the earlier of `steps` and `epochs`; None if neither is set.

        Where `minutes` alone are set, a schedule that falls follows the time.

        Raises:
            ConfigError: nothing ends this run, or its schedule needs an end that isn't known.
        """
        ends = [] if self.steps is None else [self.steps]
        if self.epochs is not None:
            ends.append(self.epochs * batches_per_epoch)
        if not ends and self.schedule in FALLING and self.minutes is None:
            raise ConfigError(
                f"schedule={self.schedule!r} falls to an end and needs to know it; give steps, epochs or "
                "minutes, or choose inverse-sqrt or constant."
            )
        if not ends and self.minutes is None and self.patience is None:
            raise ConfigError("nothing ends this run; give steps, epochs, minutes or patience.")
        return min(ends, default=None)

    def replace(self, **changes: Any) -> TrainConfig:
        """Give a copy with some fields changed.

        Raises:
            ConfigError: an unknown field, or a value that can't be.
        """
        return TrainConfig.from_dict({**dataclasses.asdict(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Make a configuration from plain values.

        Raises:
            ConfigError: an unknown key (with its nearest neighbour), or a value that can't be.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise ConfigError(f"unknown training setting {key!r}. {suggest(key, names)}".strip())
        return cls(**values)

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """Give the one line of help that stands beside each field, by the field's name."""
        hints = get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(cls)}


def _check(name: str, value: object, hint: Any) -> None:
    options = get_args(hint)
    if value is None and type(None) in options:
        return
    if options and all(isinstance(option, str) for option in options):  # a Literal
        if value not in options:
            help_ = suggest(str(value), options)
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(options)}. {help_}".strip())
        return
    wanted = next((option for option in options if option is not type(None)), hint)
    if wanted is bool or wanted is str:
        if not isinstance(value, wanted):
            raise ConfigError(f"{name}={value!r} must be {'true or false' if wanted is bool else 'text'}.")
        return
    allowed = (int,) if wanted is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} must be a {'whole ' if wanted is int else ''}number.")
    low, high = _RANGES[name]
    if not low <= value <= high or (name == "lr" and value == 0):
        at_least = "more than 0" if name == "lr" else f"{low:g}"
        raise ConfigError(f"{name}={value!r} is out of range; allowed are {at_least} to {high:g}.")
