"""Constraints: which tokens may come next, given those that a text has so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from regard.errors import ConfigError
from regard.generate.config import check_count
from regard.generate.logits import Transform

__all__ = ["Allowed", "Trie", "constrain"]

Allowed = Callable[[list[int]], Iterable[int] | None]
"""Give, for the new tokens of a text, those that may follow; None: any."""


class Trie:
    """Allow just the given runs of tokens, each followed by an end token.

    Called with the new tokens of a text it gives those that may follow: none, where the text has left every run.

    Example:
        >>> trie = Trie([[5, 6], [5, 7, 8]], ends=[2])
        >>> trie([5]), trie([5, 7]), trie([5, 6])
        ([6, 7], [8], [2])
    """

    def __init__(self, runs: Iterable[Sequence[int]], *, ends: Sequence[int]) -> None:
        """Take the runs, at least one, none of them empty; `ends` follow a whole one.

        Raises:
            ConfigError: there is no run, or no end token, without which nothing could end a text.
        """
        self._root: dict[int, Any] = {}
        for run in runs:
            node = self._root
            for token in run:
                node = node.setdefault(check_count("a token of a run", token, low=0, high=2**62), {})
            if node is self._root:
                raise ConfigError("a run of allowed tokens is empty; give at least one token each.")
            node.update((end, {}) for end in ends)
        if not self._root or not ends:
            raise ConfigError("allowed runs need at least one run and an end token that closes them.")

    def __call__(self, ids: list[int]) -> list[int]:
        """List what may follow, smallest first."""
        node = self._root
        for token in ids:
            if token not in node:
                return []
            node = node[token]
        return sorted(node)


def constrain(allowed: Allowed, length: int) -> Transform:
    """Forbid whatever `allowed` doesn't give for a row's new tokens, those after the first `length` (padding counted).

    It must be a pure function of them. In a beam search other hypotheses go on where one is left without a token.
    """
    check_count("length", length, low=0, high=2**62)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        keep = torch.zeros_like(logits, dtype=torch.bool)
        for row, new in enumerate(ids[:, length:].tolist()):
            found = allowed(new)
            if found is None:
                keep[row] = True
                continue
            tokens = list(found)
            outside = [token for token in tokens if not 0 <= token < logits.shape[-1]]
            if outside:
                raise ConfigError(
                    f"the constraint allows token {outside[0]}, but the vocabulary has {logits.shape[-1]}; "
                    "give ids below that."
                )
            keep[row, tokens] = True
        return logits.masked_fill(~keep, float("-inf"))

    return apply
