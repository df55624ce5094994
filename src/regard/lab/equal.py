"""Models of different kinds with equally many weights: what the claims about recurrence compare."""

from __future__ import annotations

from collections.abc import Callable

from regard.config import ModelConfig

__all__ = ["of_size"]

_STEP = 2
_WIDEST = 2**14


def of_size(make: Callable[[int], ModelConfig], parameters: int) -> ModelConfig:
    """Give the configuration whose number of weights is nearest to `parameters`.

    Args:
        make: gives the configuration of a width; more width, more weights.
        parameters: how many there should be.
    """
    best = make(_STEP)
    for width in range(2 * _STEP, _WIDEST, _STEP):
        tried = make(width)
        if abs(tried.num_parameters() - parameters) <= abs(best.num_parameters() - parameters):
            best = tried
        if tried.num_parameters() > parameters:
            break
    return best
