"""The learning rate as a pure function of the step, so that a resumed run needs to remember nothing about it."""

from __future__ import annotations

import math

from regard.training.config import TrainConfig

__all__ = ["learning_rate"]


def learning_rate(config: TrainConfig, step: int, horizon: int | None) -> float:
    """Give the learning rate of one optimizer step.

    All schedules rise linearly to `config.lr` in `config.warmup` steps; a run that ends before has not reached it.
    Then:

    - inverse-sqrt falls with 1/sqrt(step). This is the 2017 paper's rate, d^-0.5 min(step^-0.5, step
      warmup^-1.5), with its constant chosen such that the peak is `config.lr`.
    - constant stays; linear and cosine fall until `horizon`.
    - wsd (warm-up, stable, decay) stays, and falls linearly in the last `config.decay_fraction` of the
      horizon.

    Args:
        config: the run's settings.
        step: number of the step, the first being 1.
        horizon: the step at which linear, cosine and wsd reach `config.min_lr_ratio` of the peak, where they stay,
            if the warm-up is over by then.

    Source: "Attention Is All You Need", section 5.3; wsd: "MiniCPM", section 4.
    """
    warmup = max(1, config.warmup)
    if step < warmup:
        return config.lr * step / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "inverse-sqrt":
        return config.lr * math.sqrt(warmup / step)
    assert horizon is not None, "TrainConfig.horizon lets no such schedule through without an end"
    start = warmup
    if config.schedule == "wsd":
        start = max(warmup, round(horizon * (1 - config.decay_fraction)))
    # The last step, not the one after it, reaches the floor.
    part = min(1.0, max(0.0, (step - start) / max(1, horizon - start)))
    shape = (1 + math.cos(math.pi * part)) / 2 if config.schedule == "cosine" else 1 - part
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * shape)
