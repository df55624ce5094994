"""The learning rate as a pure function of the step, so that a resumed run needs to remember nothing about it.

Where minutes alone end a run it is a function of the step and of the part of the time that has passed. That part is
measured, so such a run can't be done again to the bit; a resumed one goes on from the time that its state remembers.
"""

from __future__ import annotations

import math

from regard.training.config import FALLING, TrainConfig

__all__ = ["learning_rate"]


def learning_rate(
    config: TrainConfig, step: int, horizon: int | None, *, share: float | None = None
) -> float:
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
        share: from 0 to 1, how much of the time has passed, which stands for the part of the horizon where there is
            none. The rate is then the lower of what rises with the steps and what falls with the time.

    Source: "Attention Is All You Need", section 5.3; wsd: "MiniCPM", section 4; linear to zero as the best where all
    steps are known: Bergsma et al. 2025, "Straight to Zero", arXiv:2502.15938.
    """
    warmup = max(1, config.warmup)
    if horizon is None and share is not None and config.schedule in FALLING:
        start = 1 - config.decay_fraction if config.schedule == "wsd" else 0.0
        return config.lr * min(step / warmup, _shape(config, (share - start) / max(1e-9, 1 - start)))
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
    return config.lr * _shape(config, (step - start) / max(1, horizon - start))


def _shape(config: TrainConfig, part: float) -> float:
    """Give what is left of the peak when a part of the fall, from 0 to 1, is done."""
    part = min(1.0, max(0.0, part))
    shape = (1 + math.cos(math.pi * part)) / 2 if config.schedule == "cosine" else 1 - part
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * shape
