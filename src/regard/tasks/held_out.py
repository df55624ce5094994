"""The mean loss over held-out data, as the tasks measure it that learn to say tokens."""

from __future__ import annotations

from typing import Any

from regard.data.batches import Batches
from regard.tasks.base import Stop
from regard.training.loss import LossFunction, sequence_loss, validation_loss

__all__ = ["held_out_loss"]


def held_out_loss(
    module: Any,
    batches: Batches,
    *,
    most: int | None,
    loss: LossFunction = sequence_loss,
    should_stop: Stop = lambda: False,
) -> dict[str, float]:
    """Give what `validation_loss` finds over the first epoch of some batches.

    Args:
        module: in evaluation mode.
        batches: of held-out data, in its order.
        most: how many at most; None: all.
        loss: of a batch.
        should_stop: asked between batches.
    """
    count = batches.num_batches(0) if most is None else min(batches.num_batches(0), most)
    return validation_loss(module, (batches.batch(0, k) for k in range(count)), loss, should_stop=should_stop)
