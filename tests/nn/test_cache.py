"""The key/value cache: what is appended comes back whole, whatever the chunks and the reorderings."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.nn.cache import Cache, CrossCache, LayerCache


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_cache_is_a_concatenation(data: st.DataObject) -> None:
    cache, batch = LayerCache(), data.draw(st.integers(1, 3))
    keys, values = torch.empty(batch, 2, 0, 3), torch.empty(batch, 2, 0, 3)
    for _ in range(data.draw(st.integers(1, 6))):
        count = data.draw(st.integers(1, 20))
        new = torch.randn(2, batch, 2, count, 3)
        keys, values = torch.cat((keys, new[0]), 2), torch.cat((values, new[1]), 2)
        kept = cache.append(*new)
        assert torch.equal(kept[0], keys)
        assert torch.equal(kept[1], values)
        assert cache.length == keys.shape[2]
        if data.draw(st.booleans()):
            rows = torch.tensor(data.draw(st.lists(st.integers(0, batch - 1), min_size=1, max_size=4)))
            cache.reorder(rows)
            keys, values, batch = keys[rows], values[rows], len(rows)


def test_appending_copies_what_is_old_only_now_and_then() -> None:
    cache, places = LayerCache(), set()
    for _ in range(200):
        keys, _ = cache.append(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
        places.add(keys.data_ptr())
    assert len(places) <= 6, "200 appends need about log2(200 / 16) moves"


def test_reordering_what_is_empty_does_nothing() -> None:
    cache = Cache(2)
    cache.reorder(torch.tensor([0, 0]))
    assert cache.length == 0


def test_the_cross_cache_is_left_alone_when_only_hypotheses_of_one_source_move() -> None:
    cache = Cache(1)
    cache.own[0].append(torch.randn(2, 1, 1, 2), torch.randn(2, 1, 1, 2))
    cache.cross[0].keys, cache.cross[0].values = torch.randn(2, 1, 3, 2), torch.randn(2, 1, 3, 2)
    before = cache.cross[0].keys
    cache.reorder(torch.tensor([1, 0]), cross=False)
    assert cache.cross[0].keys is before
    cache.reorder(torch.tensor([1, 0]))
    assert torch.equal(cache.cross[0].keys, before[[1, 0]])
    empty = CrossCache()
    empty.reorder(torch.tensor([0]))
    assert empty.keys is None
