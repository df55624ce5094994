"""Frame the ids of a text with the special tokens that its model expects: `[CLS]` text `[SEP]`.

The frame is kept where the `tokenizers` library keeps it, in the post-processor, so that a saved
tokenizer.json has it too. Here it is read from there and applied to ids, after the text has been encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regard.errors import CheckpointError, ConfigError, suggest

__all__ = ["Frame", "SpecialToken", "read_frame"]

# mBART's en_XX, NLLB's eng_Latn, M2M's __en__, Marian's >>eng<<
LANGUAGE = re.compile(r"[a-z]{2,3}_([A-Z]{2}|[A-Z][a-z]{3})|__[a-z]{2,3}__|>>[^<>\s]+<<")
Part = tuple[int | str, int]  # an id, or "A" or "B"; and its segment


@dataclass(frozen=True)
class SpecialToken:
    """Hold a special token's id, and whether it takes the space on its left or right with it."""

    id: int
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class Frame:
    """Hold what stands around a text, and around a pair of texts.

    single, pair
        The parts in order: special ids and the letters A and B for the texts, each with its segment.
    languages
        The ids of the language codes by their names, for models whose frame holds one.
    """

    single: tuple[Part, ...] = (("A", 0),)
    pair: tuple[Part, ...] = (("A", 0), ("B", 1))
    languages: Mapping[str, int] = field(default_factory=dict)

    @property
    def adds(self) -> bool:
        """Whether it adds anything to a text."""
        return len(self.single) > 1

    def around(
        self, ids: Sequence[int], pair: Sequence[int] | None, language: str | None
    ) -> tuple[list[int], list[int]]:
        """Give the framed ids and the segment of each. Raises ConfigError for a language that can't be."""
        parts = self.single if pair is None else self.pair
        if language is not None:
            parts = self._in_language(parts, language)
        texts = {"A": ids, "B": pair if pair is not None else ()}
        framed: list[int] = []
        segments: list[int] = []
        for what, segment in parts:
            piece = texts[what] if isinstance(what, str) else (what,)
            framed += piece
            segments += [segment] * len(piece)
        return framed, segments

    def _in_language(self, parts: tuple[Part, ...], language: str) -> tuple[Part, ...]:
        if not self.languages:
            raise ConfigError(
                f"language={language!r} has no effect: this tokenizer has no language codes; leave it out"
            )
        index = self.languages.get(language, self.languages.get(f">>{language}<<"))
        if index is None:
            hint = suggest(language, self.languages)
            some = ", ".join(sorted(self.languages)[:5])
            raise ConfigError(
                f"language={language!r} is not one of this tokenizer's {len(self.languages)} codes, such as "
                f"{some}; {hint}".rstrip("; ")
            )
        known = set(self.languages.values())
        if any(what in known for what, _ in parts):
            return tuple((index if what in known else what, segment) for what, segment in parts)
        return ((index, 0), *parts)


def read_frame(state: Mapping[str, Any], specials: Mapping[str, int], vocab_size: int) -> Frame:
    """Read the frame from a tokenizer.json's content.

    specials: the ids of the special tokens by name, among which the language codes are found. Raises
    CheckpointError for a post-processor that can't be read or that adds ids outside the vocabulary.
    """
    languages = {name: index for name, index in specials.items() if LANGUAGE.fullmatch(name)}
    found = [part for part in _flat(state.get("post_processor")) if part.get("type") != "ByteLevel"]
    if not found:
        return Frame(languages=languages)
    if len(found) > 1:
        raise CheckpointError("tokenizer.json frames its texts twice (post_processor); only one is supported")
    try:
        frame = _one(found[0], languages)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"tokenizer.json: its post_processor {str(found[0].get('type'))[:40]!r} can't be read ({error!r})"
        ) from error
    for what, _ in (*frame.single, *frame.pair):
        if isinstance(what, int) and not 0 <= what < vocab_size:
            raise CheckpointError(
                f"tokenizer.json: its post_processor adds id {what}, but ids run from 0 to {vocab_size - 1}"
            )
    return frame


def _flat(part: Any) -> list[Mapping[str, Any]]:
    if not isinstance(part, dict):
        return []
    if part.get("type") == "Sequence":
        return [inner for piece in part.get("processors", []) for inner in _flat(piece)]
    return [part]


def _one(part: Mapping[str, Any], languages: Mapping[str, int]) -> Frame:
    if part["type"] == "TemplateProcessing":
        tokens = part["special_tokens"]
        return Frame(_template(part["single"], tokens), _template(part["pair"], tokens), languages)
    first, last = int(part["cls"][1]), int(part["sep"][1])
    if part["type"] == "BertProcessing":
        single: tuple[Part, ...] = ((first, 0), ("A", 0), (last, 0))
        return Frame(single, (*single, ("B", 1), (last, 1)), languages)
    if part["type"] == "RobertaProcessing":
        single = ((first, 0), ("A", 0), (last, 0))
        return Frame(single, (*single, (last, 0), ("B", 0), (last, 0)), languages)
    raise ValueError("unknown type")


def _template(parts: Sequence[Mapping[str, Any]], tokens: Mapping[str, Any]) -> tuple[Part, ...]:
    found: list[Part] = []
    for part in parts:
        ((kind, content),) = part.items()
        if kind == "Sequence":
            found.append((str(content["id"]), int(content["type_id"])))
        else:
            found += [(int(index), int(content["type_id"])) for index in tokens[content["id"]]["ids"]]
    return tuple(found)
