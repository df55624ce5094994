"""Search all heads of an encoder-decoder for those that look from one word to another.

A sentence asks: in which row of which attention, and which of these words is the right one? A head answers with
its weights. Words are several pieces: the weights of a word are the sum over its own pieces, as columns, and the
mean over the pieces of the word that looks, as rows. A head is right where the right word gets more than every
other candidate.

Choosing the best of many heads flatters it, so choose on one part of the data and report on another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from regard.nn.attention import Recorder, record

__all__ = [
    "Kind", "Reader", "Reading", "Sentence", "Spot", "Survey", "attention_of", "interval", "pieces_of", "survey",
    "weights_of_words",
]  # fmt: skip

Kind = Literal["encoder", "cross", "decoder"]
Span = tuple[int, int]


class Reader(Protocol):
    """Be an encoder-decoder, as far as it matters here: it has `hidden`, which attends."""

    def hidden(
        self, source: Tensor, target: Tensor, *, source_mask: Tensor | None, target_mask: Tensor | None
    ) -> Tensor:
        """Run the model on sources (B, S) and targets (B, T)."""


@dataclass(frozen=True)
class Reading:
    """Say which row of a sentence's attention is read, and between which words it may choose.

    Attributes:
        name: what the row is, the same in every sentence: "from `it`".
        kind: which attention: the encoder's, the decoder's to the source (cross), or the decoder's to itself.
        rows: places of the pieces of the word that looks.
        candidates: places of the pieces of each word that it may find; the right word is the first.
    """

    name: str
    kind: Kind
    rows: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Sentence:
    """Hold a sentence as the model gets it, and what is asked of it; the ids are those of encoder and decoder."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    readings: tuple[Reading, ...]


@dataclass(frozen=True, order=True)
class Spot:
    """Name a place to look at: a layer ("encoder.1", "cross.0", "decoder.2"), a head in it, and a reading."""

    layer: str
    head: int
    reading: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.head} {self.reading}"


@dataclass(frozen=True)
class Survey:
    """Hold what one spot was found to do on some sentences.

    Attributes:
        spot: the place.
        share: the mean attention on the right word, 0 to 1.
        accuracy: how often the right word got more than every other candidate.
        chance: how often guessing among the candidates is right.
        n: how many sentences.
    """

    spot: Spot
    share: float
    accuracy: float
    chance: float
    n: int


def survey(module: Reader, sentences: Sequence[Sentence], *, pad: int, batch: int = 64) -> list[Survey]:
    """Measure every head of every layer in every reading; in the order of the layers.

    Args:
        module: in evaluation mode.
        sentences: each with its readings.
        pad: the id that fills shorter sentences up.
        batch: sentences at once; every weight of them is in memory.
    """
    found: dict[Spot, list[tuple[float, bool, float]]] = {}
    for start in range(0, len(sentences), batch):
        part = sentences[start : start + batch]
        recorder = _run(module, part, pad)
        for row, sentence in enumerate(part):
            for reading in sentence.readings:
                for layer in _layers(recorder, reading.kind):
                    weights = weights_of_words(
                        recorder[layer][row], reading.rows, reading.candidates
                    )  # (H, C)
                    for head, of_words in enumerate(weights.tolist()):
                        right = of_words[0] > max(of_words[1:], default=-math.inf)
                        spot = Spot(layer, head, reading.name)
                        found.setdefault(spot, []).append((of_words[0], right, 1 / len(of_words)))
    return [_sum_up(spot, answers) for spot, answers in found.items()]


def _sum_up(spot: Spot, answers: Sequence[tuple[float, bool, float]]) -> Survey:
    n = len(answers)
    shares, right, chances = (sum(column) / n for column in zip(*answers, strict=True))
    return Survey(spot, shares, right, chances, n)


def weights_of_words(
    weights: Float[Tensor, "H T S"], rows: Sequence[int], words: Sequence[Sequence[int]]
) -> Float[Tensor, "H W"]:
    """Give the attention from one word, the mean of its rows, to each of some words, the sums of their columns."""
    row = weights[:, list(rows)].mean(1)  # (H, S)
    return torch.stack([row[:, list(word)].sum(-1) for word in words], -1)


def pieces_of(spans: Sequence[Span], word: Span) -> tuple[int, ...]:
    """Find the pieces of a text that lie in a word; spans are [start, end) in characters."""
    return tuple(i for i, (start, end) in enumerate(spans) if start < word[1] and end > word[0])


def interval(right: int, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Give the interval in which a share of `right` out of `n` lies, with 95 % confidence by default.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> [round(bound, 3) for bound in interval(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def attention_of(module: Reader, sentence: Sentence, *, pad: int) -> dict[str, Float[Tensor, "H T S"]]:
    """Give every attention weight of one sentence, by the layer's name."""
    recorder = _run(module, [sentence], pad)
    return {name: recorder[name][0] for name in recorder.weights}


def _run(module: Reader, sentences: Sequence[Sentence], pad: int) -> Recorder:
    source, source_mask = _padded([s.source for s in sentences], pad)
    target, target_mask = _padded([s.target for s in sentences], pad)
    with torch.inference_mode(), record() as recorder:
        module.hidden(source, target, source_mask=source_mask, target_mask=target_mask)
    return recorder


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, torch.arange(ids.shape[1])[None] < lengths[:, None]


def _layers(recorder: Recorder, kind: Kind) -> list[str]:
    return [name for name in recorder.weights if name.partition(".")[0] == kind]
