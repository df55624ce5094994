"""Which of a run's evaluations is the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from regard.errors import ConfigError, suggest

__all__ = ["is_better"]


def is_better(
    metrics: Mapping[str, float], best: Mapping[str, float], metric: str, *, higher: bool, step: int,
    warn: Callable[[str], None],
) -> bool:  # fmt: skip
    """Tell whether an evaluation at a step beats the best one before, which is empty where there was none.

    Raises:
        ConfigError: it has no such metric.
    """
    if metric not in metrics:
        known = ", ".join(metrics) or "none"
        raise ConfigError(
            f"the evaluation has no metric {metric!r}; it has {known}. {suggest(metric, metrics)}".strip()
        )
    value, before = metrics[metric], best.get(metric)
    if not math.isfinite(value):
        warn(f"the evaluation at step {step} gives {metric}={value:g}.")
        return False
    return before is None or (value > before if higher else value < before)
