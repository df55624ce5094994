"""What the training loop asks of the parts that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from regard.training.loss import LossFunction

__all__ = ["Evaluate", "LossFunction", "SaveModel", "TrainingBatches"]

Evaluate = Callable[[nn.Module, Callable[[], bool]], tuple[dict[str, float], str | None]]
"""Give metrics, and a sample of what the model does or None; return early once the second argument gives true."""

SaveModel = Callable[[Path, Mapping[str, Tensor]], None]
"""Write weights, and what belongs beside them, into a run folder, atomically."""


class TrainingBatches(Protocol):
    """Be a training set as the loop sees it; batch k of an epoch is a function of (seed, epoch, k) alone."""

    def num_batches(self, epoch: int) -> int:
        """Give the number of batches in an epoch."""

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Give an epoch's batches from number `start` on; closed early, if it can be, when the run ends."""
