"""Texts on their way into a model: framed as it expects them, cut into windows only where asked for, and batched.

texts ─> encode, frame ─> Input, one a window ─> batches of like lengths ─> results in the texts' order
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.config import ModelConfig
from regard.errors import ConfigError, DataError
from regard.tasks.base import Parts

__all__ = ["Batch", "Input", "batches", "check_lengths", "make_inputs", "refuse_long"]


@dataclass(frozen=True)
class Input:
    """Hold one window of one text, framed.

    Attributes:
        text: which text it is of, counted from 0.
        ids: tokens with the special ones around them.
        segments: 0, or 1 in the second text of a pair where the model tells them apart.
        start: the place in `ids` of the window's first own token.
        first: which of the text's tokens that is.
        count: how many of the text's tokens the window holds.
        total: how many tokens the whole text has, those around it included.
    """

    text: int
    ids: tuple[int, ...]
    segments: tuple[int, ...]
    start: int
    first: int
    count: int
    total: int


@dataclass(frozen=True)
class Batch:
    """Hold windows side by side, padded on the right.

    Attributes:
        inputs: what they are, in the batch's order.
        ids: (B, T).
        mask: (B, T), True where a token is real.
        segments: (B, T); None where the model has none.
    """

    inputs: tuple[Input, ...]
    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    segments: Int[Tensor, "B T"] | None


def make_inputs(
    parts: Parts, encoded: Sequence[Sequence[int]], *, pairs: Sequence[Sequence[int]] | None = None,
    windows: bool = False,
) -> list[Input]:  # fmt: skip
    """Frame encoded texts, or the texts each with its pair (the text is what may be cut, the pair comes first).

    Args:
        parts: the model and its tokenizer.
        encoded: ids of each text, without special tokens.
        pairs: ids that stand before each text in a pair: a question, before the passage with its answer.
        windows: cut a text that is too long into windows that overlap by half; else it is given whole, as too long.

    Raises:
        ConfigError: a pair leaves no room for a text.
    """
    inputs = []
    for number, ids in enumerate(encoded):
        before = None if pairs is None else pairs[number]
        around = len(_frame(parts, [], before)[0])
        room = parts.config.context - around
        total = len(ids) + around
        if not windows or len(ids) <= room:
            spans = [(0, len(ids))]
        elif room < 2:
            raise ConfigError(
                f"text {number + 1} has no room beside its pair in a context of {parts.config.context}."
            )
        else:
            last = len(ids) - room
            spans = [(at, at + room) for at in (*range(0, last, room - room // 2), last)]
        for begin, end in spans:
            framed, segments, start = _frame(parts, ids[begin:end], before)
            inputs.append(Input(number, tuple(framed), tuple(segments), start, begin, end - begin, total))
    return inputs


def check_lengths(inputs: Sequence[Input], config: ModelConfig) -> dict[int, str]:
    """Find the texts that are longer than the context: the number of each, and what is wrong with it."""
    return {
        one.text: f"has {len(one.ids)} tokens; this model's context is {config.context}. "
        "Shorten it, or read it in windows (--windows)."
        for one in inputs
        if len(one.ids) > config.context
    }


def refuse_long(inputs: Sequence[Input], config: ModelConfig, texts: Sequence[str]) -> None:
    """Refuse texts that are longer than the context.

    Raises:
        DataError: the first of them, with its beginning and its length.
    """
    for number, problem in check_lengths(inputs, config).items():
        beginning = texts[number] if len(texts[number]) <= 40 else texts[number][:39] + "…"
        raise DataError(f"text {number + 1} ({beginning!r}) {problem}")


def batches(parts: Parts, inputs: Sequence[Input], *, batch_tokens: int = 8192) -> Iterator[Batch]:
    """Put windows of like lengths side by side, so that little padding is computed; the longest come first."""
    order = sorted(range(len(inputs)), key=lambda i: (-len(inputs[i].ids), i))
    while order:
        width = len(inputs[order[0]].ids)
        size = max(1, batch_tokens // max(1, width))
        group, order = order[:size], order[size:]
        chosen = tuple(inputs[i] for i in group)
        pad = parts.config.pad_id or 0
        ids = torch.tensor(
            [[*one.ids, *[pad] * (width - len(one.ids))] for one in chosen], device=parts.device
        )
        lengths = torch.tensor([len(one.ids) for one in chosen], device=parts.device)
        mask = torch.arange(width, device=parts.device) < lengths[:, None]
        segments = None
        if parts.config.num_segments > 1:
            rows = [[*one.segments, *[0] * (width - len(one.segments))] for one in chosen]
            segments = torch.tensor(rows, device=parts.device)
        yield Batch(chosen, ids, mask, segments)


def _frame(
    parts: Parts, ids: Sequence[int], before: Sequence[int] | None
) -> tuple[list[int], list[int], int]:
    """Put special tokens around a text and give its place; a tokenizer without a frame has the model's own."""
    tokenizer, config = parts.tokenizer, parts.config
    if tokenizer.frames:
        if before is None:
            framed, segments = tokenizer.frame(ids)
            start = _start(tokenizer.frame([])[0], framed, len(ids))
        else:
            framed, segments = tokenizer.frame(before, list(ids))
            start = _start(tokenizer.frame(before, [])[0], framed, len(ids))
        return framed, segments, start
    bos = [] if config.bos_id is None else [config.bos_id]
    eos = [] if config.eos_id is None else [config.eos_id]
    head = bos if before is None else [*bos, *before, *eos]
    framed = [*head, *ids, *eos]
    return framed, [0] * len(framed), len(head)


def _start(empty: Sequence[int], framed: Sequence[int], count: int) -> int:
    """Find where a text stands in its frame, from the frame with nothing in it."""
    for start in range(len(empty) + 1):
        if list(framed[:start]) == list(empty[:start]) and list(framed[start + count :]) == list(
            empty[start:]
        ):
            return start
    raise AssertionError("a frame that depends on its text")
