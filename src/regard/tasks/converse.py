"""Chat, learnt: a decoder learns the answers in conversations, written out by its own chat template."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Converse
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
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
    small_or_large,
)  # fmt: skip
from regard.tasks.held_out import held_out_loss

__all__ = ["ChatTask", "encode_conversation"]


class ChatTask(Task):
    """Learn from conversations; the loss is on the answers only."""

    name: ClassVar[str] = "chat"
    help: ClassVar[str] = "the answers in conversations, by the model's own chat template"
    fields: ClassVar[tuple[str, ...]] = ("messages",)
    kinds: ClassVar[tuple[Kind, ...]] = ("decoder",)
    metric: ClassVar[str] = "nats"
    by_time: ClassVar[dict[str, Any]] = {
        "optimizer": "muon", "lr": 4e-3, "batch_tokens": 2048,
    }  # fmt: skip
    higher_is_better: ClassVar[bool] = False

    def texts(self, values: Values) -> Iterator[str]:
        """Give what was said."""
        for message in values["messages"]:
            if isinstance(message.get("content"), str):
                yield message["content"]

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters."""
        presets = {"small": "generate-tiny", "medium": "generate-small", "large": "generate-medium"}
        return small_or_large(size, presets)

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write text.tokens, and answer.tokens with the first place of each answer and the place after its last."""
        if tokenizer.chat_template is None:
            raise ConfigError(
                "chat needs a model whose tokenizer has a chat template; name one with --from, an instruct model."
            )

        places: list[list[int]] = []  # kept, as writing a conversation out takes long and these are few

        def encoded() -> Iterator[list[int]]:
            lengths = Lengths(config.context)
            for values in rows:
                ids, answers = encode_conversation(tokenizer, values["messages"])
                if lengths.fits(len(ids)):
                    places.append([place for answer in answers for place in answer])
                    yield ids
            lengths.check()

        texts = TokenStore.write(folder / "text.tokens", encoded(), vocab_size=config.vocab_size)
        answers = TokenStore.write(folder / "answer.tokens", iter(places), vocab_size=config.context + 1)
        return {"text": texts, "answer": answers}

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give whole conversations."""
        return Converse(stores["text"], stores["answer"], pad=config.pad_id or 0)

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give the loss in nats a token of the answers, and perplexity."""
        batches = Batches(
            self.objective(stores, parts.tokenizer, parts.config, seed=0),
            tokens_per_batch=8192,
            shuffle=False,
        )
        found = held_out_loss(parts.module, batches, most=16 if quick else None, should_stop=should_stop)
        return Evaluation({"nats": found["nll"], "perplexity": math.exp(min(found["nll"], 700))})


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Write a conversation as ids, and give where in it the assistant speaks: each answer's places [start, end).

    An answer, with what ends it, is what the template adds to the conversation before it, at the place where the
    assistant is to begin.

    Raises:
        DataError: the template refuses the messages, or writes earlier messages differently once there are later
            ones, so that an answer's place isn't known; give such conversations one answer each, at the end.
        CheckpointError: there is no chat template, or a broken one.
    """
    ids = tokenizer.encode_chat(messages, add_generation_prompt=False)
    answers = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.encode_chat(messages[:number], add_generation_prompt=True)
        until = tokenizer.encode_chat(messages[: number + 1], add_generation_prompt=False)
        if ids[: len(until)] != until or until[: len(before)] != before:
            raise DataError(
                f"the chat template writes the messages before answer {number + 1} differently once it is there; give "
                "such conversations one answer each, as the last message."
            )
        answers.append((len(before), len(until)))
    return ids, answers
