"""Which verb a model can do, and which of its ids a text may be made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.tasks.base import Parts

_VERBS: dict[str, tuple[str, Callable[[ModelConfig], bool]]] = {
    "translate": ("an encoder-decoder", lambda c: _writes(c, "encoder-decoder")),
    "generate": ("a decoder with a head over its vocabulary", lambda c: _writes(c, "decoder")),
    "chat": ("a decoder with a head over its vocabulary", lambda c: _writes(c, "decoder")),
    "summarize": ("an encoder-decoder", lambda c: _writes(c, "encoder-decoder")),
    "classify": ("a model with a head over labels", lambda c: c.head == "classify"),
    "tag": ("a model with a head over tags", lambda c: c.head == "tag"),
    "fill": ("an encoder with a head over its vocabulary", lambda c: _writes(c, "encoder")),
    "answer": ("a model that marks an answer's start and end (head span)", lambda c: c.head == "span"),
    "score": ("a model with a head over its vocabulary", lambda c: c.head == "lm"),
    "embed": ("any model", lambda c: True),
}
"""What each verb takes, and whether a model is that; a model's messages list its verbs in this order."""


def _writes(config: ModelConfig, kind: str) -> bool:
    return config.head == "lm" and config.kind == kind


def verbs_of(config: ModelConfig) -> tuple[str, ...]:
    """List the verbs that such a model can do."""
    return tuple(verb for verb, (_, can) in _VERBS.items() if can(config))


def verb_of(config: ModelConfig) -> str | None:
    """Name the verb that writes text with such a model: translate, generate, or None."""
    return next((verb for verb in ("translate", "generate") if verb in verbs_of(config)), None)


def check_verb(config: ModelConfig, verb: str) -> None:
    """Refuse a verb that a model can't do.

    Raises:
        ConfigError: it says what the model is and which verbs it can do.
    """
    can = verbs_of(config)
    if verb in can:
        return
    kind = f"{'a' if config.kind == 'decoder' else 'an'} {config.kind}"
    head = {"lm": "", "none": " without a head", "span": " that finds answers"}.get(
        config.head, f" that learned to {config.head}"
    )
    instead = f"it can {', '.join(can[:-1])} and {can[-1]}" if len(can) > 1 else f"it can {can[0]}"
    raise ConfigError(
        f"this model is {kind}{head} and can't {verb}, which takes {_VERBS[verb][0]}; {instead}."
    )


def ends(parts: Parts) -> tuple[int, ...]:
    """List the ids that end a text: what the model was published with, or its one end token."""
    if parts.published is not None:
        return parts.published.eos
    return () if parts.config.eos_id is None else (parts.config.eos_id,)


def never_written(parts: Parts, closing: Sequence[int] | None = None) -> list[int]:
    """List the ids that no search may choose.

    They are the special tokens but for those that end a text (`closing`; None: those of `ends`), and what a model has
    beyond its tokenizer: sentinels and rows that only fill its table up.
    """
    tokenizer, size = parts.tokenizer, parts.config.vocab_size
    kept = ends(parts) if closing is None else closing
    marks = {i for i in tokenizer.special_ids if i not in kept and i < size}
    return [*sorted(marks), *range(tokenizer.vocab_size, size)]
