"""The search of heads: words of several pieces, a head that is known to look at the right word, honest intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regard.config import ModelConfig
from regard.look.links import (
    Reading,
    Sentence,
    Spot,
    attention_of,
    interval,
    pieces_of,
    survey,
    weights_of_words,
)  # fmt: skip
from regard.models.transformer import build
from regard.nn.attention import Attend
from regard.nn.masks import Mask


class Known:
    """Attend with weights that a test chooses: scores (H, T, S) by the layer's name, for one batch after another."""

    def __init__(self, layers: dict[str, Callable[[Tensor, Tensor], Tensor]]) -> None:
        self.layers = layers

    def hidden(
        self, source: Tensor, target: Tensor, *, source_mask: Tensor | None, target_mask: Tensor | None
    ) -> Tensor:
        """Pass hand-made scores through the real seam, where `record` listens."""
        assert source_mask is not None
        for name, score in self.layers.items():
            kind = name.partition(".")[0]
            rows = source if kind == "encoder" else target
            columns = target if kind == "decoder" else source
            scores = score(rows, columns)  # (B, H, T, S)
            batch, heads, _, num_columns = scores.shape
            identity = torch.eye(num_columns).expand(batch, heads, -1, -1)
            mask = Mask(keys=None if kind == "decoder" else source_mask)
            Attend(scale=1.0, name=name)(scores, identity, torch.zeros(batch, heads, num_columns, 1), mask)
        return target


def looks_at(wanted: int, heads: int = 2, strength: float = 20.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Make scores in which head 1 of every row looks at the columns whose id is `wanted`, and no other head does."""

    def score(rows: Tensor, columns: Tensor) -> Tensor:
        scores = torch.zeros(len(rows), heads, rows.shape[1], columns.shape[1])
        scores[:, 1] = strength * (columns == wanted)[:, None, :].float()
        return scores

    return score


RIGHT, WRONG, IT = 7, 8, 9


def sentences(kind: str = "encoder") -> list[Sentence]:
    """Make sentences with the right noun before and behind the wrong one, of unequal lengths."""
    texts = [(1, RIGHT, 2, WRONG, IT), (WRONG, 1, RIGHT, IT), (1, 2, 3, WRONG, 4, IT, RIGHT, 5)]
    return [
        Sentence(
            ids,
            ids,
            (Reading("from it", kind, (ids.index(IT),), ((ids.index(RIGHT),), (ids.index(WRONG),))),),
        )  # type: ignore[arg-type]
        for ids in texts
    ]


@pytest.mark.parametrize("kind", ["encoder", "cross", "decoder"])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_head_that_looks_is_found(kind: str, batch: int) -> None:
    network = Known({f"{kind}.0": looks_at(WRONG), f"{kind}.1": looks_at(RIGHT), "other.0": looks_at(RIGHT)})
    found = {s.spot: s for s in survey(network, sentences(kind), pad=0, batch=batch)}
    assert set(found) == {Spot(f"{kind}.{layer}", head, "from it") for layer in (0, 1) for head in (0, 1)}
    best = found[Spot(f"{kind}.1", 1, "from it")]
    assert (best.accuracy, best.chance, best.n) == (1.0, 0.5, 3)
    assert best.share > 0.999
    assert found[Spot(f"{kind}.0", 1, "from it")].accuracy == 0.0
    assert str(best.spot) == f"{kind}.1.1 from it"


def test_a_tie_is_not_right() -> None:
    network = Known({"encoder.0": looks_at(RIGHT)})
    even = next(s for s in survey(network, sentences(), pad=0) if s.spot.head == 0)
    assert even.accuracy == 0.0
    assert even.share == pytest.approx((1 / 5 + 1 / 4 + 1 / 8) / 3)


def test_padding_takes_no_share() -> None:
    network = Known({"encoder.0": looks_at(RIGHT)})
    together = survey(network, sentences(), pad=0, batch=3)
    alone = survey(network, sentences(), pad=0, batch=1)
    for a, b in zip(together, alone, strict=True):
        assert a.share == pytest.approx(b.share)


def test_chance_counts_the_candidates_of_each_sentence() -> None:
    ids = (RIGHT, WRONG, WRONG, IT)
    two = Reading("from it", "encoder", (3,), ((0,), (1,)))
    three = Reading("from it", "encoder", (3,), ((0,), (1,), (2,)))
    asked = [Sentence(ids, ids, (two,)), Sentence(ids, ids, (three,))]
    found = survey(Known({"encoder.0": looks_at(RIGHT)}), asked, pad=0)
    assert found[0].chance == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_words_weight_is_the_sum_of_its_columns_and_the_mean_of_its_rows() -> None:
    weights = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.1, 0.3], [0.0, 0.0, 1.0, 0.0]]])
    found = weights_of_words(weights, (0, 1), ((0, 1), (2,), (3,)))
    expected = [(0.3 + 0.6) / 2, (0.3 + 0.1) / 2, (0.4 + 0.3) / 2]
    torch.testing.assert_close(found, torch.tensor([expected]))
    assert float(found.sum()) == pytest.approx(1.0)


def test_the_pieces_of_a_word_are_those_that_overlap_it() -> None:
    spans = [(0, 3), (3, 7), (7, 10), (10, 12), (12, 12), (12, 13)]  # "The| ani|mal| d|(nothing)|."
    assert pieces_of(spans, (0, 3)) == (0,)
    assert pieces_of(spans, (4, 10)) == (1, 2)
    assert pieces_of(spans, (11, 12)) == (3,)
    assert pieces_of(spans, (12, 13)) == (5,)
    assert pieces_of([], (0, 3)) == ()


def test_a_real_models_weights_are_recorded_for_every_layer() -> None:
    config = ModelConfig(
        kind="encoder-decoder", vocab_size=16, width=16, num_layers=2, num_heads=2, context=16
    )
    network = build(config).eval()
    (first, *_) = sentences()
    weights = attention_of(network, first, pad=0)  # type: ignore[arg-type]
    assert set(weights) == {f"{kind}.{i}" for kind in ("encoder", "decoder", "cross") for i in (0, 1)}
    for of_layer in weights.values():
        assert of_layer.shape == (2, 5, 5)
        torch.testing.assert_close(of_layer.sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (8, 10, 0.4902, 0.9433),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    # Figures from the closed form in Wilson 1927: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    assert interval(right, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_mirrors(counted: tuple[int, int]) -> None:
    right, n = counted
    low, high = interval(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1
    other_low, other_high = interval(n - right, n)
    assert math.isclose(low, 1 - other_high, abs_tol=1e-9)
    assert math.isclose(high, 1 - other_low, abs_tol=1e-9)
