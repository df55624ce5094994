"""Heads that are made to align are found aligning, beside chance and the diagonal; and switching one off is counted."""

from __future__ import annotations

import pytest
import torch
from tests.look.made import pointing, uniform
from torch import Tensor

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.look.alignment import AFTER, WRITING, Bitext, find_aligners, survey_alignment
from regard.look.corpus import interval_of_mean
from regard.look.links import Spot
from regard.look.switching import switch_off
from regard.nn.attention import Attend
from regard.nn.masks import Mask
from regard.nn.taps import tap

# Four words of five pieces, and an end, are written as three words of four pieces, after a start.
TEXT = Bitext(
    (5, 6, 7, 8, 9, 2), (1, 10, 11, 12, 13), ((0,), (1, 2), (3,), (4,)), ((1,), (2, 3), (4,)),
    ((0, 2), (1, 1), (2, 1), (3, 0)),
)  # fmt: skip


class Reader:
    """Attend as it was told to: heads (H, T, S) of one layer of cross-attention."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def hidden(
        self, source: Tensor, target: Tensor, *, source_mask: Tensor | None, target_mask: Tensor | None
    ) -> Tensor:
        heads, _, width = self.weights.shape
        query = self.weights.clamp(min=1e-9).log()[None]
        key = torch.eye(width)[None, None].expand(1, heads, -1, -1)
        Attend(name="encoder.0", scale=1.0)(key, key, key, Mask())
        return Attend(name="cross.0", scale=1.0)(query, key, key, Mask())


def heads() -> Tensor:
    """Make a head that is right while it writes, one that is right after it has read, and one that never is."""
    even = uniform(5, 6)
    writing = pointing({0: 4, 1: 2, 2: 2, 3: 0}, even)
    after = pointing({1: 4, 2: 1, 3: 2, 4: 0}, even)
    never = pointing({0: 0, 1: 0, 2: 4, 3: 4, 4: 4}, even)
    return torch.stack((writing, after, never))


def test_each_head_is_read_as_it_aligns() -> None:
    found = survey_alignment(Reader(heads()), [TEXT, TEXT], pad=0)
    shares = {(spot.head, spot.reading): one.agreement for spot, one in found.heads.items()}
    assert shares[0, WRITING] == shares[1, AFTER] == 1
    assert shares[2, WRITING] == shares[2, AFTER] == 0
    one = found.heads[Spot("cross.0", 0, WRITING)]
    # Three choices, all of them among four gold pairs: 1 - (3 + 3) / (3 + 4).
    assert one.error == pytest.approx(1 / 7)
    assert (one.words, one.n, one.low, one.high) == (6, 2, 1, 1)


def test_chance_and_the_diagonal_are_what_they_say() -> None:
    found = survey_alignment(Reader(heads()), [TEXT], pad=0)
    assert found.guessing.agreement == pytest.approx((1 + 2 + 1) / 4 / 3)
    # Words 0, 1 and 2 of three lie at 0.67, 2 and 3.33 of four: source words 0, 2 and 3, of which 2 is right.
    assert found.diagonal.agreement == pytest.approx(1 / 3)
    assert found.diagonal.error == pytest.approx(1 - 2 / 7)
    assert (found.diagonal.low, found.diagonal.high) == (0, 1), "one sentence tells nothing of others"


def test_the_interval_is_over_sentences() -> None:
    other = Bitext(TEXT.source, TEXT.target, TEXT.source_words, TEXT.target_words, ((0, 0), (1, 1), (2, 2)))
    found = survey_alignment(Reader(heads()), [TEXT, TEXT, other, other], pad=0)
    one = found.heads[Spot("cross.0", 0, WRITING)]
    assert one.agreement == pytest.approx((3 + 3 + 1 + 1) / 12)
    # All sentences have as many words, so this is the mean over sentences.
    assert (one.low, one.high) == pytest.approx((max(0, interval_of_mean([1, 1, 1 / 3, 1 / 3])[1]), 1))


def test_heads_are_chosen_on_one_part_and_measured_on_the_other() -> None:
    other = Bitext(TEXT.source, TEXT.target, TEXT.source_words, TEXT.target_words, ((0, 0), (0, 1), (0, 2)))
    best, every = find_aligners(Reader(heads()), [TEXT], [other], pad=0, top=2)
    assert [(one.spot.head, one.spot.reading) for one in best if one.spot] == [(1, AFTER), (0, WRITING)]
    assert best[0] is every.heads[Spot("cross.0", 1, AFTER)]
    assert best[0].agreement == pytest.approx(1 / 3)


class Model:
    """Be something with a configuration."""

    config = ModelConfig(kind="encoder-decoder", vocab_size=9, width=8, num_layers=2, num_heads=4)


def test_a_head_is_compared_with_its_neighbours() -> None:
    def answers() -> dict[str, list[bool]]:
        """Be right where head 2, and of the second two answers also head 0, mixes something."""
        heads = tap("cross.1.heads", torch.ones(1, 4, 1, 2)).sum((0, 2, 3)) > 0
        own, first = bool(heads[2]), bool(heads[2] and heads[0])
        return {"all": [own, own, first, first], "none": [True] * 4}

    told: list[tuple[int, int]] = []
    found = switch_off(Model(), "cross.1", 2, answers, progress=lambda *now: told.append(now))
    change = found["all"]
    assert (change.before, change.after, change.change, change.n) == (1, 0, -1, 4)
    assert change.each == {0: 0.5, 1: 1, 3: 1}
    assert change.others == pytest.approx(2.5 / 3)
    assert (change.low, change.high) == (-1, -1)
    assert (found["none"].change, found["none"].others) == (0, 1)
    assert told == [(i, 5) for i in range(6)]
    with pytest.raises(ConfigError, match="there is no head 7"):
        switch_off(Model(), "cross.1", 7, answers)
