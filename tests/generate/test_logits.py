"""Each transform against a plain reading of its definition, one row and one token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regard.errors import ConfigError
from regard.generate import logits as L
from regard.generate.config import SearchConfig

NEVER = float("-inf")
NO_IDS = torch.zeros(1, 0, dtype=torch.long)

rows = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12)
histories = st.lists(st.integers(-1, 5), max_size=12)


def kept(logits: Tensor) -> set[int]:
    return {token for token, value in enumerate(logits[0].tolist()) if value > NEVER}


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / sum(weights) for weight in weights]


@given(rows, st.integers(0, 15))
def test_top_k_keeps_every_token_that_fewer_than_k_beat(row: list[float], k: int) -> None:
    given_logits = torch.tensor([row])
    wanted = {i for i, x in enumerate(row) if k == 0 or sum(other > x for other in row) < k}
    made = L.top_k(k)(given_logits, NO_IDS)
    assert kept(made) == wanted
    assert all(made[0, i] == given_logits[0, i] for i in wanted)


@given(rows, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass(row: list[float], mass: float) -> None:
    ours = kept(L.top_p(mass)(torch.tensor([row]), NO_IDS))
    shares = probabilities(row)
    # A token is in when those strictly more likely fall short of the mass; at the border rounding decides.
    before = [sum(p for p in shares if p > share * (1 + 1e-6)) for share in shares]
    rivals = [
        sum(p for j, p in enumerate(shares) if j != i and p > q * (1 - 1e-6)) for i, q in enumerate(shares)
    ]
    assert {i for i, others in enumerate(rivals) if others < mass - 1e-5} <= ours
    assert ours <= {i for i, sum_before in enumerate(before) if sum_before < mass + 1e-5}
    assert max(range(len(row)), key=row.__getitem__) in ours
    assert mass < 1 or len(ours) == len(row)


def test_top_p_over_a_large_vocabulary_is_that_of_the_whole_sort() -> None:
    flat, peaked = torch.randn(1, 1000) * 0.1, torch.randn(1, 1000) * 4
    both = torch.cat((flat, peaked))
    made = L.top_p(0.9)(both, torch.zeros(2, 0, dtype=torch.long))
    for row, values in enumerate(both):
        order = values.softmax(-1).sort(descending=True)
        count = int((order.values.double().cumsum(0) < 0.9).sum()) + 1
        assert int((made[row] > NEVER).sum()) == count
        assert bool((made[row, order.indices[:count]] > NEVER).all())
    assert torch.equal(made[1:], L.top_p(0.9)(peaked, NO_IDS))  # the short way gives what the long way gives


@given(rows, st.floats(0, 1))
def test_min_p_keeps_tokens_near_enough_to_the_likeliest(row: list[float], share: float) -> None:
    ours = kept(L.min_p(share)(torch.tensor([row]), NO_IDS))
    ratios = [math.exp(value - max(row)) for value in row]
    assert {i for i, ratio in enumerate(ratios) if ratio >= share * (1 + 1e-5)} <= ours
    assert ours <= {i for i, ratio in enumerate(ratios) if ratio >= share * (1 - 1e-5)}
    assert ours


@given(rows, st.floats(0.05, 20))
def test_temperature_divides(row: list[float], value: float) -> None:
    ours = L.temperature(value)(torch.tensor([row]), NO_IDS).softmax(-1)
    wanted = torch.tensor([probabilities([x / value for x in row])])
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-4)


def test_a_tiny_temperature_is_greedy_and_not_nan() -> None:
    logits = torch.tensor([[90.0, 91.0, NEVER, -90.0]])
    for value in (1e-4, 1e-30, 1e-300):
        assert L.temperature(value)(logits, NO_IDS).softmax(-1).tolist() == [[0, 1, 0, 0]]


@given(histories, st.floats(0.2, 5))
def test_repetition_penalty_changes_seen_tokens_once(history: list[int], penalty: float) -> None:
    row = [2.0, -2.0, 0.0, NEVER, 1.0, -1.0]
    made = L.repetition_penalty(penalty)(torch.tensor([row]), torch.tensor([history], dtype=torch.long))
    wanted = [(x * penalty if x < 0 else x / penalty) if i in history else x for i, x in enumerate(row)]
    torch.testing.assert_close(made, torch.tensor([wanted]))


@given(histories)
def test_frequency_counts_and_presence_does_not(history: list[int]) -> None:
    logits, ids = torch.arange(6.0)[None], torch.tensor([history], dtype=torch.long)
    often = L.frequency_penalty(0.5)(logits, ids)[0].tolist()
    once = L.presence_penalty(0.5)(logits, ids)[0].tolist()
    assert often == [i - 0.5 * history.count(i) for i in range(6)]
    assert once == [i - 0.5 * (i in history) for i in range(6)]


@given(st.lists(st.integers(0, 3), max_size=14), st.integers(0, 5), st.integers(0, 4))
def test_no_repeat_ngram_forbids_what_would_repeat(history: list[int], size: int, padding: int) -> None:
    ids = torch.tensor([[-1] * padding + history], dtype=torch.long)
    made = L.no_repeat_ngram(size)(torch.zeros(1, 4), ids)
    seen = {tuple(history[i : i + size]) for i in range(len(history) - size + 1)} if size else set()
    tail = tuple(history[len(history) - size + 1 :]) if size else ()
    assert kept(made) == {token for token in range(4) if (*tail, token) not in seen}


def test_forbid_and_bias() -> None:
    logits = torch.arange(8.0).view(2, 4)
    ids = torch.zeros(2, 0, dtype=torch.long)
    assert L.forbid([1, 3])(logits, ids).tolist() == [[0, NEVER, 2, NEVER], [4, NEVER, 6, NEVER]]
    assert L.logit_bias({0: 1.5, 2: NEVER})(logits, ids).tolist() == [[1.5, 1, NEVER, 3], [5.5, 5, NEVER, 7]]
    with pytest.raises(ConfigError, match="token 9, but the vocabulary has 4"):
        L.forbid([9])(logits, ids)
    with pytest.raises(ConfigError, match="token 4, but the vocabulary has 4"):
        L.logit_bias({4: 1.0})(logits, ids)


EVERY = [
    L.temperature(0.7),
    L.top_k(2),
    L.top_p(0.6),
    L.min_p(0.3),
    L.repetition_penalty(1.5),
    L.frequency_penalty(0.3),
    L.presence_penalty(0.3),
    L.no_repeat_ngram(2),
    L.forbid([0]),
    L.logit_bias({1: 2.0}),
]


@pytest.mark.parametrize("transform", EVERY)
def test_a_transform_leaves_its_input_alone_and_rows_apart(transform: L.Transform) -> None:
    logits, ids = torch.randn(3, 6), torch.randint(0, 6, (3, 7))
    logits[1, 4] = NEVER
    copies = logits.clone(), ids.clone()
    made = transform(logits, ids)
    assert torch.equal(logits, copies[0])
    assert torch.equal(ids, copies[1])
    alone = torch.cat([transform(logits[row : row + 1], ids[row : row + 1]) for row in range(3)])
    assert torch.equal(made, alone)
    assert made[1, 4] == NEVER
    assert not made.isnan().any()


def test_a_run_is_forbidden_where_a_row_ends_with_its_beginning() -> None:
    ids = torch.tensor([[5, 1, 2], [1, 2, 0], [-1, -1, 2]])
    made = L.forbid_runs([[1, 2, 3], [2, 4], [0], [9, 9, 9, 9, 0]])(torch.zeros(3, 6), ids)
    assert [kept(row[None]) for row in made] == [{1, 2, 5}, {1, 2, 3, 4, 5}, {1, 2, 3, 5}]
    assert kept(L.forbid_runs([[1, 2]])(torch.zeros(1, 6), NO_IDS)) == set(range(6))
    with pytest.raises(ConfigError, match="empty run"):
        L.forbid_runs([[1], []])
    with pytest.raises(ConfigError, match="token 7, but the vocabulary has 6"):
        L.forbid_runs([[1, 7]])(torch.zeros(3, 6), ids)


def test_forced_tokens_are_certain_and_only_where_they_shall_be() -> None:
    given_logits, ids = torch.randn(2, 6), torch.zeros(2, 3, dtype=torch.long)
    made = L.force([4, 1])(given_logits, ids)
    assert kept(made) == {1, 4}
    assert made[:, [1, 4]].eq(0).all()
    assert torch.equal(L.only_at(3, L.force([4]))(given_logits, ids), L.force([4])(given_logits, ids))
    assert L.only_at(2, L.force([4]))(given_logits, ids) is given_logits
    with pytest.raises(ConfigError, match="has no token"):
        L.force([])
    with pytest.raises(ConfigError, match="force names token 6"):
        L.force([6])(given_logits, ids)


def test_what_is_left_is_normalised_anew() -> None:
    left = L.forbid([0, 1])(torch.randn(2, 5).log_softmax(-1), NO_IDS)
    assert torch.allclose(L.renormalise()(left, NO_IDS).exp().sum(-1), torch.ones(2))
    nothing = torch.full((1, 5), NEVER)
    assert torch.equal(L.renormalise()(nothing, NO_IDS), nothing)
    assert len(L.penalties(SearchConfig(renormalise=True))) == 1


def test_compose_applies_in_order_and_nothing_changes_nothing() -> None:
    logits = torch.tensor([[1.0, 2.0]])
    both = L.compose(L.logit_bias({0: 3.0}), L.top_k(1))
    assert both(logits, NO_IDS).tolist() == [[4.0, NEVER]]
    assert L.compose()(logits, NO_IDS) is logits
    for neutral in (
        L.top_k(0),
        L.top_p(1),
        L.min_p(0),
        L.temperature(1),
        L.repetition_penalty(1),
        L.no_repeat_ngram(0),
    ):
        assert neutral(logits, torch.tensor([[0, 0]])) is logits


def test_a_configuration_lists_only_what_it_asks_for() -> None:
    plain = SearchConfig()
    assert L.penalties(plain) == []
    assert L.filters(plain) == []
    full = SearchConfig(
        temperature=0.5, top_k=3, top_p=0.5, min_p=0.1, repetition_penalty=1.2, no_repeat_ngram=3
    )
    assert len(L.penalties(full)) == 2
    assert len(L.filters(full)) == 4


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (L.temperature, 0),
        (L.temperature, -1),
        (L.temperature, math.nan),
        (L.top_k, -1),
        (L.top_k, 1.5),
        (L.top_p, 0),
        (L.top_p, 1.1),
        (L.min_p, -0.1),
        (L.repetition_penalty, 0),
        (L.repetition_penalty, math.inf),
        (L.no_repeat_ngram, -2),
        (L.frequency_penalty, math.nan),
    ],
)
def test_a_setting_that_cannot_be_is_refused(make: object, value: float) -> None:
    with pytest.raises(ConfigError, match="give a"):
        make(value)  # type: ignore[operator]
