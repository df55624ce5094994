"""Class weights: rare labels count for more, so that each label weighs the same in the loss as any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regard.config import ModelConfig
from regard.data.store import TokenStore
from regard.errors import ConfigError
from regard.training.config import TrainConfig
from regard.training.loss import IGNORED, Batch, LossFunction, LossSums, sequence_loss

__all__ = ["balanced_weights", "make_loss", "weighted_loss"]


def make_loss(config: TrainConfig, model: ModelConfig, stores: Mapping[str, TokenStore]) -> LossFunction:
    """Give the loss of a run, with a weight for each label where it was asked for.

    Args:
        config: says so.
        model: with the labels.
        stores: the training data; "label" or "tag" holds the numbers of the labels.

    Raises:
        ConfigError: class weights for a task without classes, or with several for a text.
    """
    if config.class_weights == "none":
        return partial(sequence_loss, smoothing=config.label_smoothing)
    if model.head not in ("classify", "tag") or model.multi_label:
        raise ConfigError(
            f"class_weights={config.class_weights!r} is for classify and tag with one label each; leave it out."
        )
    labels = stores["label" if model.head == "classify" else "tag"].flat
    return weighted_loss(balanced_weights(labels, len(model.labels)), config.label_smoothing)


def balanced_weights(labels: Any, num_labels: int) -> Tensor:
    """Weigh each label by what it would be, were all as frequent, over what it is: n / (L n_label), fp32 (L,).

    Their mean over the data is 1, so that the learning rate needs no change. A label that never occurs has weight 1.
    Source: King and Zeng 2001, "Logistic Regression in Rare Events Data".
    """
    counts = np.bincount(np.asarray(labels, np.int64), minlength=num_labels)
    present = np.count_nonzero(counts)
    weights = np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1)), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


def weighted_loss(weights: Tensor, smoothing: float = 0.0) -> Callable[[Any, Batch], LossSums]:
    """Make the loss of classify and tag with a weight (L,) for each label; `nll` is without weights."""

    def loss(model: Any, batch: Batch) -> LossSums:
        labels: Tensor = batch["labels"]
        if labels.dim() == 1:
            logits = model(batch["ids"], key_mask=batch["key_mask"])
        else:
            scored = labels != IGNORED
            logits = model.head(model.hidden(batch["ids"], key_mask=batch["key_mask"])[scored])
            labels = labels[scored]
        logits = logits.float()
        own = weights.to(logits.device)
        sums = F.cross_entropy(logits, labels, weight=own, reduction="sum", label_smoothing=smoothing)
        nll = F.cross_entropy(logits.detach(), labels, reduction="sum")
        return LossSums(sums, nll, labels.numel(), (logits.detach().argmax(-1) == labels).sum())

    return loss
