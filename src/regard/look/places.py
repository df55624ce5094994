"""The places of a model by name: what passes there in a run, kept or averaged.

Places have the names of `regard.nn.taps`, and each head one of its own (`*` is `encoder`, `decoder` or `cross`):

    *.3.5                         what head 5 of layer 3 mixed, before the output projection
    *.3.heads                     what all heads of the layer mixed
    *.3.attention                 what the attention adds to the residual stream, the projection's bias included
    encoder.3.feed_forward        what the feed-forward adds to it
    encoder.3                     a whole block: what it hands on
    encoder.embedding             what the first block gets
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError, suggest
from regard.nn.taps import tapping

__all__ = [
    "Configured", "Holder", "Means", "Place", "Recording", "Runnable", "attention_depths", "find_place", "head_names",
    "mean_values", "place_names", "record_places",
]  # fmt: skip


class Configured(Protocol):
    """Be something that has a model's configuration: a Model, its parts, or the network."""

    @property
    def config(self) -> ModelConfig:
        """Give the configuration."""


class Holder(Configured, Protocol):
    """Be something that has a network too: a Model or its parts."""

    @property
    def module(self) -> Any:
        """Give the network."""


class Runnable(Protocol):
    """Be a text that a network can be run on, as `regard.tasks.looking.Reading` is."""

    def run(self, module: Any) -> Tensor:
        """Run one pass."""


@dataclass(frozen=True)
class Place:
    """Name a place in one model.

    Attributes:
        name: as it was asked for.
        tap: the name of what passes there, as in `regard.nn.taps`.
        head: which head of it; None for all of it.
        before: for a whole block, the tap of what it gets; else None.
    """

    name: str
    tap: str
    head: int | None = None
    before: str | None = None

    def part(self, value: Tensor) -> Tensor:
        """Give what of a tap's value is meant: (B, T, K) of a head, else all; a view."""
        return value if self.head is None else value[:, self.head]


def attention_depths(config: ModelConfig) -> dict[str, int]:
    """Count the layers of each kind of attention: encoder, decoder, cross."""
    if isinstance(config, RecurrentConfig):
        return {} if config.score == "none" else {"cross": 1}
    if config.kind != "encoder-decoder":
        return {config.kind: config.num_layers}
    assert config.num_decoder_layers is not None
    return {
        "encoder": config.num_layers,
        "decoder": config.num_decoder_layers,
        "cross": config.num_decoder_layers,
    }


def head_names(config: ModelConfig) -> list[str]:
    """List every head of a model: encoder.0.0, encoder.0.1, ...; a decoder's cross-attention as cross.0.0, ..."""
    return [
        f"{k}.{i}.{h}"
        for k, n in attention_depths(config).items()
        for i in range(n)
        for h in range(config.num_heads)
    ]


def place_names(config: ModelConfig) -> list[str]:
    """List every place of a model but for the single heads. Raises ConfigError for a recurrent one, which has none."""
    if isinstance(config, RecurrentConfig):
        raise ConfigError(
            "this model is recurrent: it can be looked at, but it has no places to record or to change."
        )
    found = []
    for kind, depth in attention_depths(config).items():
        cross = kind == "cross"
        own = (".heads", ".attention") if cross else (".heads", ".attention", ".feed_forward", "")
        found += [] if cross else [f"{kind}.embedding"]
        found += [f"{kind}.{i}{what}" for i in range(depth) for what in own]
    return found


def find_place(config: ModelConfig, name: str) -> Place:
    """Find a place of a model by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    kind, _, rest = name.partition(".")
    number, _, what = rest.partition(".")
    if name in place_names(config):
        if rest.isdigit():
            before = f"{kind}.{int(rest) - 1}" if int(rest) else f"{kind}.embedding"
            return Place(name, name, before=before)
        return Place(name, name)
    if f"{kind}.{number}.heads" in place_names(config) and what.isdecimal() and what == str(int(what)):
        if int(what) < config.num_heads:
            return Place(name, f"{kind}.{number}.heads", head=int(what))
        raise ConfigError(f"{kind}.{number} has heads 0 to {config.num_heads - 1}; there is no head {what}.")
    depths = attention_depths(config)
    there = ", ".join(f"{k}.0 to {k}.{n - 1}" if n > 1 else f"{k}.0" for k, n in depths.items())
    beyond = kind in depths and number.isdecimal() and int(number) >= depths[kind]
    hint = "" if beyond else suggest(name, place_names(config))
    raise ConfigError(
        f"there is no place {name!r}; there are the layers {there}, each with .heads, .attention, .feed_forward "
        f"(not of cross) and its heads .0 to .{config.num_heads - 1}, and .embedding of a stack. {hint}".strip()
    )


class Recording:
    """Hold what passed at some places, by their names; of passes that began under `record_places`."""

    def __init__(self, config: ModelConfig, names: Collection[str]) -> None:
        self._config = config
        self._taps = {find_place(config, name).tap for name in names}
        self.passes: dict[str, list[Tensor]] = {}

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Keep what passes."""
        if name in self._taps:
            self.passes.setdefault(name, []).append(value.detach())
        return value

    def __getitem__(self, name: str) -> Tensor:
        """Give what passed at a place in the one pass: (B, T, D), of `heads` (B, H, T, K), of a head (B, T, K).

        Raises:
            ConfigError: it was not recorded, or ran several times.
        """
        place = find_place(self._config, name)
        found = self.passes.get(place.tap, [])
        if len(found) != 1:
            said = f"{len(found)} times; record one pass at a time" if found else "not at all"
            raise ConfigError(f"{name} was recorded {said}.")
        return place.part(found[0])


@contextmanager
def record_places(model: Configured, *names: str) -> Iterator[Recording]:
    """Keep what passes at some places, without gradients; none named: at all of them.

    What an `intervening` around this one changed is recorded as changed.

    Raises:
        ConfigError: a name is not of this model.
    """
    kept = Recording(model.config, names or place_names(model.config))
    with tapping(kept):
        yield kept


@dataclass(frozen=True, eq=False)
class Means:
    """Hold what passes at some places on average.

    Attributes:
        values: by tap, (D,), or of all heads (H, 1, K).
        tokens: over how many tokens, by tap.
    """

    values: dict[str, Tensor]
    tokens: dict[str, int]

    def __getitem__(self, place: Place) -> Tensor:
        """Give what broadcasts to a place.

        Raises:
            ConfigError: its mean was not taken.
        """
        if place.tap not in self.values:
            raise ConfigError(f"the mean of {place.name} was not taken; name it in mean_values.")
        found = self.values[place.tap]
        return found if place.head is None else found[place.head]


def mean_values(model: Holder, texts: Iterable[Runnable], names: Iterable[str] = ()) -> Means:
    """Take the mean over all tokens of reference texts, special ones included, of what passes at some places.

    Args:
        model: a Model or its parts.
        texts: what is run, as `regard.tasks.looking.read` gives it; without padding.
        names: the places; none: every head.

    Raises:
        ConfigError: a name is not of this model, or there are no texts.
    """
    taps = {find_place(model.config, name).tap for name in (tuple(names) or head_names(model.config))}
    sums: dict[str, Tensor] = {}
    tokens: dict[str, int] = {}

    def add(name: str, value: Tensor) -> Tensor:
        if name in taps:
            summed = value.double().sum(dim=(0, -2), keepdim=name.endswith(".heads"))
            summed = summed[0] if name.endswith(".heads") else summed
            sums[name] = sums[name] + summed if name in sums else summed
            tokens[name] = tokens.get(name, 0) + value.shape[0] * value.shape[-2]
        return value

    with torch.no_grad(), tapping(add):
        for text in texts:
            text.run(model.module)
    if not sums:
        raise ConfigError("there are no texts to take the mean over; give some.")
    return Means({name: (total / tokens[name]).float() for name, total in sums.items()}, tokens)
