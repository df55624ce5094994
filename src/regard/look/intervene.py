"""Switch parts of a model off, or put other values in their place, for the passes inside a `with`.

    with intervening(model, off("encoder.3.5"), off("decoder.2", positions=[4])):
        ...any pass: a reading, a training step, a translation

Places are named as in `regard.look.places`: encoder.3.5 is a head, encoder.3 a block, encoder.3.attention a sublayer.
Sources: zero ablation of heads, Michel et al. 2019, arXiv:1905.10650; patching, Vig et al. 2020, arXiv:2004.12265.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from regard.config import ModelConfig
from regard.errors import ConfigError, suggest
from regard.look.places import (
    Configured,
    Means,
    Place,
    Recording,
    attention_depths,
    find_place,
    head_names,
    mean_values,
    record_places,
)  # fmt: skip
from regard.nn.taps import tapping

__all__ = [
    "Change", "How", "KeepOnly", "Means", "Patch", "Recording", "Switch", "head_names", "intervening", "keep_only",
    "mean_values", "off", "patch", "record_places",
]  # fmt: skip

How = Literal["zero", "mean", "skip"]
"""What takes a value's place: zeros, its mean over reference texts, or, for a whole block, what the block was given."""


@dataclass(frozen=True, eq=False)
class _Step:
    """Say what is put into a place: `values`, which broadcast to it, or what the block was given."""

    place: Place
    values: Tensor | None
    positions: tuple[int, ...] | None
    source: tuple[int, ...] | None = None  # rows of the values, for a patch
    patches: bool = False

    def apply(self, value: Tensor, before: Tensor | None) -> Tensor:
        """Give a changed copy of a tap's value."""
        changed = value.clone()
        target = self.place.part(changed)  # (..., T, K or D)
        new = before if self.values is None else self.values.to(value)
        assert new is not None, f"{self.place.before} was not seen before {self.place.tap}"
        if self.patches:
            new = self._patch(new, target)
        if self.positions is None:
            target.copy_(new)
            return changed
        rows = self._rows(self.positions, target.shape[-2], "the pass")
        if self.values is None:
            new = new[..., rows, :]
        target[..., rows, :] = new.expand_as(target[..., rows, :])
        return changed

    def _patch(self, values: Tensor, target: Tensor) -> Tensor:
        """Cut out the rows that are put in, and see that they fit."""
        if self.positions is not None:
            rows = self.source if self.source is not None else self.positions
            values = values[..., self._rows(rows, values.shape[-2], "the other run"), :]
        elif values.shape[-2] != target.shape[-2]:
            raise ConfigError(
                f"the other run has {values.shape[-2]} tokens at {self.place.name} and this pass "
                f"{target.shape[-2]}; say which positions."
            )
        if values.ndim != target.ndim or values.shape[0] not in (1, target.shape[0]):
            raise ConfigError(
                f"values of shape {tuple(values.shape)} can't be put into {self.place.name}, which has "
                f"{tuple(target.shape)}; give one text's, or as many as the batch has."
            )
        return values

    def _rows(self, positions: Sequence[int], length: int, where: str) -> list[int]:
        for i in positions:
            if not -length <= i < length:
                raise ConfigError(
                    f"{where} has tokens 0 to {length - 1} at {self.place.name}; there is no {i}."
                )
        return [i % length for i in positions]


class Change(Protocol):
    """Be something that `intervening` can do to a model."""

    def steps(self, config: ModelConfig) -> list[_Step]:
        """Say what is done at which place of a model; refuse what the model hasn't got."""


@dataclass(frozen=True, eq=False)
class Switch:
    """Switch places off; see `off`."""

    names: tuple[str, ...]
    how: How | None = None
    positions: tuple[int, ...] | None = None
    means: Means | None = None

    def steps(self, config: ModelConfig) -> list[_Step]:
        """Say what is done at which place of a model."""
        return [self._step(find_place(config, name)) for name in self.names]

    def _step(self, place: Place) -> _Step:
        how = self.how or ("zero" if place.before is None else "skip")
        if (how == "mean") != (self.means is not None):
            raise ConfigError(
                "how='mean' needs means, from mean_values(model, texts, names)."
                if self.means is None
                else f"means have no effect with how={how!r}; say how='mean'."
            )
        if how == "skip" and place.before is None:
            raise ConfigError(f"how='skip' is for whole blocks; {place.name} is none. Use 'zero' or 'mean'.")
        if how == "skip":
            return _Step(place, None, self.positions)
        return _Step(place, self.means[place] if self.means else torch.zeros(()), self.positions)

    def __str__(self) -> str:
        how = {"mean": "mean of", "zero": "zero for"}.get(self.how or "", "without")
        return f"{how} {', '.join(self.names)}{_at(self.positions)}"


@dataclass(frozen=True, eq=False)
class KeepOnly:
    """Switch all heads off but some; see `keep_only`."""

    heads: tuple[str, ...]
    among: tuple[str, ...] = ()
    how: How = "zero"
    means: Means | None = None

    def steps(self, config: ModelConfig) -> list[_Step]:
        """Say what is done at which place of a model."""
        every = head_names(config)
        for name in self.heads:
            if find_place(config, name).head is None:
                raise ConfigError(f"{name} is no head; heads are named as in {every[0]}.")
        groups = {name.rpartition(".")[0] for name in every} | set(attention_depths(config))
        for name in self.among:
            if name not in groups:
                raise ConfigError(
                    f"there is no attention {name!r} to keep heads of. {suggest(name, groups)}".strip()
                )
        chosen = [n for n in every if not self.among or any(n.startswith(f"{a}.") for a in self.among)]
        lost = [name for name in self.heads if name not in chosen]
        if lost:
            raise ConfigError(f"{lost[0]} is kept anyway: it is not among {', '.join(self.among)}.")
        others = tuple(name for name in chosen if name not in self.heads)
        return Switch(others, self.how, means=self.means).steps(config)

    def __str__(self) -> str:
        among = f" among {', '.join(self.among)}" if self.among else ""
        return f"only the heads {', '.join(self.heads)}{among}" + (" (others mean)" if self.means else "")


@dataclass(frozen=True, eq=False)
class Patch:
    """Put a place's values of another run in; see `patch`."""

    name: str
    values: Tensor | Recording
    positions: tuple[int, ...] | None = None
    source: tuple[int, ...] | None = None

    def steps(self, config: ModelConfig) -> list[_Step]:
        """Say what is done at which place of a model."""
        if self.source is not None and (self.positions is None or len(self.source) != len(self.positions)):
            raise ConfigError("from_positions needs positions, as many of them.")
        values = self.values if isinstance(self.values, Tensor) else self.values[self.name]
        return [_Step(find_place(config, self.name), values, self.positions, self.source, patches=True)]

    def __str__(self) -> str:
        return f"{self.name} of another run{_at(self.positions)}"


def off(
    *names: str,
    how: How | None = None,
    positions: Iterable[int] | None = None,
    means: Means | None = None,
) -> Switch:
    """Switch places off.

    Args:
        names: heads, layers, sublayers, or what passes at any other place.
        how: "zero", "mean" (with `means`), or for a whole block "skip": it hands on what it was given. None: "skip" for
            a block, "zero" for all else. "zero" for a block blanks the residual stream itself.
        positions: the tokens, by their numbers in the pass (negative: from the end), at which that is done; None: all.
        means: from `mean_values`.
    """
    return Switch(names, how, None if positions is None else tuple(positions), means)


def keep_only(
    heads: Iterable[str], *, among: Iterable[str] = (), how: How = "zero", means: Means | None = None
) -> KeepOnly:
    """Switch off all heads but some.

    Args:
        heads: those that stay.
        among: attentions (encoder.2, cross.0) or kinds of them (cross) outside of which nothing is changed; none: all
            of the model's.
        how: as in `off`.
        means: as in `off`.
    """
    return KeepOnly(tuple(heads), tuple(among), how, means)


def patch(
    name: str,
    values: Tensor | Recording,
    *,
    positions: Iterable[int] | None = None,
    from_positions: Iterable[int] | None = None,
) -> Patch:
    """Put in what passed at a place in another run.

    Args:
        name: the place.
        values: a recording of that place, or a value shaped as what passes there, one text's or as many as the batch's.
        positions: the tokens to change; None: all, of which both runs then have as many.
        from_positions: the tokens of the other run that are put there, as many; None: those of the same numbers.
    """
    return Patch(
        name, values, None if positions is None else tuple(positions),
        None if from_positions is None else tuple(from_positions),
    )  # fmt: skip


_steps: ContextVar[tuple[_Step, ...]] = ContextVar("steps", default=())


class _Hand:
    """Do the steps at their places, and remember what blocks were given that are skipped."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self.steps: dict[str, list[_Step]] = {}
        for step in steps:
            self.steps.setdefault(step.place.tap, []).append(step)
        self.needed = {step.place.before for step in steps if step.values is None}
        self.given: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Tensor) -> Tensor:
        for step in self.steps.get(name, ()):
            value = step.apply(value, self.given.get(step.place.before or ""))
        if name in self.needed:
            self.given[name] = value
        return value


@contextmanager
def intervening(model: Configured, *changes: Change) -> Iterator[None]:
    """Make changes to the passes inside, in their order; calls nest, and add up.

    Positions count the rows of each pass, so they fit a pass that reads a whole text, not generation step by step.

    Args:
        model: a Model, its parts or its network, by whose configuration names are checked.
        changes: what `off`, `keep_only` and `patch` give.

    Raises:
        ConfigError: a name is not of this model; inside: a position or a patch doesn't fit the pass.
    """
    # An inner call does the outer's steps once more, since it comes last: a skipped block must know what it was given.
    steps = (*_steps.get(), *(step for change in changes for step in change.steps(model.config)))
    token = _steps.set(steps)
    try:
        with tapping(_Hand(steps)):
            yield
    finally:
        _steps.reset(token)


def _at(positions: Sequence[int] | None) -> str:
    return "" if positions is None else f" at {', '.join(map(str, positions))}"
