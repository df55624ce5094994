"""Looks made by hand: texts of given words, and layers whose queries and keys give wanted weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regard.look.capture import Captured, capture
from regard.look.reading import Look
from regard.look.sides import Side, Token, Word
from regard.nn.attention import Attend
from regard.nn.masks import Mask


def side(words: Sequence[str], name: str = "text") -> Side:
    """Make a text of words; those in pointed brackets are special, and equal words have equal ids."""
    known = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokens, at = [], 0
    for word in words:
        special = word.startswith("<")
        tokens.append(Token(word, at, at if special else at + len(word), special))
        at += 0 if special else len(word) + 1
    names = [Word(word, i, i + 1, word.startswith("<")) for i, word in enumerate(words)]
    return Side(name, " ".join(words), tuple(known[word] for word in words), tuple(tokens), tuple(names))


def layer(name: str, weights: Tensor, mask: Mask | None = None) -> Captured:
    """Capture a layer whose heads have these weights, (H, T, S), zero where nothing is allowed.

    A head as wide as the text has a query for each row that spells the row's scores, and a key for each place.
    """
    heads, _, columns = weights.shape
    query = weights.clamp(min=1e-9).log()[None]
    key = torch.eye(columns)[None, None].expand(1, heads, -1, -1)
    with capture() as kept:
        kept(Attend(scale=1.0, name=name), query, key, torch.zeros_like(key), mask or Mask(), None)
    return kept.of()[name]


def look(layers: Sequence[Captured], *sides: Side) -> Look:
    """Put layers over texts."""
    return Look({one.name: one for one in sides}, {one.name: one for one in layers})


def uniform(rows: int, columns: int | None = None, *, causal: bool = False) -> Tensor:
    """Spread each row evenly over what it may see."""
    weights = torch.ones(rows, columns or rows)
    weights = weights.tril() if causal else weights
    return weights / weights.sum(1, keepdim=True)


def pointing(at: dict[int, int], rest: Tensor, share: float = 0.9) -> Tensor:
    """Give `share` of rows to one column each, and what is left, and all other rows, to `rest`."""
    weights = rest.clone()
    for row, column in at.items():
        weights[row] *= 1 - share
        weights[row, column] += share
    return weights
