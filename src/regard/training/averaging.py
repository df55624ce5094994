"""Averages of the weights over a run: they are evaluated and kept, while training goes on with the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from regard.errors import CheckpointError
from regard.training.config import TrainConfig

__all__ = ["EMA", "Averaging", "LastMean", "make_averaging"]


class Averaging:
    """Average nothing: the weights that are evaluated are the model's own. The other kinds are subclasses."""

    def __init__(self, model: nn.Module) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.weights: list[Tensor] = [p.data for p in model.parameters()]

    def after_step(self) -> None:
        """Take note of the weights after an optimizer step."""

    def at_evaluation(self, step: int) -> None:
        """Take note of the weights before the evaluation at a step, once, though it may be begun again."""

    def average(self) -> list[Tensor] | None:
        """Give the averaged weights in the model's order; None where they are the model's own."""
        return None

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model its averaged weights for the length of a `with` block; nothing is copied."""
        average = self.average()
        if average is None:
            yield
            return
        parameters = list(model.parameters())
        own = [p.data for p in parameters]
        try:
            for p, mean in zip(parameters, average, strict=True):
                p.data = mean
            yield
        finally:
            for p, data in zip(parameters, own, strict=True):
                p.data = data

    def tensors(self) -> dict[str, Tensor]:
        """Give the state as named tensors, for saving."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave.

        Raises:
            CheckpointError: it is the state of another model or another kind of average.
        """
        self._expect(tensors, set())

    def _expect(self, tensors: Mapping[str, Tensor], names: set[str]) -> None:
        if set(tensors) != names:
            raise CheckpointError(
                "the saved average of weights is of another model or kind; resume with the run's own settings."
            )


class EMA(Averaging):
    """Keep an exponential moving average of the weights: mean <- d mean + (1 - d) weights after each step.

    The first weights of a run are noise, so d starts low and rises to `decay`: d_t = min(decay, (1 + t) / (10
    + t)).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        self.updates = 0
        self.mean = [w.clone() for w in self.weights]

    def after_step(self) -> None:
        """Move the mean towards the weights, all tensors in one call."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self.mean, self.weights, 1 - d)

    def average(self) -> list[Tensor] | None:
        """Give the mean; before the first step it is the model itself."""
        return self.mean

    def tensors(self) -> dict[str, Tensor]:
        """Give the mean by parameter name and the number of updates."""
        means = {f"mean.{name}": w for name, w in zip(self.names, self.mean, strict=True)}
        return {**means, "updates": torch.tensor(self.updates)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self._expect(tensors, {"updates", *(f"mean.{name}" for name in self.names)})
        self.updates = int(tensors["updates"])
        for name, mean in zip(self.names, self.mean, strict=True):
            mean.copy_(tensors[f"mean.{name}"])


class LastMean(Averaging):
    """Average the weights at the last few evaluation points, as the 2017 paper averaged its last checkpoints.

    Each point is a copy of the weights, in memory and in the saved state.

    Source: "Attention Is All You Need", section 6.1.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__(model)
        self.count = count
        self.points: dict[int, list[Tensor]] = {}  # by step, oldest first

    def at_evaluation(self, step: int) -> None:
        """Add the weights to the points and let the oldest go."""
        if step not in self.points:
            self.points[step] = [w.clone() for w in self.weights]
        while len(self.points) > self.count:
            del self.points[next(iter(self.points))]

    def average(self) -> list[Tensor] | None:
        """Give the mean of the points; None while there is none."""
        if not self.points:
            return None
        first, *others = self.points.values()
        mean = [w.clone() for w in first]
        for point in others:
            torch._foreach_add_(mean, point)
        torch._foreach_div_(mean, float(len(self.points)))
        return mean

    def tensors(self) -> dict[str, Tensor]:
        """Give the points, each weight as `step.parameter`."""
        return {
            f"{step}.{name}": w
            for step, point in self.points.items()
            for name, w in zip(self.names, point, strict=True)
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        steps = sorted({int(key.partition(".")[0]) for key in tensors if key.partition(".")[0].isdigit()})
        self._expect(tensors, {f"{step}.{name}" for step in steps for name in self.names})
        self.points = {step: [tensors[f"{step}.{name}"].clone() for name in self.names] for step in steps}


def make_averaging(model: nn.Module, config: TrainConfig) -> Averaging:
    """Give the kind of averaging that the settings ask for."""
    if config.average == "ema":
        return EMA(model, config.ema_decay)
    return LastMean(model, config.average_last) if config.average == "last" else Averaging(model)
