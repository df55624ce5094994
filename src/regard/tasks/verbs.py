"""Which verb a model can do, and which of its ids a text may be made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.tasks.base import Parts


class _Verb(NamedTuple):
    """Say what a verb takes, whether a model is that, and which tasks make a model the right one for the verb."""

    takes: str
    can: Callable[[ModelConfig], bool]
    learned: tuple[str, ...]


_VERBS: dict[str, _Verb] = {
    "translate": _Verb("an encoder-decoder", lambda c: _writes(c, "encoder-decoder"), ("translate",)),
    "generate": _Verb(
        "a decoder with a head over its vocabulary", lambda c: _writes(c, "decoder"), ("generate",)
    ),
    "chat": _Verb("a decoder with a head over its vocabulary", lambda c: _writes(c, "decoder"), ("chat",)),
    "summarize": _Verb("an encoder-decoder", lambda c: _writes(c, "encoder-decoder"), ("summarize",)),
    "classify": _Verb("a model with a head over labels", lambda c: c.head == "classify", ("classify",)),
    "tag": _Verb("a model with a head over tags", lambda c: c.head == "tag", ("tag",)),
    "fill": _Verb("an encoder with a head over its vocabulary", lambda c: _writes(c, "encoder"), ("fill",)),
    "answer": _Verb(
        "a model that marks an answer's start and end (head span)", lambda c: c.head == "span", ("answer",)
    ),
    "score": _Verb("a model with a head over its vocabulary", lambda c: c.head == "lm", ("generate", "fill")),
    "embed": _Verb("any model", lambda c: True, ("embed", "fill")),
}
"""The verbs of a model; its messages list them in this order."""


def _writes(config: ModelConfig, kind: str) -> bool:
    return config.head == "lm" and config.kind == kind


def verbs_of(config: ModelConfig) -> tuple[str, ...]:
    """List the verbs that such a model can do."""
    return tuple(name for name, verb in _VERBS.items() if verb.can(config))


def verb_of(config: ModelConfig) -> str | None:
    """Name the verb that writes text with such a model: translate, generate, or None."""
    return next((verb for verb in ("translate", "generate") if verb in verbs_of(config)), None)


def tasks_for(verb: str) -> tuple[str, ...]:
    """List the tasks of which a model must have learned one to be the right one for a verb."""
    return _VERBS[verb].learned


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
        f"this model is {kind}{head} and can't {verb}, which takes {_VERBS[verb].takes}; {instead}."
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
