"""Name an answer of a model in words, so that it can be explained: which row gives it, and which id or label it is."""

from __future__ import annotations

import torch

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, suggest
from regard.look.attribution import Instead
from regard.look.flow import Read, Target
from regard.tasks.base import Parts

__all__ = ["absent_token", "target_of"]


def target_of(
    parts: Parts,
    reading: Read,
    at: int | str | None = None,
    answer: int | str | None = None,
    *,
    log: bool = True,
    target_tokenizer: Tokenizer | None = None,
) -> Target:
    """Find the answer that is meant.

    Args:
        parts: a model and its tokenizer.
        reading: the text, from `regard.tasks.looking.read`.
        at: a word or a token's number, of an encoder-decoder in its target. What writes tells that token one row
            before, by default what comes after the text; a masked encoder, a tag or a span answers at the token itself.
            A class is of the whole text.
        answer: a text of one token or its id, a label or its number, "start" or "end" of a span. None: what stands
            there, where a word is told; else what the model thinks likeliest.
        log: explain the log-probability instead of the logit.
        target_tokenizer: the targets', where it is another one.

    Raises:
        ConfigError: there is no such word or answer, or nothing stands before the word.
    """
    config = parts.config
    side = reading.sides["target" if "target" in reading.sides else "text"]
    if config.head == "none":
        raise ConfigError("this model has no head: it gives no answer that could be explained.")
    if config.head == "classify" and at is not None:
        raise ConfigError("a class is of the whole text; leave `at` out.")
    if at is None and config.head in ("tag", "span"):
        raise ConfigError(f"a {config.head} is at a token; say at which.")
    tells = config.head == "lm" and config.kind != "encoder"
    if at is None and config.head == "lm" and not tells:
        masks = [i for i, token in enumerate(side.ids) if token == parts.tokenizer.mask_id]
        if len(masks) != 1:
            raise ConfigError(f"the text has {len(masks)} masks; say at which token the answer stands.")
        at = masks[0]
    word = None if at is None else side.find(at)
    row = len(side.ids) - 1 if word is None else word.start - 1 if tells else word.start
    if row < 0:
        raise ConfigError(f"nothing stands before {at!r}, from which it could be told.")
    if answer is None and tells and word is not None:
        answer = side.ids[word.start]
    if answer is None and config.head == "span":
        raise ConfigError("say whether the answer's 'start' or its 'end' is meant.")
    if answer is None:
        with torch.inference_mode():
            answer = Target(0, row).likeliest(parts.module, reading.run(parts.module))
    if isinstance(answer, str):
        answer = _number(parts, answer, target_tokenizer)
    return Target(answer, row, log)


def absent_token(parts: Parts) -> Instead:
    """Say what may stand for an absent token: in an encoder its tokenizer's mask, else what pads."""
    if parts.config.kind == "encoder" and parts.tokenizer.mask_id is not None:
        return Instead("replace", parts.tokenizer.mask_id)
    return Instead("zero" if parts.config.pad_id is None else "replace")


def _number(parts: Parts, answer: str, target_tokenizer: Tokenizer | None) -> int:
    config = parts.config
    if config.head == "lm":
        tokenizer = target_tokenizer or parts.tokenizer
        ids = tokenizer.encode_part(answer, first=False)
        if len(ids) != 1:
            raise ConfigError(f"{answer!r} is {len(ids)} tokens; give one, with its space if it has one.")
        return ids[0]
    names = ("start", "end") if config.head == "span" else config.labels
    if answer not in names:
        raise ConfigError(f"{answer!r} is not one of {', '.join(names)}. {suggest(answer, names)}".strip())
    return names.index(answer)
