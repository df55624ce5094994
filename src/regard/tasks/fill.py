"""Fill: learn to find masked tokens again, as BERT does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.denoising import Fill
from regard.data.tokenizers import Tokenizer
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    encode_running_text,
    need,
    small_or_large,
    text_store,
)  # fmt: skip
from regard.training.loss import IGNORED, LossSums, to_device, validation_loss


class FillTask(Task):
    """Learn from running text with some tokens hidden."""

    name: ClassVar[str] = "fill"
    help: ClassVar[str] = "masked tokens, found again (BERT's pre-training)"
    fields: ClassVar[tuple[str, ...]] = ("text",)
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder",)
    metric: ClassVar[str] = "accuracy"
    joins_documents: ClassVar[bool] = True

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        return small_or_large(
            size, {"small": "encoder-tiny", "medium": "encoder-small", "large": "encoder-medium"}, context=128
        )

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write the text as one sequence a piece; examples are cut from them at the context."""
        return encode_running_text(rows, tokenizer, config, folder, end=None)

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give windows with tokens hidden anew in every epoch."""
        return Fill(
            text_store(stores), mask=need(tokenizer.mask_id, "mask token"), pad=need(config.pad_id, "pad_id"),
            context=config.context,
            bos=config.bos_id, eos=config.eos_id, specials=tokenizer.special_ids,
        )  # fmt: skip

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give the share of hidden tokens found, always the same ones, and the loss in nats for each."""
        examples = self.objective(stores, parts.tokenizer, parts.config, seed=0)
        batches = Batches(examples, tokens_per_batch=8192, shuffle=False)
        most = min(batches.num_batches(0), 8) if quick else batches.num_batches(0)

        def loss(model: Any, batch: Any) -> LossSums:
            scored = batch["labels"] != IGNORED
            truths = batch["labels"][scored]
            logits = model.head(model.hidden(batch["ids"], key_mask=batch["key_mask"])[scored])
            nll = torch.nn.functional.cross_entropy(logits.float(), truths, reduction="sum")
            return LossSums(nll, nll, len(truths), (logits.argmax(-1) == truths).sum())

        found = validation_loss(
            parts.module, (batches.batch(0, k) for k in range(most)), loss, should_stop=should_stop
        )
        sample = _sample(parts, batches.batch(0, 0))
        return Evaluation({"accuracy": found["accuracy"], "nats": found["nll"]}, sample)


@torch.no_grad()
def _sample(parts: Parts, batch: Any) -> str:
    """Show the beginning of a text with its hidden tokens and what the model puts there."""
    batch = to_device(batch, parts.device)
    ids, labels = batch["ids"][0], batch["labels"][0]
    best = parts.module(batch["ids"][:1], key_mask=batch["key_mask"][:1])[0].argmax(-1)
    shown = min(40, int(batch["key_mask"][0].sum()))
    pieces = []
    for i in range(shown):
        if labels[i] == IGNORED:
            pieces += parts.tokenizer.tokens([int(ids[i])])
        else:
            guess, truth = parts.tokenizer.tokens([int(best[i]), int(labels[i])])
            pieces.append(f"[{guess}|{truth}]" if guess != truth else f"[{guess}]")
    return " ".join(pieces)
