"""A look: what one pass over one text attended to, with the tokens' names; every weight in it can be asked for.

Layers are named `encoder.3`, `decoder.0`, `cross.2` (a decoder's rows, the source's columns), heads `encoder.3.5`.
Row i of a causal model is what token i looks at in order to say what token i + 1 is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError, suggest
from regard.look.capture import Captured, worst_of
from regard.look.sides import Side, Token, Word
from regard.look.tiles import Pyramid

__all__ = ["Hide", "Look", "Row", "Side", "Token", "Weights", "Word", "no_layer"]

Hide = Literal["special", "first"]
"""What may be left out of a row: special tokens, or the first token, where attention goes that has nowhere to go."""

_MAPS = 4  # that are kept with what they built, which for 131,072 tokens is 180 MB
_MOST = 50_000_000  # weights that one call gives


@dataclass(frozen=True, eq=False)
class Weights:
    """Hold a part of an attention matrix.

    Attributes:
        values: (R, C), single precision.
        rows, columns: what looks and what is looked at.
        layer, head: where; a head of None is the mean over a layer's heads.
        how: how the numbers came about, in words, what was hidden or renormalised included.
        error: of the head or the layer, see `Captured.error_of`.
    """

    values: Float[Tensor, "R C"]
    rows: tuple[Word, ...]
    columns: tuple[Word, ...]
    layer: str
    head: int | None
    how: str
    error: float


@dataclass(frozen=True, eq=False)
class Row:
    """Hold what one word looks at.

    Attributes:
        word: the word that looks.
        columns: what it may look at.
        values: (C,), the weights; they sum to one unless something was hidden and not renormalised.
        layer, head, how, error: as in `Weights`.
    """

    word: Word
    columns: tuple[Word, ...]
    values: Float[Tensor, " C"]
    layer: str
    head: int | None
    how: str
    error: float

    def top(self, count: int = 5) -> list[tuple[Word, float]]:
        """List what gets most, with its weights."""
        order = self.values.argsort(descending=True, stable=True)[:count]
        return [(self.columns[int(i)], float(self.values[i])) for i in order]

    def __str__(self) -> str:
        return ", ".join(f"{word.text} {value:.3f}" for word, value in self.top())


@dataclass(frozen=True)
class Link:
    """Say how much one word of a row gives to a word: in which layer and head, from which word, how much."""

    layer: str
    head: int
    word: Word
    value: float


@dataclass(eq=False)
class Look:
    """Hold all attention of one pass, to be asked.

    Attributes:
        sides: the texts, by their names.
        layers: what was captured, by the layers' names, in the order in which they ran.
        model: what looked, in words.
        holder: whatever must live as long as the layers do.

    Raises:
        ConfigError: there are no layers.
    """

    sides: Mapping[str, Side]
    layers: Mapping[str, Captured]
    model: str = ""
    holder: object = field(default=None, repr=False)
    _maps: dict[tuple[tuple[str, int], ...], Pyramid] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("a look needs a layer: this model has no attention, or none of it was kept.")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(side.tokens):,} tokens of {side.name}" for side in self.sides.values())
        return f"Look({sizes}; {len(self.layers)} layers of {next(iter(self.layers.values())).heads} heads)"

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        """Show the look in a notebook, as the last value of a cell."""
        from regard.look.draw.widget import mime_bundle

        return mime_bundle(self)

    @property
    def nbytes(self) -> int:
        """Count the bytes of what was captured and of the maps that were built."""
        captured = sum(layer.nbytes for layer in self.layers.values())
        return captured + sum(pyramid.nbytes for pyramid in list(self._maps.values()))

    @property
    def title(self) -> str:
        """Give the text itself, for a caption; of a long one its beginning."""
        text = next(iter(self.sides.values())).text
        return text if len(text) <= 80 else text[:79] + "…"

    def rows_of(self, layer: str) -> Side:
        """Give the text whose tokens look in a layer."""
        if "text" in self.sides:
            return self.sides["text"]
        return self.sides["source" if layer.startswith("encoder") else "target"]

    def columns_of(self, layer: str) -> Side:
        """Give the text whose tokens are looked at in a layer."""
        if "text" in self.sides:
            return self.sides["text"]
        return self.sides["target" if layer.startswith("decoder") else "source"]

    def where(self, layer: int | str, head: int | None = None) -> tuple[Captured, int | None]:
        """Find a layer by its name or, in a single stack, by its number; `encoder.3.5` names its head too.

        Raises:
            ConfigError: there is no such layer or head.
        """
        name = f"{next(iter(self.layers)).partition('.')[0]}.{layer}" if isinstance(layer, int) else layer
        if isinstance(layer, int) and len({key.partition(".")[0] for key in self.layers}) > 1:
            raise ConfigError(f"say which {layer}: encoder.{layer}, decoder.{layer} or cross.{layer}.")
        if name not in self.layers and head is None and name.count(".") == 2:
            name, _, number = name.rpartition(".")
            head = int(number) if number.isdecimal() else None
            if head is None:
                raise ConfigError(f"{layer!r} is no head; heads are named as in encoder.3.5.")
        if name not in self.layers:
            raise no_layer(name, self.layers)
        found = self.layers[name]
        if head is not None and not 0 <= head < found.heads:
            raise ConfigError(f"{name} has heads 0 to {found.heads - 1}; there is no head {head}.")
        return found, head

    def row(
        self,
        layer: int | str,
        head: int | None = None,
        token: int | str = -1,
        *,
        words: bool = False,
        hide: Collection[Hide] = (),
        renormalise: bool = False,
    ) -> Row:
        """Give what a token or a word looks at, exactly: in double precision, normalised by itself.

        Args:
            layer: its name or number; `encoder.3.5` names a head.
            head: its number; None, where the layer's name has none, for the mean over heads.
            token: a token's number, or a word of the text; a word's row is the mean of its tokens'.
            words: give whole words as columns, the sums of their tokens.
            hide: leave out special tokens, or the first token.
            renormalise: divide what is left by its sum.

        Raises:
            ConfigError: there is no such layer, head or word.
        """
        found, head = self.where(layer, head)
        side, other = self.rows_of(found.name), self.columns_of(found.name)
        word = side.find(token)
        heads = range(found.heads) if head is None else (head,)
        places = range(word.start, word.end)
        values = torch.stack([torch.stack([found.row(h, i) for i in places]) for h in heads])  # (H, R, S)
        columns, values = _shown(other, values.mean((0, 1))[None], words, hide, renormalise)
        how = _how(
            "recomputed in double precision, each row by its own sum", word, head, words, hide, renormalise
        )
        return Row(word, columns, values[0].float(), found.name, head, how, _error(found, head))

    def weights(
        self,
        layer: int | str,
        head: int | None = None,
        rows: slice | Sequence[int] | None = None,
        columns: slice | Sequence[int] | None = None,
        *,
        words: bool = False,
        hide: Collection[Hide] = (),
        renormalise: bool = False,
    ) -> Weights:
        """Give a part of a head's matrix; see `row` for what the arguments are. Words take whole texts.

        Raises:
            ConfigError: there is no such layer or head, or the part has more than 50 million weights.
        """
        found, head = self.where(layer, head)
        side, other = self.rows_of(found.name), self.columns_of(found.name)
        chosen, seen = _places(rows, len(side.tokens)), _places(columns, len(other.tokens))
        whole = words or hide or renormalise
        if whole and columns is not None:
            raise ConfigError("words, hide and renormalise take whole rows; leave columns out.")
        if len(chosen) * len(seen) > _MOST:
            raise ConfigError(
                f"{len(chosen):,} x {len(seen):,} weights are too many for one call; ask for a part, or for tiles."
            )
        heads = range(found.heads) if head is None else (head,)
        values = torch.zeros(len(chosen), len(seen))
        for h in heads:
            values += found.weights(h, chosen, seen) / len(heads)
        looking = tuple(side.find(i) for i in chosen)
        if words and rows is None:
            looking = side.words
            values = torch.stack([values[word.start : word.end].mean(0) for word in side.words])
        if whole:
            shown, values = _shown(other, values, words, hide, renormalise)
        else:
            shown = tuple(other.find(i) for i in seen)
        how = _how(
            "recomputed in single precision with the rows' normalisers", None, head, words, hide, renormalise
        )
        return Weights(values.float(), looking, shown, found.name, head, how, _error(found, head))

    def tiles(self, layer: int | str | Collection[str], head: int | None = None) -> Pyramid:
        """Map a head's whole matrix, at any zoom; see `Pyramid`. The same map is given again, with what it has built.

        Args:
            layer: its name or number, or several names: the mean of their heads is mapped.
            head: its number; None, where the layer's name has none, for the mean over heads.

        Raises:
            ConfigError: there is no such layer or head.
        """
        names = [layer] if isinstance(layer, (int, str)) else list(layer)
        chosen: list[tuple[Captured, int]] = []
        for name in names:
            found, only = self.where(name, head)
            chosen += [(found, h) for h in (range(found.heads) if only is None else (only,))]
        key = tuple((found.name, h) for found, h in chosen)
        made = self._maps.pop(key, None) or Pyramid(chosen)
        built = [other for other, pyramid in self._maps.items() if pyramid.nbytes]
        for old in built[: max(0, len(built) - _MAPS + 1)]:  # the ones that were asked for longest ago
            del self._maps[old]
        self._maps[key] = made
        return made

    def to(self, word: int | str, *, side: str | None = None, top: int = 10) -> list[Link]:
        """List who attends most to a word: layers, heads and words, by the weight it gets; not the word to itself.

        Args:
            word: a word or a token's number.
            side: of which text: "source" or "target"; None: the only one, or the source.
            top: how many to list.

        Raises:
            ConfigError: there is no such word or text, or `top` is less than 1.
        """
        if top < 1:
            raise ConfigError(f"top={top} must be at least 1.")
        if side is not None and side not in self.sides:
            raise ConfigError(f"there is no {side!r}; there is {' and '.join(self.sides)}.")
        chosen = self.sides[side] if side else next(iter(self.sides.values()))
        target = chosen.find(word)
        found: list[Link] = []
        for name, layer in self.layers.items():
            if self.columns_of(name) is not chosen:
                continue
            own = self.rows_of(name) is chosen
            for head in range(layer.heads):
                values = layer.given(head, slice(target.start, target.end))
                if own:
                    values[target.start : target.end] = -1
                best = values.topk(min(top, len(values)))
                found += [
                    Link(name, head, self.rows_of(name).find(int(i)), float(v))
                    for v, i in zip(best.values, best.indices, strict=True)
                    if v >= 0
                ]
        return sorted(found, key=lambda link: -link.value)[:top]

    @cached_property
    def error(self) -> float:
        """Give the largest error of all layers, see `Captured.error`."""
        return worst_of(layer.error for layer in self.layers.values())


def _error(layer: Captured, head: int | None) -> float:
    return layer.error if head is None else layer.error_of(head)


def _places(given: slice | Sequence[int] | None, size: int) -> range | list[int]:
    if given is None:
        return range(size)
    if isinstance(given, slice):
        return range(size)[given]
    for i in given:
        if not -size <= i < size:
            raise ConfigError(f"there are tokens 0 to {size - 1}; there is no {i}.")
    return [i % size for i in given]


def _shown(
    side: Side, values: Float[Tensor, "R S"], words: bool, hide: Collection[Hide], renormalise: bool
) -> tuple[tuple[Word, ...], Float[Tensor, "R C"]]:
    """Join columns to words, leave some out, and divide what is left by its sum, as it was asked for."""
    unknown = set(hide) - {"special", "first"}
    if unknown:
        raise ConfigError(f"hide takes special and first, not {', '.join(sorted(unknown))}.")
    columns = side.words if words else tuple(side.find(i) for i in range(len(side.tokens)))
    if "first" in hide:  # the token, not the rest of its word
        values = torch.cat((torch.zeros_like(values[:, :1]), values[:, 1:]), 1)
    if words:
        values = torch.stack([values[:, word.start : word.end].sum(1) for word in columns], 1)
    kept = [
        i for i, word in enumerate(columns)
        if not ("special" in hide and word.special) and not ("first" in hide and word.end == 1)
    ]  # fmt: skip
    columns, values = tuple(columns[i] for i in kept), values[:, kept]
    if renormalise:
        total = values.sum(1, keepdim=True)
        values = torch.where(total > 0, values / total.clamp(min=1e-30), torch.zeros_like(values))
    return columns, values


def _how(
    way: str, word: Word | None, head: int | None, words: bool, hide: Collection[Hide], renormalise: bool
) -> str:
    parts = [way]
    if head is None:
        parts.append("mean over the layer's heads")
    if word is not None and word.end - word.start > 1:
        parts.append(f"mean over the word's {word.end - word.start} tokens")
    if words:
        parts.append("a word's column is the sum of its tokens'")
    if hide:
        names = {"special": "special tokens", "first": "the first token"}
        left = " and ".join(names[one] for one in sorted(hide))
        parts.append(f"without {left}, " + ("renormalised" if renormalise else "not renormalised"))
    elif renormalise:
        parts.append("renormalised")
    return "; ".join(parts)


def no_layer(name: str, known: Collection[str]) -> ConfigError:
    """Say that there is no such layer, which there are, and what may have been meant."""
    kind, _, number = name.partition(".")
    beyond = number.isdecimal() and kind in {one.partition(".")[0] for one in known}
    hint = "" if beyond else suggest(name, known)
    return ConfigError(f"there is no layer {name!r}; there are {_ranges(known)}. {hint}".strip())


def _ranges(names: Collection[str]) -> str:
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition(".")[0], []).append(name.partition(".")[2])
    return ", ".join(
        f"{kind}.{found[0]}" + (f" to {kind}.{found[-1]}" if len(found) > 1 else "")
        for kind, found in kinds.items()
    )
