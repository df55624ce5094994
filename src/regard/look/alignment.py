"""How well the heads of a cross-attention align words: each target word with the source word that gets most.

Words are several pieces: a word's column is the sum over its pieces. A word's row is read in two ways: that of its
first piece, while it is written, or the mean over its pieces, right after each was read.

Source: Och and Ney 2003, "A systematic comparison of various statistical alignment models" (the error rate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regard.look.corpus import interval_of_mean
from regard.look.links import Reader, Sentence, Spot, attention_of

__all__ = ["AFTER", "WRITING", "Aligned", "Alignment", "Bitext", "find_aligners", "survey_alignment"]

WRITING, AFTER = "when writing a word", "right after it"


@dataclass(frozen=True)
class Bitext:
    """Hold a sentence and its translation with their gold alignment.

    Attributes:
        source, target: the ids that encoder and decoder get; the decoder's begin with a start token.
        source_words, target_words: places of each word's pieces in them.
        pairs: (source word, target word) that belong together.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    source_words: tuple[tuple[int, ...], ...]
    target_words: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def gold(self) -> Bool[Tensor, "target_words source_words"]:
        """Give the pairs as a matrix."""
        matrix = torch.zeros(len(self.target_words), len(self.source_words), dtype=torch.bool)
        for source, target in self.pairs:
            matrix[target, source] = True
        return matrix


@dataclass(frozen=True)
class Alignment:
    """Hold how well one way of choosing a source word for each target word does.

    Attributes:
        spot: the head, and how its rows are read; None where no head chooses.
        agreement: how often the chosen word is one that belongs to the target word.
        low, high: the interval of that with 95 % confidence, by Student's t over sentences.
        error: the alignment error rate, 0 to 1, all gold pairs being sure ones.
        words, n: how many target words, in how many sentences.
    """

    spot: Spot | None
    agreement: float
    low: float
    high: float
    error: float
    words: int
    n: int


@dataclass(frozen=True)
class Aligned:
    """Hold what all heads do, by their spots, beside a random word and the word equally far in its sentence."""

    heads: dict[Spot, Alignment]
    guessing: Alignment
    diagonal: Alignment


def survey_alignment(module: Reader, bitexts: Sequence[Bitext], *, pad: int) -> Aligned:
    """Let every head of the cross-attention align the words of some sentences, each way of reading its rows.

    Args:
        module: an encoder-decoder in evaluation mode.
        bitexts: at least one; each target word must have a pair to be found.
        pad: as in `survey`.
    """
    found: dict[Spot, _Count] = {}
    guessing, diagonal = _Count(), _Count()
    for text in bitexts:
        attention = attention_of(module, Sentence(text.source, text.target, ()), pad=pad)
        gold = text.gold
        height, width = gold.shape
        guessing.add(gold, float(gold.float().mean(1).sum()))
        along = ((torch.arange(height) + 0.5) * width / height).long()
        diagonal.add(gold, int(gold.gather(1, along[:, None]).sum()))
        columns = _spread(text.source_words, len(text.source), mean=False).T
        writing = tuple((places[0] - 1,) for places in text.target_words)
        for name, rows in ((WRITING, writing), (AFTER, text.target_words)):
            looking = _spread(rows, len(text.target), mean=True)
            for layer in (layer for layer in attention if layer.startswith("cross")):
                chosen = (looking @ attention[layer].float() @ columns).argmax(2, keepdim=True)  # (H, W, 1)
                hits = gold.expand(len(chosen), -1, -1).gather(2, chosen).sum((1, 2))
                for head, count in enumerate(hits.tolist()):
                    found.setdefault(Spot(layer, head, name), _Count()).add(gold, count)
    return Aligned(
        {spot: count.sum_up(spot) for spot, count in found.items()}, guessing.sum_up(), diagonal.sum_up()
    )


def find_aligners(
    module: Reader, valid: Sequence[Bitext], test: Sequence[Bitext], *, pad: int, top: int = 5
) -> tuple[tuple[Alignment, ...], Aligned]:
    """Choose the heads that align best on one part of the data, and give what they do on another.

    Args:
        module: as in `survey_alignment`.
        valid: where heads are chosen, and for each how its rows are read.
        test: where they are measured.
        pad: as in `survey`.
        top: how many to give, the one that was best on `valid` first.

    Returns:
        The heads, and all that was measured on `test`.
    """
    chosen_on = survey_alignment(module, valid, pad=pad).heads
    measured = survey_alignment(module, test, pad=pad)
    ranked = sorted(chosen_on, key=lambda spot: (chosen_on[spot].agreement, spot))
    of_head = {
        (spot.layer, spot.head): spot for spot in ranked
    }  # the best reading of each comes last, and stays
    best = sorted(of_head.values(), key=lambda spot: -chosen_on[spot].agreement)[:top]
    return tuple(measured.heads[spot] for spot in best), measured


@dataclass
class _Count:
    """Count target words, gold pairs and hits of each sentence."""

    words: list[int] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)

    def add(self, gold: Tensor, hits: float) -> None:
        """Count a sentence."""
        self.words.append(len(gold))
        self.pairs.append(int(gold.sum()))
        self.hits.append(hits)

    def sum_up(self, spot: Spot | None = None) -> Alignment:
        """Give what it comes to."""
        words, pairs, n = sum(self.words), sum(self.pairs), len(self.words)
        share = sum(self.hits) / words
        # A ratio of two sums over sentences; its spread is that of each sentence's surplus of hits.
        surplus = [(h - share * w) * n / words for h, w in zip(self.hits, self.words, strict=True)]
        _, low, high = interval_of_mean(surplus)
        error = 1 - 2 * sum(self.hits) / (words + pairs)
        return Alignment(spot, share, max(0.0, share + low), min(1.0, share + high), error, words, n)


def _spread(words: Sequence[Sequence[int]], size: int, *, mean: bool) -> Float[Tensor, "W S"]:
    """Make a matrix of words by pieces: ones where a piece is of a word, or shares that sum to one."""
    matrix = torch.zeros(len(words), size)
    for i, places in enumerate(words):
        matrix[i, list(places)] = 1 / len(places) if mean else 1.0
    return matrix
