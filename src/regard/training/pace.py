"""How long a step of training takes on this machine, measured beforehand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from regard.training.averaging import make_averaging
from regard.training.config import TrainConfig
from regard.training.loss import Batch, LossFunction, to_device
from regard.training.micro import micro_batches
from regard.training.optim import make_optimizers, set_learning_rate
from regard.training.precision import Precision, autocast, choose_device, choose_precision

__all__ = ["Pace", "measure_pace"]

PROBE_TOKENS = 2048
"""Of a batch, at most, with which it is found out what precision is fast."""


@dataclass(frozen=True)
class Pace:
    """Hold the seconds that a step takes, and the precision in which it was measured."""

    seconds: float
    precision: Precision


def measure_pace(
    module: nn.Module, batches: Sequence[Batch], loss: LossFunction, config: TrainConfig, *, seconds: float = 4.0,
    least: int = 2, most: int = 50,
) -> Pace:  # fmt: skip
    """Take real steps on batches in turn, and give how long the quicker ones took: the rest is what else ran meanwhile.

    Forward, backward, optimizers and averaging are those of a run; the weights stay as they are.

    Args:
        module: on any device; it is moved to the run's.
        batches: of the run's size; the mean over them counts.
        loss: the objective.
        config: the run's settings.
        seconds: after these no new round begins.
        least: how many rounds over the batches are timed at least, beside the first one, which sets up the kernels.
        most: and at most.
    """
    with torch.random.fork_rng(devices=[]):
        device = choose_device(config.device)
        module = module.to(device).train()
        optimizers, averaging = make_optimizers(module, config), make_averaging(module, config)
        set_learning_rate(optimizers, 0.0)

        def gradient(batch: Batch) -> None:
            module.zero_grad()
            sums = loss(module, to_device(batch, device))
            (sums.loss / max(1, sums.tokens)).backward()

        probe = next(micro_batches(batches[0], PROBE_TOKENS))
        precision = choose_precision(config.precision, device, lambda: gradient(probe))
        took: list[list[float]] = [[] for _ in batches]
        spent, rounds = 0.0, 0
        while rounds <= least or (rounds <= most and spent < seconds):
            if rounds and spent > 4 * seconds:  # of a slow step the first will do
                break
            for own, batch in zip(took, batches, strict=True):
                began = time.perf_counter()
                for part in micro_batches(batch, config.micro_tokens):
                    with autocast(precision, device):
                        gradient(part)
                for optimizer in optimizers:
                    optimizer.step()
                averaging.after_step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                own.append(time.perf_counter() - began)
                spent += own[-1]
            rounds += 1
        module.zero_grad()
    # The first eighth, of those that are timed: not what else the machine does meanwhile.
    timed = [sorted(own[1:] or own) for own in took]
    return Pace(sum(own[len(own) // 8] for own in timed) / len(timed), precision)
