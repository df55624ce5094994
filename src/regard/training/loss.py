"""What a batch costs: sums over the scored tokens, never means, so that parts of a batch can be added up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.checkpoint import checkpoint

from regard.errors import DataError
from regard.models.embeddings import scored_by
from regard.models.transformer import Head
from regard.nn.crf import side_by_side
from regard.training.likelihood import output_of, scored_in_parts

__all__ = [
    "IGNORED",
    "Batch",
    "LossFunction",
    "LossSums",
    "cross_entropy",
    "label_logits",
    "sequence_loss",
    "validation_loss",
]

IGNORED = -100
"""The label of a position that isn't scored."""

Batch = Mapping[str, Any]
"""Tensors by field name, as data/batches.py makes them; `tokens` is the number of scored positions."""


@dataclass(frozen=True)
class LossSums:
    """Hold the sums of one batch, or of a part of one.

    Attributes:
        loss: what is minimised, in nats, summed over the scored tokens; a scalar that carries the gradient.
        nll: negative log-likelihood without label smoothing, in nats, summed; a scalar without gradient.
        tokens: number of scored tokens.
        correct: number of right answers, where the objective counts them.
    """

    loss: Tensor
    nll: Tensor
    tokens: int
    correct: Tensor | None = None


LossFunction = Callable[[nn.Module, Batch], LossSums]
"""The objective that a Trainer minimises."""


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Sum -sum_v q_v log p_v over the rows, with q = (1 - s) onehot(label) + s/V.

    The gradient, p - q, is made in the forward pass, in the memory of the log-probabilities: one (N, V)
    tensor lives instead of the two or three of a composed expression, and on a CPU the head's memory traffic
    is what costs.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(
            logits, -1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32
        )
        column = labels.unsqueeze(1)
        nll = -log_p.gather(1, column).sum()
        uniform = smoothing / log_p.size(1)
        loss = (1 - smoothing) * nll - uniform * log_p.sum() if smoothing else nll.clone()
        if ctx.needs_input_grad[0]:
            gradient = log_p.exp_().sub_(uniform) if smoothing else log_p.exp_()
            share = torch.full_like(column, smoothing - 1, dtype=gradient.dtype)
            ctx.gradient = gradient.scatter_add_(1, column, share)
            ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        assert ctx.gradient is not None, "this loss can be differentiated once; its gradient is made in place"
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(grad_loss).to(ctx.dtype), None, None


def cross_entropy(
    hidden: Tensor, head: Callable[[Tensor], Tensor], labels: Tensor, *, smoothing: float = 0.0,
    chunk: int | None = None,
) -> tuple[Tensor, int, Tensor]:  # fmt: skip
    """Score final states against labels; only the scored positions pass through the output head.

    Logits become log-probabilities in fp32, whatever the precision of the model. Label smoothing mixes the
    target with the uniform distribution over all V words, the label included: (1 - s) onehot + s/V.

    Args:
        hidden: final states, (N, D) or (B, T, D).
        head: turns (n, D) into logits (n, V).
        labels: token ids, (N,) or (B, T); IGNORED where a position isn't scored.
        smoothing: s, in [0, 1).
        chunk: positions whose logits are in memory at once; they are computed again for the gradient. None:
            all, or where our own kernels learn (bfloat16 on a CPU) as many as 2^26 logits are, and none again.

    Returns:
        The sum of the loss, with gradient; the number of scored tokens; the sum of the unsmoothed nll. All in
        nats.

    Source: "Attention Is All You Need", section 5.4; "Rethinking the Inception Architecture", section 7.
    """
    labels = labels.reshape(-1)
    hidden = hidden.reshape(-1, hidden.size(-1))  # (N, D)
    scored = (labels != IGNORED).nonzero().squeeze(1)
    tokens = scored.numel()
    if tokens < labels.numel():
        hidden, labels = hidden.index_select(0, scored), labels.index_select(0, scored)

    if (output := output_of(head, hidden)) is not None:
        assert isinstance(head, Head)
        loss, nll = scored_in_parts(head.before(hidden), output, labels, smoothing=smoothing, chunk=chunk)
        return loss, tokens, nll

    def part(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, nll = _SmoothedCrossEntropy.apply(head(states), targets, smoothing)
        return loss, nll

    if chunk is None or tokens <= chunk:
        loss, nll = part(hidden, labels)
        return loss, tokens, nll
    parts = [
        checkpoint(part, states, targets, use_reentrant=False)
        for states, targets in zip(hidden.split(chunk), labels.split(chunk), strict=True)
    ]
    return torch.stack([p[0] for p in parts]).sum(), tokens, torch.stack([p[1] for p in parts]).sum()


def label_logits(model: Any, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Give what turns the states of all scored positions (n, D) into logits (n, V).

    That is the model's head. Where it has scores of which tag follows which, the logits of a word are those given the
    tag of the word before it, and the sum of their cross-entropies is the exact negative log-likelihood of the
    sentences; see `nn.crf.Transitions`.

    Args:
        model: an Encoder or a Decoder.
        labels: (B, T); IGNORED where a position isn't scored. A row is a sentence.
    """
    chain = getattr(model.head, "transitions", None)
    if chain is None:
        return model.head

    def logits(states: Tensor) -> Tensor:
        scored = labels != IGNORED
        emissions, mask = side_by_side(model.head(states), scored)
        tags, _ = side_by_side(labels[scored], scored)
        return chain.given(emissions, tags, mask)[mask]

    return logits


def sequence_loss(model: Any, batch: Batch, smoothing: float = 0.0, *, chunk: int | None = None) -> LossSums:
    """Score any of the library's batches; which objective it is shows in its fields.

    - `source` and `target_in`: an encoder-decoder learns `target_out`.
    - `ids` and `labels` (B, T): every position has a label, or IGNORED: generate, fill, tag (see `label_logits`).
    - `ids` and `labels` (B,): one label for the whole sequence: classify; `correct` counts the right ones.
    - `ids` and `classes` (B, L), 0 or 1: any of the labels, each a yes or no of its own; `correct` counts the sequences
      with all of them right. The loss of a sequence is the sum over the labels.

    Bind the smoothing to make a LossFunction: `functools.partial(sequence_loss, smoothing=0.1)`.
    """
    if "source" in batch:
        with scored_by(model.head):
            hidden = model.hidden(
                batch["source"], batch["target_in"],
                source_mask=batch.get("source_mask"), target_mask=batch.get("target_mask"),
            )  # fmt: skip
            loss, tokens, nll = cross_entropy(
                hidden, model.head, batch["target_out"], smoothing=smoothing, chunk=chunk
            )
        return LossSums(loss, nll, tokens)
    context = {
        name: batch[name] for name in ("key_mask", "positions", "documents") if batch.get(name) is not None
    }
    if "classes" in batch:
        return _several_loss(model(batch["ids"], **context), batch["classes"], smoothing)
    labels: Tensor = batch["labels"]
    if labels.dim() == 1:
        logits = model(batch["ids"], **context)  # (B, L)
        loss, nll = _SmoothedCrossEntropy.apply(logits, labels, smoothing)
        return LossSums(loss, nll, labels.numel(), (logits.detach().argmax(-1) == labels).sum())
    with scored_by(model.head):
        hidden = model.hidden(batch["ids"], **context)
        if getattr(model.head, "transitions", None) is not None:
            chunk = None  # the words of a sentence need each other
        head = label_logits(model, labels)
        loss, tokens, nll = cross_entropy(hidden, head, labels, smoothing=smoothing, chunk=chunk)
    return LossSums(loss, nll, tokens)


def _several_loss(logits: Tensor, classes: Tensor, smoothing: float) -> LossSums:
    """Sum the cross-entropy of yes-or-no answers (B, L); smoothing mixes each with a half."""
    logits = logits.float()
    nll = binary_cross_entropy_with_logits(logits, classes, reduction="sum")
    soft = (1 - smoothing) * classes + smoothing / 2
    loss = binary_cross_entropy_with_logits(logits, soft, reduction="sum") if smoothing else nll
    right = ((logits.detach() > 0) == (classes > 0.5)).all(-1)
    return LossSums(loss, nll.detach(), len(classes), right.sum())


def validation_loss(
    model: nn.Module, batches: Iterable[Batch], loss: LossFunction, *,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:  # fmt: skip
    """Give the mean `loss` and `nll`, in nats per scored token, over all the batches; and `accuracy` where counted.

    The model is used as it is (the trainer has put it in evaluation mode), without gradients, on its own
    device. It ends early, with what it has, once `should_stop()` is true.

    Raises:
        DataError: there is no scored token.
    """
    device = next(model.parameters()).device
    loss_sum = nll_sum = torch.zeros((), dtype=torch.float64)
    correct: Tensor | None = None
    tokens = 0
    with torch.no_grad():
        for batch in batches:
            sums = loss(model, to_device(batch, device))
            loss_sum, nll_sum = loss_sum + sums.loss.double().cpu(), nll_sum + sums.nll.double().cpu()
            tokens += sums.tokens
            if sums.correct is not None:
                correct = sums.correct if correct is None else correct + sums.correct
            if should_stop():
                break
    if not tokens:
        raise DataError("the validation data has no token to score; give more of it, or longer texts.")
    result = {"loss": float(loss_sum) / tokens, "nll": float(nll_sum) / tokens}
    if correct is not None:
        result["accuracy"] = float(correct) / tokens
    return result


def to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    """Give the batch with its tensors on another device; a tensor that is there already isn't copied."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
