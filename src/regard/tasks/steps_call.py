"""One call of a verb that writes, checked before any work; the same call again, with other settings."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regard.errors import ConfigError, suggest
from regard.generate.config import SearchConfig, check_count
from regard.generate.published import Published, TaskSettings
from regard.tasks.base import Parts
from regard.tasks.chat import chat
from regard.tasks.generate import generate
from regard.tasks.steps_tree import shown
from regard.tasks.summarize import summarize
from regard.tasks.translate import as_published, encode_sources, frame_languages, prefixed, translate
from regard.tasks.verbs import check_verb
from regard.tasks.writing import Writer

__all__ = ["TOKENS", "Call", "Piece", "check_settings"]

TOKENS = 200
"""Of a continuation, where nobody says how many."""
_SEED_BITS = 32  # of a seed that is drawn here: every reader's numbers can hold it
_READERS = ("translate", "summarize")
_VERBS = (*_READERS, "generate", "chat")
# The settings, with the values at which they do nothing.
_LENGTH = {"beams": 1, "length_penalty": None, "max_tokens": None}
_LANGUAGES = {"source_language": None, "target_language": None}
_SAMPLING = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": None}
_KNOWN = {**_LENGTH, **_LANGUAGES, **_SAMPLING}


@dataclass(frozen=True)
class Piece:
    """Name a token of a prompt or source, and its characters in the text: none for what stands around it."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """Be one call of a verb.

    Attributes:
        seed: of a sample; None where nothing is drawn.
    """

    parts: Parts
    verb: str
    text: Any
    settings: Mapping[str, Any]
    seed: int | None

    @staticmethod
    def of(
        parts: Parts, verb: str, text: Any, settings: Mapping[str, Any], kept: Sequence[int]
    ) -> Call:  # fmt: skip
        """Check what is asked against the model."""
        given = check_settings(verb, settings)
        check_verb(parts.config, verb)
        if not isinstance(text, str) and verb != "chat":
            raise ConfigError(f"{verb} takes one text; messages are for chat.")
        _check_kept(parts, kept, given.get("max_tokens", TOKENS if verb == "generate" else None))
        sampled = verb not in _READERS and given["beams"] == 1 and given.get("temperature") != 0
        seed = given.get("seed", secrets.randbits(_SEED_BITS)) if sampled else None
        return Call(_ungrouped(parts) if given["beams"] == 1 else parts, verb, text, given, seed)

    @property
    def beams(self) -> int:
        """Count the hypotheses of the search."""
        return int(self.settings["beams"])

    @property
    def reads(self) -> bool:
        """Tell whether there is a source that the text is written from, and not a prompt that it continues."""
        return self.verb in _READERS

    def greedy(self) -> Call:
        """Give the call that takes the likeliest tokens."""
        settings = {name: value for name, value in self.settings.items() if name not in _SAMPLING}
        settings["beams"] = 1
        if not self.reads:
            settings["temperature"] = 0.0
        return replace(self, parts=_ungrouped(self.parts), settings=settings, seed=None)

    def __call__(self) -> Any:
        """Let the verb write."""
        given = dict(self.settings)
        if self.reads:
            for name in _SAMPLING:
                given.pop(name, None)
            if self.verb == "translate":
                return translate(self.parts, [self.text], **given)[0]
            return summarize(self.parts, [self.text], **given)[0]
        if self.seed is not None:
            given["seed"] = self.seed
        given["num_beams"] = given.pop("beams")
        if self.verb == "chat":
            return chat(self.parts, self.text, **given)
        return generate(self.parts, [self.text], **{"max_tokens": TOKENS, **given})[0]

    def decode(self, ids: Sequence[int], prompt: Sequence[int]) -> str:
        """Give the text of ids as the verb would."""
        if self.verb == "generate":
            return Writer(self.parts.tokenizer, (), None, prompt).decode(ids)
        text = self.parts.tokenizer.decode(ids)
        return text.strip() if self.verb == "summarize" else text

    def source(self) -> list[int]:
        """Give the source's ids, with what stands around it."""
        return encode_sources(self.parts, prefixed([self.text], self._prefix()), self._language())[0]

    def pieces(self, ids: Sequence[int]) -> tuple[Piece, ...]:
        """Name the tokens of the source or prompt."""
        tokenizer = self.parts.tokenizer
        if self.verb == "chat":
            return tuple(Piece(shown(tokenizer, i), 0, 0) for i in ids)
        before = self._prefix() if self.reads else ""
        own, spans = tokenizer.offsets(before + self.text)
        size = len(own)
        first = next((k for k in range(len(ids) - size + 1) if list(ids[k : k + size]) == own), 0)
        places = {first + k: span for k, span in enumerate(spans)}
        pieces = []
        for k, token in enumerate(ids):
            start, end = (max(0, at - len(before)) for at in places.get(k, (0, 0)))
            pieces.append(Piece(self.text[start:end] or shown(tokenizer, token), start, end))
        return tuple(pieces)

    def _prefix(self) -> str:
        if self.verb == "translate":
            given = self.settings
            return as_published(self.parts, given.get("source_language"), given.get("target_language"))[1]
        task = None if self.parts.published is None else self.parts.published.task("summarization")
        return "" if task is None else task.prefix

    def _language(self) -> str | None:
        target = self.settings.get("target_language")
        if self.verb != "translate" or self._prefix():
            return None
        source: str | None = self.settings.get("source_language")
        return source if target is None else frame_languages(self.parts.tokenizer, source, target)[0]


def check_settings(verb: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings that say something, after all that can be checked without a model.

    Raises:
        ConfigError: no such verb or setting, a value out of range, or one that would be ignored.
    """
    if verb not in _VERBS:
        raise ConfigError(f"{verb!r} doesn't write; give one of {', '.join(_VERBS)}.")
    for name in settings:
        if name not in _KNOWN:
            raise ConfigError(f"writing has no setting {name!r}. {suggest(name, _KNOWN)}".strip())
    given = {name: value for name, value in settings.items() if value is not None}
    if verb != "translate":
        _refuse(given, _LANGUAGES, verb)
    if verb in _READERS:
        _refuse(given, {name: off for name, off in _SAMPLING.items() if name != "seed"}, verb)
    check_count("beams", given.setdefault("beams", 1), low=1, high=10_000)
    if verb == "chat" and given["beams"] > 1:
        raise ConfigError(f"beams={given['beams']}: chat writes one reply, word by word; leave beams out.")
    own = {name: given[name] for name in (*_LENGTH, *_SAMPLING) if name in given and name != "beams"}
    if "temperature" not in own:  # a sample, at a temperature that the model says
        own["temperature"] = 0.0 if verb in _READERS or given["beams"] > 1 else 1.0
    SearchConfig(num_beams=given["beams"], **own)
    return given


def _ungrouped(parts: Parts) -> Parts:
    """Give the parts for a search of one row, in which a model that was published with groups of beams has none."""

    def alone(own: Published) -> Published:
        plain = replace(own.config, num_beams=1, num_return=1, beam_groups=1, diversity_penalty=0.0)
        return replace(own, config=plain, task=task)

    def task(name: str) -> TaskSettings | None:
        found = None if parts.published is None else parts.published.task(name)
        return None if found is None else replace(found, published=alone(found.published))

    return parts if parts.published is None else replace(parts, published=alone(parts.published))


def _refuse(given: Mapping[str, Any], off: Mapping[str, Any], verb: str) -> None:
    """Refuse settings that a verb would ignore."""
    for name, value in off.items():
        if given.get(name, value) != value:
            raise ConfigError(f"{name}={given[name]!r} has no effect: {verb} has no such setting.")


def _check_kept(parts: Parts, kept: Sequence[int], most: int | None) -> None:
    size = min(parts.config.vocab_size, parts.tokenizer.vocab_size)
    for token in kept:
        check_count("a kept token", token, low=0, high=size - 1)
    if most is not None and isinstance(most, int) and len(kept) > most:
        raise ConfigError(f"{len(kept)} tokens are kept, and max_tokens={most}; raise it or keep fewer.")
