"""How a trained model is trained further: what of it learns, and in which form the result is kept; no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from regard.errors import ConfigError

if TYPE_CHECKING:
    from regard.tasks.base import DataSize

__all__ = ["Tuning", "gentle", "split_tuning"]

_WIDTH, _RATE = 768, 3e-5


@dataclass(frozen=True)
class Tuning:
    """Say what of a model learns.

    Raises:
        ConfigError: a setting that can't be, or that would have no effect.
    """

    freeze: Annotated[
        list[str] | None, "What doesn't learn: embedding, encoder.0-5, decoder.3, or names of weights."
    ] = None
    lora: Annotated[int | None, "Train adapters of this rank alone (LoRA), and what is new."] = None
    lora_targets: Annotated[
        list[str] | None, "What they adapt: query key value output up gate down; unset: query value."
    ] = None
    lora_alpha: Annotated[
        float | None, "What they are multiplied with, times the rank; unset: twice the rank."
    ] = None
    adapter: Annotated[bool, "Keep the adapters too, in the folder adapter, in the format of PEFT."] = False

    def __post_init__(self) -> None:
        for name in ("freeze", "lora_targets"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not all(isinstance(v, str) for v in value)):
                raise ConfigError(f"{name}={value!r} must be a list of names.")
            object.__setattr__(self, name, None if value is None else list(value))
        if self.lora is None:
            given = [n for n in ("lora_targets", "lora_alpha") if getattr(self, n) is not None]
            given += ["adapter"] if self.adapter else []
            if given:
                raise ConfigError(f"{', '.join(given)} has no effect without lora; give its rank, --lora 8.")
            return
        if type(self.lora) is not int or not 1 <= self.lora <= 4096:
            raise ConfigError(f"lora={self.lora!r} must be a rank, a whole number from 1 to 4096.")
        if self.freeze:
            raise ConfigError(
                "freeze has no effect with lora, which freezes all that isn't new; leave it out."
            )

    @property
    def alpha(self) -> float:
        """Give the factor of the adapters, times their rank."""
        return float(self.lora_alpha if self.lora_alpha is not None else 2 * (self.lora or 1))

    @property
    def targets(self) -> tuple[str, ...]:
        """Name the layers that are adapted."""
        return tuple(self.lora_targets or ("query", "value"))

    def to_dict(self) -> dict[str, Any]:
        """Give the settings that were given as plain JSON values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value not in (None, False)}

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """Give the one line of help that stands beside each field, by the field's name."""
        hints = get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(cls)}


def split_tuning(settings: Mapping[str, Any]) -> tuple[Tuning, dict[str, Any]]:
    """Take Tuning's fields out of settings; one that is None is as if it weren't there."""
    names = {field.name for field in dataclasses.fields(Tuning)}
    own = {name: value for name, value in settings.items() if name in names and value is not None}
    return Tuning(**own), {name: value for name, value in settings.items() if name not in names}


def gentle(suited: Mapping[str, Any], width: int, size: DataSize, *, lora: bool) -> dict[str, Any]:
    """Give the training settings that suit a model that knows something already: few passes at a low rate.

    Devlin et al. 2018 (appendix A.3) found 2e-5 to 5e-5 and 2 to 4 passes best for models of width 768. Narrower ones
    bear more, for Adam moves each weight by the rate itself whatever the gradient, and weights are larger where fewer
    are summed: so the rate falls as the width grows. Adapters begin at nothing and take ten times the rate (Hu et al.
    2021, table 9 and later, has 2e-4 and more at these widths).
    """
    batch_tokens, epochs = int(suited.get("batch_tokens", 4096)), 3
    rate = min(5e-4, max(1e-5, _RATE * _WIDTH / width)) * (10 if lora else 1)
    steps = max(1, size.characters // 4 // batch_tokens)  # of an epoch; a token is taken for four characters
    return {
        "batch_tokens": batch_tokens, "epochs": epochs, "lr": float(f"{rate:.1e}"), "schedule": "linear",
        "warmup": min(500, epochs * steps // 16), "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01,
        "evaluate_every": max(10, min(500, steps)),
    }  # fmt: skip
