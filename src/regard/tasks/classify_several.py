"""Classify, where a text has any number of labels: each is a yes or no of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from regard.config import ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import ClassifySeveral
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.tasks.base import (
    Evaluation,
    Parts,
    Stop,
    Stores,
    Values,
    encode_texts,
    label_numbers,
    marks,
    room,
)
from regard.tasks.classify import ClassifyTask
from regard.tasks.metrics import score_several
from regard.training.loss import to_device

__all__ = ["ClassifySeveralTask"]


class ClassifySeveralTask(ClassifyTask):
    """Learn from texts with any number of labels each, which a separator divides in the data.

    A row whose label is the separator alone has none.
    """

    help: ClassVar[str] = "any number of labels for a text"
    metric: ClassVar[str] = "micro_f1"

    def __init__(self, separator: str) -> None:
        if not separator:
            raise ConfigError(
                "the separator of labels is empty; give one that stands between them, such as ';'."
            )
        self.separator = separator

    def split(self, joined: str) -> list[str]:
        """Give the labels of a text, each once, in the data's order."""
        return list(dict.fromkeys(part.strip() for part in joined.split(self.separator) if part.strip()))

    def labels(self, rows: Iterable[Values]) -> tuple[str, ...]:
        """Collect the labels, sorted.

        Raises:
            DataError: there is none, or no row has the separator.
        """
        found, separated = set(), False
        for values in rows:
            separated = separated or self.separator in values["label"]
            found.update(self.split(values["label"]))
        if not separated or not found:
            raise DataError(
                f"the separator {self.separator!r} stands in no label of the data; if every text has one label, leave "
                "--label-separator out."
                if found
                else "no text has a label."
            )
        return tuple(sorted(found))

    def model_changes(self, config: ModelConfig, labels: tuple[str, ...]) -> dict[str, Any]:
        """Ask for a head whose labels don't exclude each other."""
        return {**super().model_changes(config, labels), "multi_label": True}

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write text.tokens and label.tokens, the numbers of each text's labels."""
        numbers = label_numbers(config)
        texts = encode_texts((r["text"] for r in rows), tokenizer, limit=room(tokenizer, config))
        labels = ([numbers(label) for label in self.split(r["label"])] for r in rows)
        return {
            "text": TokenStore.write(folder / "text.tokens", texts, vocab_size=config.vocab_size),
            "label": TokenStore.write(folder / "label.tokens", labels, vocab_size=len(config.labels)),
        }

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give texts between start and end tokens, with a yes or no for each label."""
        bos, eos = marks(tokenizer, config)
        return ClassifySeveral(
            stores["text"], stores["label"], num_labels=len(config.labels), pad=config.pad_id or 0, bos=bos, eos=eos,
        )  # fmt: skip

    @torch.no_grad()
    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give micro and macro F1, the share of texts with all labels right, and precision, recall and F1 of each."""
        objective = self.objective(stores, parts.tokenizer, parts.config, seed=0)
        batches = Batches(objective, tokens_per_batch=16_384, shuffle=False)
        names = parts.config.labels
        answers: list[set[str]] = []
        truths: list[set[str]] = []
        for k in range(batches.num_batches(0)):
            batch = to_device(batches.batch(0, k), parts.device)
            logits = parts.module(batch["ids"], key_mask=batch["key_mask"])
            answers += [{names[i] for i, yes in enumerate(row) if yes} for row in (logits > 0).tolist()]
            truths += [{names[i] for i, yes in enumerate(row) if yes} for row in batch["classes"].tolist()]
            if should_stop() or (quick and len(answers) >= 5000):
                break
        metrics, table = score_several(answers, truths, names)
        per_class = [
            {"label": label, "precision": p, "recall": r, "f1": f, "count": n}
            for label, (p, r, f, n) in table.items()
        ]
        return Evaluation(metrics, None, {} if quick else {"per_class": per_class})
