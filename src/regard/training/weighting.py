"""What a run's loss has beside the labels: weights that make rare labels count for more, and hidden words."""

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
from regard.training.loss import IGNORED, Batch, LossFunction, LossSums, label_logits, sequence_loss

__all__ = ["balanced_weights", "hiding_loss", "make_loss", "weighted_loss"]


def make_loss(
    config: TrainConfig, model: ModelConfig, stores: Mapping[str, TokenStore], *, hidden: int | None = None
) -> LossFunction:
    """Give the loss of a run, with a weight for each label and with hidden words where they were asked for.

    Args:
        config: says so.
        model: with the labels.
        stores: the training data; "label" or "tag" holds the numbers of the labels.
        hidden: the id that stands in the place of a hidden word; None: the padding's.

    Raises:
        ConfigError: class weights for a task without classes, or with several for a text; hidden words for a task
            without classes.
    """
    loss = _weighted_loss(config, model, stores)
    if not config.word_dropout:
        return loss
    if model.head not in ("classify", "tag"):
        raise ConfigError(f"word_dropout={config.word_dropout:g} is for classify and tag; leave it out.")
    return hiding_loss(loss, config.word_dropout, (model.pad_id or 0) if hidden is None else hidden)


def hiding_loss(loss: LossFunction, probability: float, hidden: int) -> LossFunction:
    """Make a loss for which each token of `ids` (B, T) is `hidden` with a probability, drawn from torch's generator.

    Source: Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text Classification", 2.3.
    """

    def of_the_rest(model: Any, batch: Batch) -> LossSums:
        ids: Tensor = batch["ids"]
        gone = torch.rand(ids.shape, device=ids.device) < probability
        return loss(model, {**batch, "ids": ids.masked_fill(gone, hidden)})

    return of_the_rest


def _weighted_loss(config: TrainConfig, model: ModelConfig, stores: Mapping[str, TokenStore]) -> LossFunction:
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
    """Make the loss of classify and tag with a weight (L,) for each label; `nll` is without weights.

    With scores of which tag follows which, a weight is that of a word's share of its sentence's log-likelihood.
    """

    def loss(model: Any, batch: Batch) -> LossSums:
        labels: Tensor = batch["labels"]
        if labels.dim() == 1:
            logits = model(batch["ids"], key_mask=batch["key_mask"])
        else:
            scored = labels != IGNORED
            head = label_logits(model, labels)
            logits = head(model.hidden(batch["ids"], key_mask=batch["key_mask"])[scored])
            labels = labels[scored]
        logits = logits.float()
        own = weights.to(logits.device)
        sums = F.cross_entropy(logits, labels, weight=own, reduction="sum", label_smoothing=smoothing)
        nll = F.cross_entropy(logits.detach(), labels, reduction="sum")
        return LossSums(sums, nll, labels.numel(), (logits.detach().argmax(-1) == labels).sum())

    return loss
