"""How a tensor of a published checkpoint becomes ours, and back: moves of numbers only, so a round trip is bitwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["COLUMN", "CONV", "SAME", "Transform", "conv_split", "split"]


@dataclass(frozen=True)
class Transform:
    """Turn the tensors on one side of a row into those on the other.

    Attributes:
        name: what it is called in errors and listings.
        to_ours: theirs, in the row's order, to ours.
        to_theirs: the inverse.
    """

    name: str
    to_ours: Callable[[Sequence[Tensor]], list[Tensor]]
    to_theirs: Callable[[Sequence[Tensor]], list[Tensor]]


def _turned(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.t() if tensor.ndim == 2 else tensor for tensor in tensors]


def split(parts: int) -> Transform:
    """Cut one matrix or vector into equal parts along its outputs; theirs holds them one below the other."""
    return Transform(
        f"split in {parts}",
        lambda theirs: list(theirs[0].chunk(parts)),
        lambda ours: [torch.cat(list(ours))],
    )


def conv_split(parts: int) -> Transform:
    """Cut what GPT-2 stores as (inputs, outputs), its outputs side by side."""
    return Transform(
        f"transposed and split in {parts}",
        lambda theirs: list(_turned(theirs)[0].chunk(parts)),
        lambda ours: _turned([torch.cat(list(ours))]),
    )


SAME = Transform("same", list, list)
CONV = Transform("transposed", _turned, _turned)
COLUMN = Transform(
    "one row", lambda theirs: [t.reshape(-1) for t in theirs], lambda ours: [t.reshape(1, -1) for t in ours]
)
