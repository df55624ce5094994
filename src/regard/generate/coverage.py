"""Coverage: how much of the source each hypothesis has looked at, which a beam search may reward.

    cp(X; Y) = β · Σ_i log(min(Σ_j p_ij, 1))          Wu et al. 2016, arXiv:1609.08144, equation 14

p_ij is the attention of target token j to source token i. The paper's model has one such attention; here it is the
mean over the heads of all cross-attention layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regard.errors import ConfigError
from regard.generate.config import Decoding

__all__ = ["Covered", "coverage_penalty"]


class Covered:
    """Be a Decoding that also adds up the attention to each source token, (R, S), in `coverage`.

    Weights are read through `regard.nn.attention.record`, so every step runs the plain attention kernel.
    """

    def __init__(self, state: Decoding) -> None:
        self._state = state
        self.coverage: Tensor | None = None
        self.mask: Tensor | None = getattr(state, "source_mask", None)  # (R, S), False at padding

    @property
    def batch(self) -> int:
        """Count the rows."""
        return self._state.batch

    def advance(self, ids: Tensor, key_mask: Tensor | None = None, *, only_last: bool = False) -> Tensor:
        """Append tokens, and add what each of them looked at.

        Raises:
            ConfigError: the model looks at no source.
        """
        from regard.nn.attention import record

        with record() as recorder:
            logits = self._state.advance(ids, key_mask, only_last=only_last)
        layers = [w[-1] for name, w in recorder.weights.items() if name.startswith("cross.")]
        if not layers:
            raise ConfigError("coverage_penalty is for an encoder-decoder: this model looks at no source.")
        looked = torch.stack([w.float().mean(1) for w in layers]).mean(0)  # (R, T, S)
        if key_mask is not None:
            looked = looked * key_mask[:, :, None]
        seen = looked.sum(1)
        self.coverage = seen if self.coverage is None else self.coverage + seen
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows."""
        self._state.reorder(rows)
        self.coverage = None if self.coverage is None else self.coverage[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def rewind(self, count: int) -> None:
        """Refuse: what was looked at can't be taken back."""
        raise AssertionError("a beam search never goes back")

    def penalty(self, beta: float) -> Tensor:
        """Give `cp` (R,) of every row so far."""
        assert self.coverage is not None
        return coverage_penalty(self.coverage, self.mask, beta)


def coverage_penalty(coverage: Tensor, mask: Tensor | None, beta: float) -> Tensor:
    """Give cp (R,) for attention sums (R, S); padding, False in `mask`, has no part in it."""
    # A token that was never looked at at all would be -inf, and all hypotheses alike.
    logs = coverage.clamp(1e-10, 1.0).log()
    return beta * (logs if mask is None else logs.masked_fill(~mask, 0.0)).sum(-1)
