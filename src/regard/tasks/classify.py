"""Classify: one label for a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Classify
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import DataError
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    encode_texts,
    label_numbers,
    need,
    small_or_large,
)  # fmt: skip
from regard.tasks.metrics import score_classes
from regard.training.loss import to_device


class ClassifyTask(Task):
    """Learn from texts with a label each."""

    name: ClassVar[str] = "classify"
    help: ClassVar[str] = "a label for a text"
    fields: ClassVar[tuple[str, ...]] = ("text", "label")
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder", "decoder")
    metric: ClassVar[str] = "accuracy"

    def texts(self, values: Values) -> Iterable[str]:  # type: ignore[override]
        """Give the text; labels are no text."""
        yield values["text"]

    def labels(self, rows: Iterable[Values]) -> tuple[str, ...]:
        """Collect the labels, sorted."""
        found = sorted({values["label"] for values in rows})
        if len(found) < 2:
            raise DataError(
                f"every row has the label {found[0]!r}; there must be at least two to learn a difference."
            )
        return tuple(found)

    def model_changes(self, config: ModelConfig, labels: tuple[str, ...]) -> dict[str, Any]:
        """Ask for a head over the labels; a decoder pools its last token, which alone has seen the whole text."""
        return {
            "head": "classify",
            "labels": labels,
            "pooling": "last" if config.kind == "decoder" else "mean",
            "head_transform": False,
        }

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        presets = {"small": "encoder-tiny", "medium": "encoder-tiny", "large": "encoder-small"}
        return small_or_large(size, presets, context=256, batch_tokens=2048)

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write text.tokens and label.tokens."""
        numbers = label_numbers(config)
        texts = encode_texts((r["text"] for r in rows), tokenizer, limit=config.context - 2)
        labels = ([numbers(r["label"])] for r in rows)
        return {
            "text": TokenStore.write(folder / "text.tokens", texts, vocab_size=config.vocab_size),
            "label": TokenStore.write(folder / "label.tokens", labels, vocab_size=len(config.labels)),
        }

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give texts between start and end tokens, with the number of their label."""
        return Classify(
            stores["text"], np.asarray(stores["label"].flat, np.int64), pad=need(config.pad_id, "pad_id"),
            bos=config.bos_id, eos=config.eos_id,
        )  # fmt: skip

    @torch.no_grad()
    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give accuracy, macro F1, and for each class precision, recall and F1."""
        batches = Batches(
            self.objective(stores, parts.tokenizer, parts.config, seed=0),
            tokens_per_batch=16_384,
            shuffle=False,
        )
        names = parts.config.labels
        answers: list[str] = []
        truths: list[str] = []
        for k in range(batches.num_batches(0)):
            batch = to_device(batches.batch(0, k), parts.device)
            logits = parts.module(batch["ids"], key_mask=batch["key_mask"])
            answers += [names[i] for i in logits.argmax(-1).tolist()]
            truths += [names[i] for i in batch["labels"].tolist()]
            if should_stop() or (quick and len(answers) >= 5000):
                break
        table = score_classes(answers, truths, names)
        per_class = [
            {"label": label, "precision": p, "recall": r, "f1": f, "count": n}
            for label, (p, r, f, n) in table.per_class.items()
        ]
        details = {"per_class": per_class, "confusion": table.confusion, "labels": list(names)}
        return Evaluation(
            {"accuracy": table.accuracy, "macro_f1": table.macro_f1}, None, {} if quick else details
        )
