"""One vector of a text, from the states of its tokens."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.config import ModelConfig, Pooling
from regard.nn.linear import Linear

__all__ = ["Pooler", "pool"]


class Pooler(nn.Module):
    """Transform the vector of a text once more, as BERT does with its first token's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.activation = config.pooler_activation

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Apply the dense layer and the activation."""
        pooled = self.dense(pooled)
        return torch.tanh(pooled) if self.activation == "tanh" else torch.relu(pooled)


def pool(
    hidden: Float[Tensor, "B T D"], key_mask: Bool[Tensor, "B T"] | None, pooling: Pooling
) -> Float[Tensor, "B D"]:
    """Make one vector of a text: its first real token's, its last one's, or the mean."""
    real = hidden.new_ones(hidden.shape[:2]) if key_mask is None else key_mask.to(hidden.dtype)
    rows = torch.arange(len(hidden), device=hidden.device)
    if pooling == "mean":
        return (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
    if pooling == "first":
        return hidden[rows, real.argmax(1)]
    return hidden[rows, hidden.shape[1] - 1 - real.flip(1).argmax(1)]
