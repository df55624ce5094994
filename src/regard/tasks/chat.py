"""Chat: a decoder answers the last message of a conversation, written out by its own chat template."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError, RegardError
from regard.generate.config import SearchConfig, check_count
from regard.tasks.base import Parts
from regard.tasks.generate import check_stops, sampling
from regard.tasks.verbs import check_verb, ends
from regard.tasks.writing import Row, Way, Writer, write_window

__all__ = ["Reply", "chat", "with_template"]

Message = Mapping[str, Any]

_MOST = 1024  # tokens of a reply, where neither the user nor the model says how many


@dataclass(frozen=True)
class Reply:
    """Hold what a model answered.

    Attributes:
        text: the reply, without the token that ends the turn and without the stop string.
        score: log-probability of its tokens in nats, before temperature and filters.
        prompt_tokens: how many tokens the conversation took, as far as it was read.
        tokens: how many tokens were written.
        finished: True where the model ended its turn or a stop string did, False where the limit did.
        dropped: how many of the oldest messages were left out for want of room; a system message never is.
    """

    text: str
    score: float
    prompt_tokens: int
    tokens: int
    finished: bool
    dropped: int = 0

    def __str__(self) -> str:
        return self.text


def chat(
    parts: Parts,
    messages: str | Sequence[Message],
    *,
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    on_text: Callable[[str], None] | None = None,
    **choice: Any,
) -> Reply:
    """Answer a conversation.

    What stands in a message is text: a user who types the name of a special token has typed its characters. Where the
    conversation outgrows the context, its oldest turns are left out, and `dropped` says how many messages they were.

    Args:
        parts: a decoder and a tokenizer with a chat template.
        messages: mappings with `role` and `content`, the newest last; or one user's message as text.
        template: a Jinja chat template instead of the tokenizer's own.
        variables: more values for the template (`enable_thinking`).
        max_tokens: the longest reply; None: what the model was published with, or 1024; within the context.
        stop: strings that end the reply; they are left out of it.
        on_text: told each new piece of the reply as it is written.
        choice: how tokens are chosen, as for `regard.tasks.generate.generate`, one text at a time.

    Raises:
        ConfigError: the model is no decoder or has no chat template, or a setting is out of range.
        DataError: the template refuses the messages, or the last turn alone leaves no room for a reply.
        CheckpointError: the template is broken.
    """
    config = parts.config
    check_verb(config, "chat")
    check_stops(stop)
    tokenizer = with_template(parts.tokenizer, template)
    if max_tokens is None:
        said = None if parts.published is None else parts.published.config.max_tokens
        # A file that says nothing of new tokens has SearchConfig's number.
        max_tokens = min(_MOST, config.context) if said in (None, SearchConfig().max_tokens) else said
    check_count("max_tokens", max_tokens, low=1, high=100_000_000)
    settings = sampling(parts, max_tokens=max_tokens, **choice)
    if settings.num_beams > 1 or settings.num_return > 1:
        raise ConfigError("chat writes one reply, word by word; leave num_beams and num_return out.")
    talk: list[Message] = (
        [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    )
    if not talk:
        raise DataError("there is no message to answer; give at least one.")
    ids, dropped = _fitting(tokenizer, talk, variables, config.context, max_tokens)
    writer = Writer(tokenizer, stop, on_text)
    row = Row(0, "", ids, min(max_tokens, config.context - len(ids) + 1), writer)
    published = None if parts.published is None else replace(parts.published, first=None, last=())
    way = Way(
        settings,
        (*ends(parts), *_turn_ends(tokenizer, ends(parts), variables)),
        lambda length: [] if published is None else published.transforms(settings, length),
    )
    write_window(parts, [row], way)
    finished = row.close()
    return Reply(writer.text, row.score, len(ids), row.tokens, finished, dropped)


def with_template(tokenizer: Tokenizer, template: str | None = None) -> Tokenizer:
    """Give a tokenizer with this chat template, or with its own.

    Raises:
        ConfigError: there is neither.
    """
    if template is not None:
        tokenizer = copy.copy(tokenizer)
        tokenizer.chat_template = template
    if tokenizer.chat_template is None:
        raise ConfigError(
            "this model has no chat template, so it was not made for conversations; give one with --template FILE, or "
            "continue plain text with generate."
        )
    return tokenizer


def _fitting(
    tokenizer: Tokenizer, talk: list[Message], variables: Mapping[str, Any] | None, context: int, most: int
) -> tuple[list[int], int]:
    """Encode a conversation without the oldest turns, where they leave too little room for a reply."""
    room = min(most, max(1, context // 4))
    limit = context - room + 1
    kept = [message for message in talk if message.get("role") == "system"][:1] if _has_system(talk) else []
    turns = talk[len(kept) :]
    dropped = 0
    while True:
        ids = tokenizer.encode_chat([*kept, *turns[dropped:]], variables=variables)
        if len(ids) <= limit:
            return ids, dropped
        # A conversation must not begin in the middle of a turn: the next one begins with a user's message.
        later = (i for i in range(dropped + 1, len(turns)) if turns[i].get("role") == "user")
        following = next(later, None)
        if following is None:
            what = "the last message and the system message take" if kept else "the last message takes"
            if len(ids) <= context:
                return ids, dropped
            raise DataError(
                f"{what} {len(ids)} tokens; this model's context is {context}, the reply included. Shorten it."
            )
        dropped = following


def _has_system(talk: list[Message]) -> bool:
    return talk[0].get("role") == "system"


def _turn_ends(
    tokenizer: Tokenizer, known: Sequence[int], variables: Mapping[str, Any] | None
) -> tuple[int, ...]:
    """Find the special token that the template puts behind an assistant's message, where no file names it."""
    ask: list[Message] = [{"role": "user", "content": "a"}]
    try:
        before = tokenizer.encode_chat(ask, variables=variables)
        whole = tokenizer.encode_chat(
            [*ask, {"role": "assistant", "content": "a"}], add_generation_prompt=False, variables=variables
        )
    except RegardError:  # a template may want other turns than these
        return ()
    if whole[: len(before)] != before:
        return ()
    after = next((token for token in whole[len(before) :] if token in tokenizer.special_ids), None)
    return () if after is None or after in known else (after,)
