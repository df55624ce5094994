"""Filters of sampling that look at the shape of the whole distribution; as pure as those of logits.py."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from regard.errors import ConfigError
from regard.generate.config import check_number

if TYPE_CHECKING:
    from regard.generate.logits import Transform

__all__ = ["epsilon_cutoff", "eta_cutoff", "typical_p"]

_NEVER = float("-inf")


def typical_p(mass: float) -> Transform:
    """Keep the fewest tokens whose surprise is nearest to the expected one and which sum to at least `mass`.

    Those that tie with the last one stay too. Source: Meister et al. 2022, https://arxiv.org/abs/2202.00666.
    """
    check_number("typical_p", mass, low=0.0, high=1.0)
    if mass == 0:
        raise ConfigError("typical_p=0 leaves no token; give a number above 0 and at most 1.")

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if mass == 1:
            return logits
        nats = logits.log_softmax(-1)
        away = (nats + _entropy(nats)).abs()
        order = away.sort(-1)
        sums = nats.gather(-1, order.indices).exp().cumsum(-1)
        last = (sums < mass).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
        return logits.masked_fill(away > order.values.gather(-1, last), _NEVER)

    return apply


def epsilon_cutoff(least: float) -> Transform:
    """Keep the tokens at least `least` probable, in [0, 1], and the likeliest; 0 keeps all.

    Source: Hewitt et al. 2022, https://arxiv.org/abs/2210.15191, section 4.
    """
    check_number("epsilon_cutoff", least, low=0.0, high=1.0)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if least == 0:
            return logits
        rare = (logits.softmax(-1) < least) & (logits < logits.amax(-1, keepdim=True))
        return logits.masked_fill(rare, _NEVER)

    return apply


def eta_cutoff(least: float) -> Transform:
    """Keep the tokens at least min(`least`, sqrt(`least`) · exp(-entropy)) probable, and the likeliest; 0 keeps all.

    Source: as for `epsilon_cutoff`, equation 7.
    """
    check_number("eta_cutoff", least, low=0.0, high=1.0)

    def apply(logits: Tensor, ids: Tensor) -> Tensor:
        if least == 0:
            return logits
        nats = logits.log_softmax(-1)
        limit = (math.sqrt(least) * (-_entropy(nats)).exp()).clamp(max=least)
        return logits.masked_fill((nats.exp() < limit) & (logits < logits.amax(-1, keepdim=True)), _NEVER)

    return apply


def _entropy(nats: Tensor) -> Tensor:
    """Give the entropy (B, 1) of log-probabilities (B, V), in nats; what is impossible adds nothing."""
    return -(nats.exp() * nats.masked_fill(nats == _NEVER, 0.0)).sum(-1, keepdim=True)
