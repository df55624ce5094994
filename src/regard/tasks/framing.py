"""What the verbs that read texts share: how a text stands in its model, its states, its tokens' best windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from regard.errors import DataError
from regard.tasks.base import Parts
from regard.tasks.inputs import Batch, Input

__all__ = ["as_trained", "best_windows", "margin", "opening", "refuse", "states"]


def as_trained(parts: Parts) -> Parts:
    """Give parts whose `make_inputs` frames a text as it stood in training, where the tokenizer has no frame.

    An encoder of ours has its texts between bos and eos. An encoder-decoder's sources only end, with eos. A decoder of
    ours has an end token before each text; a published decoder without a frame reads the bare text (GPT-2). Such a
    `config` is for the framing alone: the network stays what it is.
    """
    config = parts.config
    if parts.tokenizer.frames or config.kind == "encoder":
        return parts
    if config.kind == "encoder-decoder":
        return replace(parts, config=config.replace(bos_id=None, start_id=config.start))
    before = config.eos_id if parts.published is None else None
    return replace(parts, config=config.replace(bos_id=before, eos_id=None))


def opening(parts: Parts) -> list[int]:
    """Give what stands before a text that a decoder scores.

    The beginning of the tokenizer's frame; without one the end token of a model of ours, which stood before each text
    in training, or a published model's bos. Empty where there is none.
    """
    tokenizer, config = parts.tokenizer, parts.config
    if tokenizer.frames:
        before, after = tokenizer.frame([])[0], tokenizer.frame([0])[0]
        count = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
        return before[:count]
    one = config.eos_id if parts.published is None else config.bos_id
    return [] if one is None else [one]


def states(parts: Parts, batch: Batch) -> Float[Tensor, "B T D"]:
    """Give the final states of a batch; of an encoder-decoder, its encoder's."""
    module: Any = parts.module
    if parts.config.kind == "encoder-decoder":
        return module.encode(batch.ids, batch.mask)
    return module.hidden(batch.ids, key_mask=batch.mask, segments=batch.segments)


def margin(one: Input, token: int) -> float:
    """Count how many of the text's tokens stand between a token and the nearer place where its window was cut.

    Args:
        one: the window.
        token: which of the text's tokens, counted from 0; the window holds it.
    """
    whole = one.total - (len(one.ids) - one.count)
    left = float("inf") if one.first == 0 else token - one.first
    right = float("inf") if one.first + one.count == whole else one.first + one.count - 1 - token
    return min(left, right)


def best_windows(inputs: Sequence[Input], token: int) -> int:
    """Give the place, in the windows of one text, of the one in which a token stands farthest from a cut."""
    holding = [i for i, one in enumerate(inputs) if one.first <= token < one.first + one.count]
    return max(holding, key=lambda i: (margin(inputs[i], token), -i))


def refuse(problems: Mapping[int, str], texts: Sequence[str], *, before: int = 0, what: str = "text") -> None:
    """Refuse texts that a verb can't do; `before` texts were done earlier.

    Raises:
        DataError: the first of them, with its beginning and what is wrong with it.
    """
    for number in sorted(problems):
        text = texts[number]
        beginning = text if len(text) <= 40 else text[:39] + "…"
        raise DataError(f"{what} {before + number + 1} ({beginning!r}) {problems[number]}")
