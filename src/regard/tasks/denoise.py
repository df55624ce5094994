"""Denoise: learn to restore damaged text, T5's way (spans) or BART's (infilling and shuffled sentences)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.denoising import DenoiseBART, DenoiseT5
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
from regard.tasks.held_out import held_out_loss

NUM_SENTINELS = 64


def _sentinels(tokenizer: Tokenizer) -> list[int]:
    """List the sentinels that a published T5's tokenizer brings, in their order; none for ours."""
    named = (tokenizer.token_to_id(f"<extra_id_{i}>") for i in range(100))
    return [i for i in named if i is not None]


class DenoiseTask(Task):
    """Learn from running text that is damaged anew in every epoch.

    With T5's relative positions the noise is T5's: spans replaced by sentinels, which take the last ids of the
    vocabulary, beyond the tokenizer's. Otherwise it is BART's.
    """

    name: ClassVar[str] = "denoise"
    help: ClassVar[str] = "damaged text, restored (T5's and BART's pre-training)"
    fields: ClassVar[tuple[str, ...]] = ("text",)
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder-decoder",)
    metric: ClassVar[str] = "nats"
    by_time: ClassVar[dict[str, Any]] = {
        "optimizer": "muon", "lr": 4e-3, "batch_tokens": 2048, "average": "ema",
    }  # fmt: skip
    higher_is_better: ClassVar[bool] = False
    joins_documents: ClassVar[bool] = True

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        presets = {"small": "translate-tiny", "medium": "translate-small", "large": "translate-medium"}
        return small_or_large(size, presets, context=128, position="t5")

    def extra_tokens(self, config: ModelConfig) -> int:
        """Count the ids that the model needs beyond the tokenizer's: the sentinels of T5."""
        return NUM_SENTINELS if config.position == "t5" else 0

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write the text as one sequence a piece; examples are cut from them at the context."""
        return encode_running_text(rows, tokenizer, config, folder, end=None)

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give damaged windows and what restores them."""
        store, start, eos, pad = (
            text_store(stores),
            need(config.start, "start_id"),
            need(config.eos_id, "eos_id"),
            need(config.pad_id, "pad_id"),
        )
        if config.position == "t5":
            sentinels = _sentinels(tokenizer) or range(config.vocab_size - NUM_SENTINELS, config.vocab_size)
            return DenoiseT5(
                store, sentinels=sentinels, start=start, eos=eos, pad=pad, context=config.context
            )
        ends = {i for mark in ".?!" for i in tokenizer.encode(mark)[-1:]}
        mask = need(tokenizer.mask_id, "mask token")
        return DenoiseBART(
            store, mask=mask, start=start, eos=eos, pad=pad, context=config.context, sentence_ends=ends
        )

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give the loss in nats a token of the restored text, always on the same damage."""
        batches = Batches(
            self.objective(stores, parts.tokenizer, parts.config, seed=0),
            tokens_per_batch=8192,
            shuffle=False,
        )
        found = held_out_loss(parts.module, batches, most=8 if quick else None, should_stop=should_stop)
        return Evaluation({"nats": found["nll"]})
