"""A stand-in for a model: next-token logits that depend on a row's whole prefix, and on nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Oracle:
    """Give each prefix its own random logits, always the same ones."""

    def __init__(
        self, vocab_size: int, *, seed: int = 0, scale: float = 2.0, eos: dict[int, float] | None = None
    ) -> None:
        self.vocab_size, self.seed, self.scale, self.eos = vocab_size, seed, scale, eos or {}
        self._known: dict[tuple[int, ...], Tensor] = {}

    def logits(self, prefix: Sequence[int]) -> Tensor:
        key = tuple(prefix)
        if key not in self._known:
            generator = torch.Generator().manual_seed(zlib.crc32(repr((self.seed, key)).encode()))
            made = torch.randn(self.vocab_size, generator=generator) * self.scale
            for token, bias in self.eos.items():
                made[token] += bias
            self._known[key] = made
        return self._known[key]

    def nats(self, prefix: Sequence[int]) -> Tensor:
        return self.logits(prefix).log_softmax(-1)

    def start(self, batch: int) -> FakeDecoding:
        return FakeDecoding(self, batch)

    def total(self, prompt: Sequence[int], continuation: Sequence[int]) -> float:
        """Sum the log-probabilities of a continuation."""
        prefix, total = list(prompt), 0.0
        for token in continuation:
            total += float(self.nats(prefix)[token])
            prefix.append(token)
        return total


class FakeDecoding:
    """Be a Decoding over an Oracle; remember the rows of each step in `sizes`, each reordering in `moves`."""

    def __init__(self, oracle: Oracle, batch: int) -> None:
        self.oracle, self.batch = oracle, batch
        self.prefixes: list[list[int]] = [[] for _ in range(batch)]
        self.sizes: list[int] = []
        self.moves: list[list[int]] = []

    def advance(self, ids: Tensor, key_mask: Tensor | None = None, *, only_last: bool = False) -> Tensor:
        assert ids.shape[0] == self.batch
        assert ids.dtype == torch.int64
        self.sizes.append(self.batch)
        mask = torch.ones_like(ids, dtype=torch.bool) if key_mask is None else key_mask
        steps = []
        for column in range(ids.shape[1]):
            for row in range(self.batch):
                if mask[row, column]:
                    self.prefixes[row].append(int(ids[row, column]))
            steps.append(torch.stack([self.oracle.logits(prefix) for prefix in self.prefixes]))
        return torch.stack(steps[-1:] if only_last else steps, 1)

    def reorder(self, rows: Tensor) -> None:
        self.moves.append(rows.tolist())
        self.prefixes = [list(self.prefixes[row]) for row in rows.tolist()]
        self.batch = len(self.prefixes)

    def rewind(self, count: int) -> None:
        self.prefixes = [prefix[: len(prefix) - count] for prefix in self.prefixes]
