"""A model, a data set and a run that take milliseconds, with dropout and ragged rows so that little can hide."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regard.training.config import TrainConfig
from regard.training.events import Event
from regard.training.loop import Trainer
from regard.training.loss import IGNORED, sequence_loss, validation_loss

VOCAB, WIDTH = 11, 8


class TinyModel(nn.Module):
    """Mean the embeddings seen so far; tied output weights, a matrix, a norm, dropout."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.embedding.weight

    def hidden(
        self, ids: Tensor, target: Tensor | None = None, *, key_mask: Tensor | None = None,
        source_mask: Tensor | None = None, target_mask: Tensor | None = None,
        positions: Tensor | None = None, documents: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        states = self.embedding(ids)
        mask = key_mask if source_mask is None else source_mask
        if mask is not None:
            states = states * mask[..., None]
        if target is not None:
            states = self.embedding(target) + states.sum(1, keepdim=True)
        count = torch.arange(1, states.size(1) + 1)[:, None]
        return self.norm(self.dropout(torch.relu(self.inner(states.cumsum(1) / count))))

    def forward(self, ids: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(ids, key_mask=key_mask)[:, 0])


class TinyBatches:
    """Ragged causal batches, each a function of (seed, epoch, k)."""

    def __init__(self, seed: int = 0, rows: int = 5, length: int = 7, count: int = 5) -> None:
        self.seed, self.rows, self.length, self.count = seed, rows, length, count
        self.taken = 0

    def num_batches(self, epoch: int) -> int:
        return self.count + epoch % 2

    def iterate(self, epoch: int, start: int = 0) -> Generator[dict[str, Any], None, None]:
        for k in range(start, self.num_batches(epoch)):
            self.taken += 1
            yield self.batch(epoch, k)

    def batch(self, epoch: int, k: int) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, epoch, k])
        ids = torch.from_numpy(random.integers(3, VOCAB, (self.rows, self.length + 1)))
        lengths = torch.from_numpy(random.integers(1, self.length + 1, self.rows))
        mask = torch.arange(self.length) < lengths[:, None]
        labels = torch.where(mask, ids[:, 1:], IGNORED)
        ids = torch.where(mask, ids[:, :-1], 0)
        return {
            "ids": ids, "labels": labels, "key_mask": mask, "tokens": int(mask.sum()),
            "index": torch.arange(self.rows),
        }  # fmt: skip


def settings(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "steps": 12, "lr": 0.05, "warmup": 3, "precision": "fp32", "evaluate_every": 4, "save_every": 3,
        "log_every": 2, "device": "cpu", "clip": 1.0,
    }  # fmt: skip
    return TrainConfig(**{**values, **changes})


def evaluation(
    batches: TinyBatches,
) -> Callable[[nn.Module, Callable[[], bool]], tuple[dict[str, float], str]]:
    held_out = [batches.batch(99, k) for k in range(2)]

    def evaluate(model: nn.Module, should_stop: Callable[[], bool]) -> tuple[dict[str, float], str]:
        return validation_loss(model, held_out, sequence_loss, should_stop=should_stop), "a sample"

    return evaluate


def make_trainer(out: Path, config: TrainConfig | None = None, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    batches = changes.pop("batches", None) or TinyBatches()
    parts: dict[str, Any] = {
        "model": TinyModel(), "batches": batches, "loss": partial(sequence_loss, smoothing=0.1),
        "config": config or settings(), "out": out, "evaluate": evaluation(batches),
    }  # fmt: skip
    return Trainer(**{**parts, **changes})


class Recorder(list[Event]):
    """Remember the events of a run."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]
