"""Say what a sentence of the demo's world is about, and to which split it belongs.

A `Plan` names the shape, the nouns, the verb, the tense, the reason and which noun the reason is about.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from regard.data.world_forms import Adjective, Noun, Verb

# The shapes of a sentence and how often each is drawn. Those of the first group carry a pronoun.
LINKED_SHAPES: dict[str, float] = {
    "because": 36.0,
    "two sentences": 12.0,
    "although": 8.0,
    "but": 7.0,
    "fronted": 6.0,
    "if": 5.0,
    "asked": 6.0,
    "why": 4.0,
}
PLAIN_SHAPES: dict[str, float] = {
    "plain": 5.0,
    "question": 2.0,
    "copula": 4.0,
    "journey": 3.0,
    "seen": 2.0,
    "object relative": 2.0,
}
SHAPES: dict[str, float] = LINKED_SHAPES | PLAIN_SHAPES

SPLITS = ("train", "valid", "test")
FAMOUS = (("animal", "tired", "street"), ("animal", "wide", "street"))


@dataclass(slots=True)
class Phrase:
    """Plan a noun with its determiner, attribute, number and what follows it."""

    noun: Noun
    plural: bool = False
    determiner: str = "the"
    attribute: Adjective | None = None
    tail: str = ""  # "", a key of `world_phrases.PLACES` or of its RELATIVES
    landmark: Phrase | None = None


@dataclass(slots=True)
class Plan:
    """Plan one sentence. `about` is the noun the adjective speaks of ("s", "o", or "" without a pronoun)."""

    shape: str
    combination: tuple[str, str, str]
    subject: Phrase | None = None
    object: Phrase | None = None
    verb: Verb | None = None
    tense: str = "past"  # past, present, habit, future, can, could
    negative: str = ""  # "", "not" or "never"
    adjective: Adjective | None = None
    about: str = ""
    degree: str = ""
    connective: str = ""
    opening: str = ""
    long_form: bool = False


def split_of(combination: tuple[str, str, str]) -> str:
    """Sort a combination into train (8 of 10), valid or test; the famous pair is always in test."""
    if combination in FAMOUS:
        return "test"
    bucket = zlib.crc32("|".join(combination).encode()) % 10
    return "train" if bucket < 8 else SPLITS[bucket - 7]


def pronoun_may_mean(noun: Noun, noun_is_plural: bool, plural: bool) -> bool:
    """Tell whether "it" (or "they") can stand for a noun; one person is never "it"."""
    return noun_is_plural == plural and (plural or noun.kind != "people")
