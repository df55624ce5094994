"""Tag: a label for every word, names and their kinds for instance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Tag
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import DataError
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Lengths,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    label_numbers,
    need,
    small_or_large,
)  # fmt: skip
from regard.tasks.metrics import score_spans
from regard.training.loss import IGNORED, to_device


class TagTask(Task):
    """Learn from sentences of words with a tag each."""

    name: ClassVar[str] = "tag"
    help: ClassVar[str] = "a tag for every word (names, parts of speech)"
    fields: ClassVar[tuple[str, ...]] = ("words", "tags")
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder", "decoder")
    metric: ClassVar[str] = "f1"

    def texts(self, values: Values) -> Iterator[str]:
        """Give the sentence."""
        yield " ".join(values["words"])

    def labels(self, rows: Iterable[Values]) -> tuple[str, ...]:
        """Collect the tags, sorted."""
        found = sorted({tag for values in rows for tag in values["tags"]})
        if len(found) < 2:
            raise DataError(
                f"every word has the tag {found[0]!r}; there must be at least two to learn a difference."
            )
        return tuple(found)

    def model_changes(self, config: ModelConfig, labels: tuple[str, ...]) -> dict[str, Any]:
        """Ask for a head over the tags."""
        return {"head": "tag", "labels": labels, "head_transform": False}

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        presets = {"small": "encoder-tiny", "medium": "encoder-tiny", "large": "encoder-small"}
        return small_or_large(size, presets, context=512, batch_tokens=2048)

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write text.tokens, word.tokens (the number of each token's word) and tag.tokens (each word's tag)."""
        numbers = label_numbers(config)
        room = config.context - 2

        def encoded() -> Iterator[tuple[list[int], list[int]]]:
            lengths = Lengths(room)
            for values in rows:
                ids, words = tokenizer.encode_words(values["words"])
                if lengths.fits(len(ids)):
                    yield ids, words
            lengths.check()

        tags = ([numbers(tag) for tag in values["tags"]] for values in rows)
        return {
            "text": TokenStore.write(
                folder / "text.tokens", (ids for ids, _ in encoded()), vocab_size=config.vocab_size
            ),
            "word": TokenStore.write(
                folder / "word.tokens", (words for _, words in encoded()), vocab_size=config.context
            ),
            "tag": TokenStore.write(folder / "tag.tokens", tags, vocab_size=len(config.labels)),
        }

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give sentences between start and end tokens, a tag on the first token of each word."""
        return Tag(
            stores["text"],
            stores["word"],
            stores["tag"],
            pad=need(config.pad_id, "pad_id"),
            bos=config.bos_id,
            eos=config.eos_id,
        )

    @torch.no_grad()
    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give precision, recall and F1 of whole spans, and the share of right tags."""
        batches = Batches(
            self.objective(stores, parts.tokenizer, parts.config, seed=0),
            tokens_per_batch=16_384,
            shuffle=False,
        )
        names = parts.config.labels
        answers: list[list[str]] = []
        truths: list[list[str]] = []
        for k in range(batches.num_batches(0)):
            batch = to_device(batches.batch(0, k), parts.device)
            best = parts.module(batch["ids"], key_mask=batch["key_mask"]).argmax(-1)
            for row, labels in zip(best, batch["labels"], strict=True):
                first = labels != IGNORED
                answers.append([names[i] for i in row[first].tolist()])
                truths.append([names[i] for i in labels[first].tolist()])
            if should_stop() or (quick and len(answers) >= 5000):
                break
        precision, recall, f1 = score_spans(answers, truths)
        pairs = [(a, t) for x, y in zip(answers, truths, strict=True) for a, t in zip(x, y, strict=True)]
        accuracy = sum(a == t for a, t in pairs) / max(1, len(pairs))
        return Evaluation({"f1": f1, "precision": precision, "recall": recall, "accuracy": accuracy})
