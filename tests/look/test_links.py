"""The search for heads that link words: on weights whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from regard.look.links import Reading, Sentence, Spot, interval, pieces_of, survey, weights_of_words
from regard.nn.attention import Attend
from regard.nn.masks import Mask

RIGHT, WRONG = 2, 4  # places of the two candidates' (first) pieces


class Known:
    """Attend in two heads of one encoder layer: the first from everywhere to RIGHT, the second to WRONG."""

    def hidden(
        self, source: Tensor, target: Tensor, *, source_mask: Tensor | None, target_mask: Tensor | None
    ) -> Tensor:
        batch, length = source.shape
        query = torch.ones(batch, 2, length, 1)
        key = torch.zeros(batch, 2, length, 1)
        key[:, 0, RIGHT], key[:, 1, WRONG] = 9.0, 9.0
        return Attend(scale=1.0, name="encoder.0")(query, key, key, Mask(keys=source_mask))


def sentence(length: int) -> Sentence:
    reading = Reading("from `it`", "encoder", rows=(0, 1), candidates=((RIGHT, RIGHT + 1), (WRONG,)))
    return Sentence(tuple(range(5, 5 + length)), (1, 2), (reading,))


def test_the_head_that_looks_is_found_in_sentences_of_any_length() -> None:
    found = {
        one.spot: one for one in survey(Known(), [sentence(6), sentence(9), sentence(7)], pad=0, batch=2)
    }
    good, bad = (found[Spot("encoder.0", head, "from `it`")] for head in (0, 1))
    assert (good.accuracy, bad.accuracy, good.n) == (1.0, 0.0, 3)
    assert good.chance == bad.chance == 0.5
    lengths = (6, 9, 7)
    share = (
        sum((math.exp(9) + 1) / (math.exp(9) + n - 1) for n in lengths) / 3
    )  # two pieces, one of them bare
    assert good.share == pytest.approx(share, abs=1e-5)


def test_words_are_sums_over_their_pieces_and_means_over_the_pieces_that_look() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.3, 0.0, 0.5, 0.2]])[None]  # (H, T, S)
    words = weights_of_words(weights, (0, 1), ((0, 1), (2,), (3,)))
    assert torch.allclose(words, torch.tensor([[0.3, 0.4, 0.3]]))
    assert pieces_of([(0, 3), (3, 6), (6, 9)], (2, 6)) == (0, 1)


def test_the_interval_is_wilsons() -> None:
    low, high = interval(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert interval(0, 5)[0] == pytest.approx(0.0) and interval(5, 5)[1] == pytest.approx(1.0)
