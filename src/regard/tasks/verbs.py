"""Which verb a model can do, and which of its ids a text may be made of."""

from __future__ import annotations

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.tasks.base import Parts

_TAKES = {"translate": "an encoder-decoder", "generate": "a decoder with a head over its vocabulary"}


def verb_of(config: ModelConfig) -> str | None:
    """Name the verb that writes text with such a model: translate, generate, or None."""
    if config.head != "lm" or config.kind == "encoder":
        return None
    return "generate" if config.kind == "decoder" else "translate"


def check_verb(config: ModelConfig, verb: str) -> None:
    """Refuse a verb that a model can't do.

    Raises:
        ConfigError: it says what the model is and which verb it can do.
    """
    can = verb_of(config)
    if can == verb:
        return
    kind = f"{'a' if config.kind == 'decoder' else 'an'} {config.kind}"
    head = {"lm": "", "none": " without a head"}.get(config.head, f" that learned to {config.head}")
    instead = f"it can {can}" if can else "it writes no text; evaluate measures it on data"
    raise ConfigError(f"this model is {kind}{head} and can't {verb}, which takes {_TAKES[verb]}; {instead}.")


def ends(parts: Parts) -> tuple[int, ...]:
    """List the ids that end a text: what the model was published with, or its one end token."""
    if parts.published is not None:
        return parts.published.eos
    return () if parts.config.eos_id is None else (parts.config.eos_id,)


def never_written(parts: Parts) -> list[int]:
    """List the ids that no search may choose.

    They are the special tokens but for those that end a text, and what a model has beyond its tokenizer: sentinels and
    rows that only fill its table up.
    """
    tokenizer, size = parts.tokenizer, parts.config.vocab_size
    marks = {i for i in tokenizer.special_ids if i not in ends(parts) and i < size}
    return [*sorted(marks), *range(tokenizer.vocab_size, size)]
