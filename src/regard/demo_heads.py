"""What the demo asks of every head: in which row of its attention does the pronoun's noun stand out?

A sentence of the world knows where its pronoun, its adjective and its nouns are; here these become places of
tokens, in the source as the encoder reads it and in the target as the decoder does. The head is chosen on sentences
of the validation part and measured on those of the test part. `study` asks more: which heads align the two languages
word by word, and what the pronouns are worth with the best head switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.data.world import Example, Link, chance, majority, pronoun_correct
from regard.look.alignment import Alignment, Bitext, find_aligners
from regard.look.links import (
    Reading,
    Sentence,
    Span,
    Spot,
    Survey,
    attention_of,
    interval,
    pieces_of,
    survey,
    weights_of_words,
)
from regard.look.switching import Change, switch_off
from regard.tasks.base import Parts
from regard.tasks.folders import read_run
from regard.tasks.score import score
from regard.tasks.translate import translate

__all__ = [
    "FROM_IT", "Head", "Picture", "Study", "SwitchedOff", "bitext", "find_heads", "picture", "question",
    "study", "telling", "world_seed",
]  # fmt: skip

Told = Callable[[str, float | None], None]
"""Is told what is going on, and how much of it is done where that is known."""

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


def bitext(example: Example, parts: Parts) -> Bitext:
    """Give an example as the model gets it, with the places of its words and which of them belong together."""
    config = parts.config
    assert config.eos_id is not None and config.start is not None
    source = _side(example.source, example.source_spans, parts.tokenizer)
    target = _side(example.target, example.target_spans, parts.tokenizer)
    columns, rows = (_words(example, parts.tokenizer, side) for side in ("source", "target"))
    return Bitext((*source.ids, config.eos_id), (config.start, *target.ids), columns, rows, example.alignment)


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


@dataclass(frozen=True)
class Head:
    """Hold what a head was found to do, on sentences that took no part in choosing it.

    Attributes:
        where: its layer, its number and the row that is read, as text.
        spot: the same as a value.
        accuracy: how often the pronoun's noun gets more attention than every other noun that it could mean.
        low, high: the interval of that, with 95 % confidence.
        share: the mean attention on the noun.
        chance: how often guessing among the nouns is right.
        first, nearest: how often the first noun, and the one nearest to the pronoun, is the right one.
        all_heads: the mean accuracy over all heads and rows that were searched.
        searched: how many those are.
        n: how many sentences.
        carries: whether it is right more often than each of chance, first and nearest, by more than luck.
    """

    where: str
    spot: Spot
    accuracy: float
    low: float
    high: float
    share: float
    chance: float
    first: float
    nearest: float
    all_heads: float
    searched: int
    n: int
    carries: bool


@dataclass(frozen=True)
class SwitchedOff:
    """Hold what the pronoun is worth without a head.

    Attributes:
        layer, head: which one.
        written: how often the pronoun is right in the translation that is written.
        choice: how often the right form is likelier than that of the other gender, all words before it given.
    """

    layer: str
    head: int
    written: Change
    choice: Change


@dataclass(frozen=True)
class Study:
    """Hold what was found of the heads of a demo's model.

    Attributes:
        referent: heads by how well they carry the referent, each in its best row; in the order of the sentences for
            choosing, and measured on others.
        aligners: heads by how well they align words, likewise.
        guessing, diagonal: the alignment by a random word, and by the word equally far in its sentence.
        off: the first of `referent`, switched off.
        chance, majority: the pronoun's accuracy by guessing, and by always taking the commonest form.
        chosen_on: how many sentences heads were chosen on.
    """

    referent: tuple[Head, ...]
    aligners: tuple[Alignment, ...]
    guessing: Alignment
    diagonal: Alignment
    off: SwitchedOff
    chance: float
    majority: float
    chosen_on: int


@dataclass(frozen=True)
class Picture:
    """Hold what a head does in one sentence, word by word.

    Attributes:
        words: the words that are looked at.
        weights: the attention to each from the word that looks.
        looker: that word's place, where it is among them.
        nouns: the places of the nouns that the pronoun could mean, the right one first.
        rows: all words that look; the same as `words` but for cross-attention.
        matrix: the attention of each of `rows` to each of `words`.
    """

    words: tuple[str, ...]
    weights: tuple[float, ...]
    looker: int | None
    nouns: tuple[int, ...]
    rows: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]


def find_heads(parts: Parts, valid: Sequence[Example], test: Sequence[Example]) -> tuple[Head, Head]:
    """Give the head that carries the referent best, and the one that does so best from `it` in the encoder.

    Both are chosen on `valid` and measured on `test`; every example must have a link.
    """
    found = _Search(parts, valid, test)
    from_it = found.best(one for one in found.chosen_on if one.spot.reading == FROM_IT)
    return found.best(found.chosen_on), from_it


def study(
    parts: Parts,
    valid: Sequence[Example],
    test: Sequence[Example],
    train: Iterable[Example],
    *,
    top: int = 5,
    report: Told = lambda what, share: None,
) -> Study:
    """Find the heads that carry the referent and those that align, and switch the best of the former off.

    Args:
        parts: the demo's model.
        valid: sentences on which heads are chosen, as `telling` gives them.
        test: others, on which they are measured.
        train: sentences that tell the commonest form.
        top: how many heads of each sort to give.
        report: told what is going on.
    """
    report("searching the heads for the referent", None)
    search = _Search(parts, valid, test)
    ranked = sorted(search.chosen_on, key=_order, reverse=True)
    of_head = {(one.spot.layer, one.spot.head): one for one in reversed(ranked)}  # the best row of each
    carriers = sorted(of_head.values(), key=_order, reverse=True)[:top]
    report("aligning words", None)
    network: Any = parts.module
    halves = [[bitext(example, parts) for example in half] for half in (valid, test)]
    aligners, every = find_aligners(network, *halves, pad=parts.config.pad_id or 0, top=top)

    def answers() -> dict[str, list[bool]]:
        """Ask for translations, and for the likelier of the two forms."""
        texts = translate(parts, [example.source for example in test], beams=1)
        written = [bool(pronoun_correct(e, one.text)) for e, one in zip(test, texts, strict=True)]
        return {"written": written, "choice": _choose(parts, test)}

    best = carriers[0].spot
    what = "switching heads off and translating"
    changes = switch_off(
        parts, best.layer, best.head, answers, progress=lambda done, total: report(what, done / total)
    )
    return Study(
        tuple(search.best([one]) for one in carriers), aligners, every.guessing, every.diagonal,
        SwitchedOff(best.layer, best.head, **changes), chance(test), majority(train, test), len(valid),
    )  # fmt: skip


def world_seed(run: Path) -> int | None:
    """Give the seed of the world that a run of the demo learned; None for whatever else is there."""
    if not (run / "regard.json").is_file():
        return None
    record = read_run(run)
    names = [(Path(path).parent.name, Path(path).name) for path in record["data"]]
    folder = names[0][0] if names else ""
    demo = folder.endswith("-world") and names == [(folder, "train.en"), (folder, "train.fr")]
    return record["training"]["seed"] if demo and record["task"] == "translate" else None


class _Search:
    """Hold what every head does in every row, on sentences for choosing and on others for measuring."""

    def __init__(self, parts: Parts, valid: Sequence[Example], test: Sequence[Example]) -> None:
        network: Any = parts.module
        pad = parts.config.pad_id or 0
        asked = [[question(e, parts.tokenizer, parts.config) for e in half] for half in (valid, test)]
        self.chosen_on, self.measured_on = (survey(network, half, pad=pad) for half in asked)
        self._sentences = list(zip(test, asked[1], strict=True))

    def best(self, candidates: Iterable[Survey]) -> Head:
        """Choose by the one half, and give what the other measures."""
        spot = max(candidates, key=_order).spot
        able = [e for e, s in self._sentences if any(_is_of(r, spot) for r in s.readings)]
        return _head(next(one for one in self.measured_on if one.spot == spot), able, self.measured_on)


def _order(found: Survey) -> tuple[float, float, Spot]:
    return found.accuracy, found.share, found.spot


def _choose(parts: Parts, examples: Sequence[Example]) -> list[bool]:
    """Tell for each example whether its pronoun is likelier than the form of the other gender in its place."""
    told: list[list[float]] = []
    for which in (0, 1):
        texts, spans = [], []
        for example in examples:
            (link,) = example.links
            start, end = example.target_spans[link.target]
            form = example.target[start:end]
            if which:
                other = next(form for form in link.forms if form != link.form)
                form = other.capitalize() if form[0].isupper() else other
            texts.append(example.target[:start] + form + example.target[end:])
            spans.append((start, start + len(form)))
        found = score(parts, texts, source=[example.source for example in examples])
        told.append(
            [
                sum(t.logprob or 0.0 for t in one.token_scores if t.start < end and t.end > start)
                for one, (start, end) in zip(found, spans, strict=True)
            ]
        )
    return [right > wrong for right, wrong in zip(*told, strict=True)]


def picture(parts: Parts, example: Example, spot: Spot) -> Picture:
    """Draw up what a head does in an example with a link."""
    sentence = question(example, parts.tokenizer, parts.config)
    network: Any = parts.module
    weights = attention_of(network, sentence, pad=parts.config.pad_id or 0)[spot.layer][
        spot.head : spot.head + 1
    ]
    (reading,) = (r for r in sentence.readings if _is_of(r, spot))
    source, target = (_words(example, parts.tokenizer, side) for side in ("source", "target"))
    seen = target if reading.kind == "decoder" else source
    lookers = source if reading.kind == "encoder" else target
    names = {id(source): example.source_words, id(target): example.target_words}
    row = weights_of_words(weights, reading.rows, seen)[0].tolist()
    matrix = [tuple(weights_of_words(weights, places, seen)[0].tolist()) for places in lookers]
    looker = (
        next((i for i, places in enumerate(seen) if places == reading.rows), None)
        if seen is lookers
        else None
    )
    nouns = tuple(seen.index(places) for places in reading.candidates)
    return Picture(names[id(seen)], tuple(row), looker, nouns, names[id(lookers)], tuple(matrix))


def _head(found: Survey, examples: Sequence[Example], everywhere: Sequence[Survey]) -> Head:
    """Put a head beside what it must beat."""
    first = nearest = 0
    for example in examples:
        (link,) = example.links
        nouns = (link.referent_source, *link.distractors_source)
        first += min(nouns) == link.referent_source
        nearest += min(nouns, key=lambda noun: abs(noun - link.source)) == link.referent_source
    n = found.n
    low, high = interval(round(found.accuracy * n), n)
    return Head(
        where=str(found.spot), spot=found.spot, accuracy=found.accuracy, low=low, high=high, share=found.share,
        chance=found.chance, first=first / n, nearest=nearest / n,
        all_heads=sum(other.accuracy for other in everywhere) / len(everywhere), searched=len(everywhere), n=n,
        carries=low > max(found.chance, first / n, nearest / n),
    )  # fmt: skip


def _is_of(reading: Reading, spot: Spot) -> bool:
    return reading.name == spot.reading and reading.kind == spot.layer.partition(".")[0]


def _words(example: Example, tokenizer: Tokenizer, side: str) -> tuple[tuple[int, ...], ...]:
    """Give the places of every word's pieces, in the encoder's ("source") or the decoder's ("target") input."""
    if side == "source":
        source = _side(example.source, example.source_spans, tokenizer)
        return tuple(source.pieces(word) for word in range(len(source.words)))
    target = _side(example.target, example.target_spans, tokenizer)
    return tuple(tuple(p + 1 for p in target.pieces(word)) for word in range(len(target.words)))


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
