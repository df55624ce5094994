"""Masks: every combination of facts equals its definition, slot by slot."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.nn.masks import Mask


def definition(mask: Mask, row: int, query: int, key: int) -> bool:
    """Say by the words of the docstring whether the query at this slot may attend to this key."""
    seen = True
    if mask.causal:
        seen = key <= query or (mask.prefix is not None and key < int(mask.prefix[row]))
    if mask.window is not None:
        seen = seen and abs(query - key) < mask.window
    if mask.keys is not None:
        seen = seen and bool(mask.keys[row, key])
    return seen


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_a_mask_is_what_its_facts_say(data: st.DataObject) -> None:
    batch, num_keys = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))
    num_queries = data.draw(st.integers(1, num_keys))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    offset = data.draw(st.sampled_from([None, num_keys - num_queries, 0, 4, -2]))
    mask = Mask(
        causal=data.draw(st.booleans()),
        window=data.draw(st.sampled_from([None, 1, 2, 5, 9])),
        keys=torch.rand(batch, num_keys, generator=draw) < 0.7 if data.draw(st.booleans()) else None,
        prefix=torch.randint(0, num_keys + 1, (batch,), generator=draw) if data.draw(st.booleans()) else None,
        offset=offset,
    )
    dense = mask.dense(num_queries, num_keys, "cpu")
    first = num_keys - num_queries if offset is None else offset
    for row in range(batch):
        for t in range(num_queries):
            for s in range(num_keys):
                made = True if dense is None else bool(dense[row if len(dense) > 1 else 0, 0, t, s])
                assert made == definition(mask, row, first + t, s)


def test_documents_see_only_themselves() -> None:
    numbers = torch.tensor([[0, 0, 1, 1, 1, 2], [4, 4, 4, 4, 5, 5]])
    dense = Mask(documents=(numbers, numbers)).dense(6, 6, "cpu")
    assert dense is not None
    assert torch.equal(dense[:, 0], numbers[:, :, None] == numbers[:, None, :])
    both = Mask(documents=(numbers[:, 4:], numbers), causal=True).dense(2, 6, "cpu")
    assert both is not None
    assert torch.equal(both[:, 0], dense[:, 0, 4:] & torch.ones(6, 6).tril().bool()[4:])


def test_a_mask_that_allows_everything_is_none() -> None:
    assert Mask().dense(3, 4, "cpu") is None
    assert Mask().is_empty
    assert Mask(window=9).dense(3, 4, "cpu") is None
    assert Mask(causal=True).dense(1, 5, "cpu") is None, "the newest token sees all that is cached"


def test_the_plain_triangle_is_known_as_such() -> None:
    assert Mask(causal=True).is_plain_causal(5, 5)
    assert Mask(causal=True, window=5).is_plain_causal(5, 5)
    assert Mask(causal=True, offset=0).is_plain_causal(5, 5)
    keys, prefix = torch.ones(1, 5, dtype=torch.bool), torch.tensor([2])
    others = [
        Mask(),
        Mask(causal=True, window=4),
        Mask(causal=True, keys=keys),
        Mask(causal=True, prefix=prefix),
    ]
    assert not any(mask.is_plain_causal(5, 5) for mask in others)
    assert not Mask(causal=True, offset=2).is_plain_causal(5, 7)


def test_the_dense_form_is_made_once_for_each_size_and_never_carried_to_a_changed_mask() -> None:
    mask = Mask(causal=True)
    assert mask.dense(4, 4, "cpu") is mask.dense(4, 4, "cpu")
    narrowed = dataclasses.replace(mask, window=1).dense(4, 4, "cpu")
    assert narrowed is not None
    assert torch.equal(narrowed[0, 0], torch.eye(4, dtype=torch.bool))


@pytest.mark.parametrize("fact", ["keys", "documents"])
def test_facts_that_may_blank_a_row_say_so(fact: str) -> None:
    numbers = torch.zeros(1, 3, dtype=torch.long)
    given_facts = {"keys": torch.zeros(1, 3, dtype=torch.bool), "documents": (numbers, numbers + 1)}
    mask = Mask(**{fact: given_facts[fact]})
    dense = mask.dense(3, 3, "cpu")
    assert mask.can_blank_a_row(3, 3)
    assert dense is not None
    assert not dense.any()


@given(
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 2, 4]),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    offset=st.sampled_from([None, -3, 0, 2, 7]),
)
@settings(deadline=None, max_examples=150)
def test_no_row_is_blank_that_is_not_announced(causal, window, sizes, offset) -> None:
    mask = Mask(causal=causal, window=window, offset=offset)
    dense = mask.dense(*sizes, "cpu")
    blank = dense is not None and not dense.any(-1).all()
    assert mask.can_blank_a_row(*sizes) == blank
