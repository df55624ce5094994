"""From texts to a look: framed and read as in the verbs, captured in one pass, with every token's name.

text ─> ids and their characters ─> one pass that keeps queries, keys and normalisers ─> Look
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.generate.config import check_count
from regard.look.capture import capture
from regard.look.places import attention_depths
from regard.look.reading import Look, Side, Token, Word, no_layer
from regard.tasks.base import Parts, framed, need
from regard.tasks.entities import split_words
from regard.tasks.framing import as_trained, opening
from regard.tasks.generate import generate
from regard.tasks.inputs import make_inputs, refuse_long
from regard.tasks.translate import as_published, frame_languages, translate

__all__ = ["Reading", "capture_reading", "look", "read"]


@dataclass(frozen=True)
class Reading:
    """Hold texts as a model reads them: its arguments, and the names of its tokens.

    Attributes:
        sides: the texts.
        inputs: what the model's `hidden` takes, each (1, T).
        segments: (1, T) for a model that tells a pair's texts apart; else None.
    """

    sides: dict[str, Side]
    inputs: tuple[torch.Tensor, ...]
    segments: torch.Tensor | None = None

    def run(self, module: Any) -> torch.Tensor:
        """Give the model's last states, (1, T, D)."""
        more = {} if self.segments is None else {"segments": self.segments}
        return module.hidden(*self.inputs, **more)


def look(
    parts: Parts,
    text: str,
    target: str | None = None,
    *,
    pair: str | None = None,
    max_tokens: int | None = None,
    layers: Collection[str | int] | None = None,
    values: bool = True,
    budget: int = 4 * 2**30,
    target_tokenizer: Tokenizer | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    model: str = "",
) -> Look:
    """Keep what a model attends to while it reads a text, or while it writes one.

    Args:
        parts: a model and its tokenizer.
        text: what it reads; an encoder-decoder's source, a decoder's text or prompt.
        target: what an encoder-decoder writes, as given; None: what it translates the source to.
        pair: the second text, for an encoder of pairs.
        max_tokens: for a decoder: generate so many tokens after the text, greedily, and look along them too.
        layers: the layers to keep, by name or, in a single stack, by number; None keeps all.
        values: keep values too, for the proof and for what is weighted by them.
        budget: bytes to hold in memory; what is beyond lies in a temporary file.
        target_tokenizer: the targets', where it is another one than the sources' (Marian).
        source_language: as in `translate`.
        target_language: as in `translate`.
        model: its name, for captions.

    Raises:
        ConfigError: the model takes no target, pair, languages or max_tokens, or has no such layer.
        DataError: a text is longer than the context, or empty.
    """
    if not attention_depths(parts.config):
        raise no_attention()
    reading = read(
        parts, text, target, pair=pair, max_tokens=max_tokens, target_tokenizer=target_tokenizer,
        source_language=source_language, target_language=target_language,
    )  # fmt: skip
    return capture_reading(parts, reading, layers=layers, values=values, budget=budget, model=model)


def capture_reading(
    parts: Parts,
    reading: Reading,
    *,
    layers: Collection[str | int] | None = None,
    values: bool = True,
    budget: int = 4 * 2**30,
    model: str = "",
) -> Look:
    """Keep what a model attends to in a text that was read before; the arguments are those of `look`.

    Raises:
        ConfigError: the model has no such layer, or none is named.
    """
    if not attention_depths(parts.config):
        raise no_attention()
    names = None if layers is None else _layers(parts, layers)
    with capture(names, values=values, budget=budget) as kept:
        reading.run(parts.module)
    return Look(reading.sides, kept.of(), model, holder=kept)


def read(
    parts: Parts,
    text: str,
    target: str | None = None,
    *,
    pair: str | None = None,
    max_tokens: int | None = None,
    target_tokenizer: Tokenizer | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Reading:
    """Frame texts as their model expects them and name their tokens; see `look`.

    Raises:
        ConfigError: the model takes no target, pair, languages or max_tokens.
        DataError: a text is longer than the context, or empty.
    """
    kind = parts.config.kind
    if target is not None and kind != "encoder-decoder":
        raise ConfigError(f"a target is for an encoder-decoder; this is {_a(kind)}.")
    if max_tokens is not None and kind != "decoder":
        raise ConfigError(f"max_tokens is for a decoder; this is {_a(kind)}.")
    if pair is not None and kind != "encoder":
        raise ConfigError(f"a pair is for an encoder; this is {_a(kind)}.")
    if (source_language, target_language) != (None, None) and kind != "encoder-decoder":
        raise ConfigError(f"languages are for an encoder-decoder; this is {_a(kind)}.")
    if not isinstance(text, str) or not text:
        raise DataError("there is no text to look at; give one.")
    if parts.config.kind == "encoder-decoder":
        return _read_both(parts, text, target, target_tokenizer, source_language, target_language)
    ids, spans = parts.tokenizer.offsets(text)
    if parts.config.kind == "decoder":
        before = opening(parts)
        if max_tokens is not None:
            _check_room(len(before) + len(ids), max_tokens, parts)
            (done,) = generate(parts, [text], temperature=0.0, max_tokens=max_tokens)
            more, places = _written(parts.tokenizer, done.ids, len(text))
            text, ids, spans = text + more, [*ids, *done.ids], [*spans, *places]
        side = _side(parts.tokenizer, "text", text, [*before, *ids], len(before), spans)
        _refuse_long(side, parts)
        return Reading({"text": side}, (_row(parts, side),))
    if pair is not None:
        second, places = parts.tokenizer.offsets(pair)
        (one,) = make_inputs(as_trained(parts), [second], pairs=[ids])
        refuse_long([one], parts.config, [text])
        shift = len(text) + 1
        first = _start_of(one.ids, ids)
        named = {first + i: span for i, span in enumerate(spans)}
        named |= {one.start + i: (a + shift, b + shift) for i, (a, b) in enumerate(places)}
        side = _named_side(parts.tokenizer, "text", f"{text}\n{pair}", one.ids, named)
        return Reading({"text": side}, (_row(parts, side),), _segments(parts, one.segments))
    (one,) = make_inputs(as_trained(parts), [ids])
    refuse_long([one], parts.config, [text])
    side = _side(parts.tokenizer, "text", text, one.ids, one.start, spans)
    return Reading({"text": side}, (_row(parts, side),), _segments(parts, one.segments))


def _read_both(
    parts: Parts, text: str, target: str | None, target_tokenizer: Tokenizer | None, source_language: str | None,
    target_language: str | None,
) -> Reading:  # fmt: skip
    config, tokenizer = parts.config, parts.tokenizer
    shifted = config.head != "lm"  # a class or an answer: the decoder reads the source, one token later
    if shifted and target is not None:
        raise ConfigError(f"this model learned to {config.head}: it takes no target.")
    if shifted and target_language is not None:
        raise ConfigError(f"this model learned to {config.head}: it takes no target_language.")
    done = None
    if target is None and not shifted:
        (done,) = translate(parts, [text], source_language=source_language, target_language=target_language)
    parts, prefix = as_published(parts, source_language, target_language)
    text = prefix + text
    ids, spans = tokenizer.offsets(text)
    language, first = (None, None) if prefix else (source_language, None)
    if target_language is not None and not prefix:
        language, first = frame_languages(tokenizer, source_language, target_language)
    whole = framed(tokenizer, ids, end=need(config.eos_id, "eos_id"), language=language)
    source = _side(tokenizer, "source", text, whole, _start_of(whole, ids), spans)
    _refuse_long(source, parts)
    if shifted:
        start = config.start or 0
        written = _named_side(
            tokenizer, "target", text, [start, *whole[:-1]],
            {i + 1: (t.start, t.end) for i, t in enumerate(source.tokens[:-1]) if not t.special},
        )  # fmt: skip
    else:
        writer = target_tokenizer or tokenizer
        begin = [need(config.start, "start_id")]
        if first is not None and whole[-1] in tokenizer.languages.values():
            begin, first = [first], None  # mBART of 2020 begins with the language; later ones have it second
        elif first is None and parts.published is not None:
            first = parts.published.first
        begin += [] if first is None else [first]
        if done is not None:
            writer, ids = tokenizer, list(done.ids)
            ids = ids[1:] if first is not None and ids[:1] == [first] else ids  # a search gives it too
            target, spans = _written(tokenizer, ids, 0)
        else:
            assert target is not None
            ids, spans = writer.offsets(target)
        written = _side(writer, "target", target, [*begin, *ids], len(begin), spans)
    _refuse_long(written, parts)
    return Reading({"source": source, "target": written}, (_row(parts, source), _row(parts, written)))


def _written(tokenizer: Tokenizer, ids: Sequence[int], start: int) -> tuple[str, list[tuple[int, int]]]:
    """Give the text that ids make, as they were written, and the characters of each, from `start` on.

    Of ids that share a character the last one has it; the others have an empty place before it.
    """
    stream, text, spans = tokenizer.stream(), "", []
    for index in ids:
        part = stream.add(index)
        spans.append((start + len(text), start + len(text) + len(part)))
        text += part
    rest = stream.finish()
    if spans and rest:
        spans[-1] = (spans[-1][0], spans[-1][1] + len(rest))
    return text + rest, spans


def _side(
    tokenizer: Tokenizer,
    name: str,
    text: str,
    ids: Sequence[int],
    start: int,
    spans: Sequence[tuple[int, int]],
) -> Side:
    return _named_side(tokenizer, name, text, ids, {start + i: span for i, span in enumerate(spans)})


def _named_side(
    tokenizer: Tokenizer, name: str, text: str, ids: Sequence[int], spans: dict[int, tuple[int, int]]
) -> Side:
    """Name the tokens of a text and join them to words; what has no place in the text was put around it."""
    tokens: list[Token] = []
    at = 0
    for i, token in enumerate(ids):
        if i in spans:
            start, end = spans[i]
            at = end
            shown = text[start:end].strip() or text[start:end] or tokenizer.tokens([token])[0]
            tokens.append(Token(shown, start, end))
        else:
            tokens.append(Token(tokenizer.tokens([token])[0], at, at, special=True))
    return Side(name, text, tuple(ids), tuple(tokens), tuple(_words(text, tokens)))


def _words(text: str, tokens: Sequence[Token]) -> list[Word]:
    """Join tokens that share a word; a token that reaches over several words joins them."""
    owner = [-1] * (len(text) + 1)
    for number, (start, end) in enumerate(split_words(text)):
        owner[start:end] = [number] * (end - start)
    words: list[Word] = []
    last: set[int] = set()
    for i, token in enumerate(tokens):
        own = {n for n in owner[token.start : token.end] if n >= 0}
        if words and not token.special and not words[-1].special and (own & last or (not own and last)):
            begin = words[-1].start
            start, end = tokens[begin].start, token.end
            words[-1] = Word(text[start:end].strip() or text[start:end], begin, i + 1)
            last |= own
        else:
            words.append(Word(token.text, i, i + 1, token.special))
            last = own if not token.special else set()
    return words


def _row(parts: Parts, side: Side) -> torch.Tensor:
    return torch.tensor([side.ids], device=parts.device)


def _segments(parts: Parts, segments: Sequence[int]) -> torch.Tensor | None:
    return torch.tensor([segments], device=parts.device) if parts.config.num_segments > 1 else None


def _start_of(whole: Sequence[int], ids: Sequence[int]) -> int:
    """Find where a text's own tokens stand in its frame."""
    size = len(ids)
    return next((k for k in range(len(whole) - size + 1) if list(whole[k : k + size]) == list(ids)), 0)


def _check_room(size: int, max_tokens: int, parts: Parts) -> None:
    """Refuse to write more tokens after a text of this size than the context holds, before any is written."""
    context = parts.config.context
    check_count("max_tokens", max_tokens, low=1, high=10**9)
    if size < context < size + max_tokens:
        raise DataError(
            f"the text has {size:,} tokens, which leaves room for {context - size:,} in this model's context of "
            f"{context:,}; max_tokens is {max_tokens:,}, give {context - size:,} or less."
        )
    if size == context:
        raise DataError(
            f"the text has {size:,} tokens, which leaves no room in this model's context of {context:,}; shorten it, "
            "or leave max_tokens out."
        )


def _refuse_long(side: Side, parts: Parts) -> None:
    if len(side.ids) > parts.config.context:
        what = "text" if side.name == "text" else side.name
        raise DataError(
            f"the {what} has {len(side.ids):,} tokens; this model's context is {parts.config.context:,}. Shorten it."
        )


def no_attention() -> ConfigError:
    """Say that a model has nothing to look at."""
    return ConfigError("this model is recurrent and has no attention: there is nothing to look at.")


def _layers(parts: Parts, layers: Collection[str | int]) -> list[str]:
    """Give the names of layers, all of which the model has."""
    known = [f"{kind}.{i}" for kind, depth in attention_depths(parts.config).items() for i in range(depth)]
    found = [_layer(parts, one) for one in layers]
    if not found:
        raise ConfigError(f"layers names none; name at least one, as in {known[0]}, or leave it out for all.")
    for name in found:
        if name not in known:
            raise no_layer(name, known)
    return found


def _layer(parts: Parts, name: str | int) -> str:
    if isinstance(name, str):
        return name
    if parts.config.kind == "encoder-decoder":
        raise ConfigError(f"say which {name}: encoder.{name}, decoder.{name} or cross.{name}.")
    return f"{parts.config.kind}.{name}"


def _a(kind: str) -> str:
    return f"{'a' if kind == 'decoder' else 'an'} {kind}"
