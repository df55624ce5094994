"""What the demo asks of every head: in which row of its attention does the pronoun's noun stand out?

A sentence of the world knows where its pronoun, its adjective and its nouns are; here these become places of
tokens, in the source as the encoder reads it and in the target as the decoder does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.data.world import Example, Link
from regard.look.links import Reading, Sentence, Span, pieces_of

__all__ = ["FROM_IT", "baselines", "question", "telling", "words_of"]

FROM_IT = "from `it`"
FROM_ADJECTIVE = "from the adjective"
WRITING_PRONOUN = "when writing il/elle"
AFTER_PRONOUN = "right after il/elle"
WRITING_ADJECTIVE = "when writing the adjective"


@dataclass(frozen=True)
class _Side:
    """Hold one language of an example: its words' places in characters, its ids, and the ids' places."""

    words: tuple[Span, ...]
    ids: tuple[int, ...]
    spans: tuple[Span, ...]

    def pieces(self, word: int) -> tuple[int, ...]:
        return pieces_of(self.spans, self.words[word])


def telling(examples: Iterable[Example]) -> list[Example]:
    """Keep the examples whose pronoun shows which noun was meant."""
    return [example for example in examples if example.links and example.links[0].distinguishes]


def question(example: Example, tokenizer: Tokenizer, config: ModelConfig) -> Sentence:
    """Ask every reading of an example with a link.

    The decoder's input begins with a start token, so the row that writes a word is the place of its first piece, and
    the rows that have read it lie one further.
    """
    (link,) = example.links
    assert config.eos_id is not None and config.start is not None
    source = _side(example.source, example.source_spans, tokenizer)
    target = _side(example.target, example.target_spans, tokenizer)
    nouns = (link.referent_source, *link.distractors_source)
    seen = tuple(source.pieces(noun) for noun in nouns)
    pronoun = target.pieces(link.target)
    after = tuple(place + 1 for place in pronoun)
    readings = [
        Reading(FROM_IT, "encoder", source.pieces(link.source), seen),
        Reading(WRITING_PRONOUN, "cross", pronoun[:1], seen),
        Reading(AFTER_PRONOUN, "cross", after, seen),
    ]
    adjective = _adjective(example, link)
    if adjective is not None:
        readings.append(Reading(FROM_ADJECTIVE, "encoder", source.pieces(adjective), seen))
        written = [t for s, t in example.alignment if s == adjective]
        if written:
            readings.append(Reading(WRITING_ADJECTIVE, "cross", target.pieces(min(written))[:1], seen))
    own = _target_nouns(example, link, nouns)
    if own is not None and all(noun < link.target for noun in own):
        places = tuple(tuple(p + 1 for p in target.pieces(noun)) for noun in own)
        readings.append(Reading(WRITING_PRONOUN, "decoder", pronoun[:1], places))
        readings.append(Reading(AFTER_PRONOUN, "decoder", after, places))
    return Sentence((*source.ids, config.eos_id), (config.start, *target.ids), tuple(readings))


def words_of(example: Example, tokenizer: Tokenizer, side: str) -> tuple[tuple[int, ...], ...]:
    """Give the places of every word's pieces, in the encoder's ("source") or the decoder's ("target") input."""
    if side == "source":
        source = _side(example.source, example.source_spans, tokenizer)
        return tuple(source.pieces(word) for word in range(len(source.words)))
    target = _side(example.target, example.target_spans, tokenizer)
    return tuple(tuple(p + 1 for p in target.pieces(word)) for word in range(len(target.words)))


def baselines(examples: Sequence[Example]) -> dict[str, float]:
    """Say how often guessing, the first noun and the nearest one are the pronoun's."""
    links = [example.links[0] for example in examples]
    n = max(1, len(links))
    first = nearest = guessing = 0.0
    for link in links:
        nouns = (link.referent_source, *link.distractors_source)
        first += min(nouns) == link.referent_source
        nearest += min(nouns, key=lambda noun: abs(noun - link.source)) == link.referent_source
        guessing += 1 / len(nouns)
    return {"chance": guessing / n, "first": first / n, "nearest": nearest / n}


def _side(text: str, words: tuple[Span, ...], tokenizer: Tokenizer) -> _Side:
    ids, spans = tokenizer.offsets(text)
    return _Side(words, tuple(ids), tuple(spans))


def _adjective(example: Example, link: Link) -> int | None:
    """Find the adjective that speaks of the pronoun; None where it isn't a word of its own."""
    wanted = example.combination[1].split()[0]
    places = [i for i, word in enumerate(example.source_words) if word.lower() == wanted and i > link.source]
    return places[0] if places else None


def _target_nouns(example: Example, link: Link, nouns: Sequence[int]) -> tuple[int, ...] | None:
    """Find the nouns in the target: what each is aligned with last, since an article stands before its noun."""
    own = [link.referent_target]
    for noun in nouns[1:]:
        aligned = [t for s, t in example.alignment if s == noun]
        if not aligned:
            return None
        own.append(max(aligned))
    return tuple(own)
