"""What greedy search and sampling share, plain and speculative: growing texts, random streams, and the draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from regard.generate.config import Hypothesis, SearchConfig

__all__ = ["OnToken", "Stop", "Streams", "Text", "sample"]

OnToken = Callable[[int, int], None]
Stop = Callable[[int, list[int]], bool]

# So many uniform numbers are drawn for each row at once.
_DRAWN = 64


class Text:
    """Collect one growing text."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.score = 0.0
        self.length = 0
        self.finished = False

    def add(
        self,
        token: int,
        nats: float,
        eos: tuple[int, ...],
        row: int,
        on_token: OnToken | None,
        stop: Stop | None,
    ) -> bool:
        """Append a token and tell the callers; True where the text goes on."""
        self.score += nats
        self.length += 1
        if token in eos:
            self.finished = True
            return False
        self.ids.append(token)
        if on_token is not None:
            on_token(row, token)
        self.finished = stop is not None and bool(stop(row, self.ids))
        return not self.finished

    def hypothesis(self, penalty: float) -> Hypothesis:
        """Give the text with its score, normalised with this length penalty."""
        return Hypothesis(self.ids, self.score, self.score / self.length**penalty, self.finished)


class Streams:
    """Draw a uniform number in [0, 1) a step for each text, from a stream of its own."""

    def __init__(self, config: SearchConfig, rows: list[int]) -> None:
        seed = np.random.SeedSequence().entropy if config.seed is None else config.seed
        self._generators = [
            np.random.default_rng(np.random.SeedSequence([int(seed), row, copy]))  # type: ignore[arg-type]
            for row in rows
            for copy in range(config.num_return)
        ]
        self._table = np.empty((len(self._generators), 0))

    def numbers(self, steps: int | list[int], live: list[int]) -> Tensor:
        """Give the numbers (N, 1) float64 of texts at a step, or each at a step of its own."""
        each = [steps] * len(live) if isinstance(steps, int) else steps
        while each and max(each) >= self._table.shape[1]:
            more = np.stack([generator.random(_DRAWN) for generator in self._generators])
            self._table = np.concatenate((self._table, more), 1)
        return torch.from_numpy(self._table[live, each][:, None])


def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token (N, 1) for each row of logits (N, V), by inverting its distribution function."""
    # In float64, where the processor has it: the sum over a large vocabulary must not swallow the rare
    # tokens.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    reached = logits.softmax(-1).to(wide).cumsum(-1)
    aim = uniform.to(wide).to(logits.device) * reached[:, -1:]
    chosen = torch.searchsorted(reached, aim, right=True).clamp_(max=logits.shape[-1] - 1)
    # A parallel sum need not grow steadily, so that it may point at a forbidden token; then take the
    # likeliest.
    forbidden = logits.gather(-1, chosen) == float("-inf")
    return torch.where(forbidden, logits.argmax(-1, keepdim=True), chosen)
