"""What to draw where nobody said: the heads that look at something, and the word that looks farthest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.look.capture import Captured
from regard.look.reading import Look, Side, Word

__all__ = ["Ranked", "rank_heads", "telling_row", "token_of"]

_SHORT = 512  # tokens of texts in which every link is weighed


class Ranked(NamedTuple):
    """Say which share of a word's attention a head gives to other words than those where attention rests."""

    layer: str
    head: int
    word: Word
    share: float


def token_of(look: Look, layer: str, name: str) -> int | str:
    """Give a word, or a token's number where no word is written so."""
    if not name.removeprefix("-").isdecimal():
        return name
    words = look.rows_of(layer).words + look.columns_of(layer).words
    return name if any(word.text == name for word in words) else int(name)


def rank_heads(look: Look, name: str) -> list[Ranked]:
    """Rank all heads by what a word's row gives to others than itself, the first token and special tokens.

    Raises:
        ConfigError: no text that looks has such a word, or one has it several times.
    """
    found: list[Ranked] = []
    problems: dict[str, None] = {}
    for layer, captured in look.layers.items():
        try:
            word = look.rows_of(layer).find(token_of(look, layer, name))
        except ConfigError as error:
            problems[str(error)] = None
            continue
        resting = _resting(look.columns_of(layer))
        if look.rows_of(layer) is look.columns_of(layer):
            resting[word.start : word.end] = True
        for head in range(captured.heads):
            rows = torch.stack([captured.row(head, i) for i in range(word.start, word.end)])
            found.append(Ranked(layer, head, word, float(rows.mean(0)[~resting].sum())))
    if not found:
        raise ConfigError(" ".join(problems))
    return sorted(found, key=lambda one: -one.share)


def telling_row(look: Look, layer: str | None = None, head: int | None = None) -> tuple[str, int, int]:
    """Choose a layer, a head and the token that gives most to one that is neither near nor a place of rest.

    Of a long text it is the last token, in the head that looks most at others.
    """
    names = [layer] if layer is not None else list(look.layers)
    if max(max(look.layers[name].shape) for name in names) > _SHORT:
        name = names[-1]
        last = max((i for i, t in enumerate(look.rows_of(name).tokens) if not t.special), default=0)
        best = [one for one in rank_heads(look, str(last)) if one.layer in names and head in (None, one.head)]
        return (best[0].layer, best[0].head, last) if best else (name, head or 0, last)
    chosen, most = (names[0], head or 0, 0), -1.0
    for name in names:
        captured = look.layers[name]
        for one in range(captured.heads) if head is None else [head]:
            weights = _far(look, name, captured, one)
            if weights.numel() and float(weights.max()) > most:
                most = float(weights.max())
                chosen = (name, one, int(weights.argmax()) // weights.shape[1])
    return chosen


def _far(look: Look, name: str, captured: Captured, head: int) -> Float[Tensor, "T S"]:
    """Give a head's weights without those of special rows, of near words, and to places of rest."""
    weights = captured.weights(head, slice(None), slice(None))
    rows, columns = look.rows_of(name), look.columns_of(name)
    weights[:, _resting(columns)] = 0
    weights[torch.tensor([token.special for token in rows.tokens], dtype=torch.bool)] = 0
    if rows is columns:
        places = torch.arange(len(weights))
        weights[(places[:, None] - places).abs() <= 1] = 0
    return weights


def _resting(side: Side) -> Tensor:
    return torch.tensor([token.special or i == 0 for i, token in enumerate(side.tokens)], dtype=torch.bool)
