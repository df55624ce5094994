"""A cache whose layers keep a window only: bounded, and the tokens are those of the whole text computed anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models import zoo

from regard.generate.config import SearchConfig
from regard.generate.search import search
from regard.nn.cache import SLACK

WINDOW, CONTEXT = 5, 400


def model(position: str, **changes: Any) -> Any:
    return zoo.model(
        f"decoder/{position}/layernorm/pre", window=WINDOW, context=CONTEXT, init_std=0.5, **changes
    )


@pytest.mark.parametrize("position", ["rotary", "alibi", "t5", "none"])
@torch.no_grad()
def test_steps_far_beyond_the_window_give_the_logits_of_the_whole_text(position: str) -> None:
    made = model(position)
    ids, mask = zoo.pad(zoo.rows(300, 291), "left")
    whole = made(ids, key_mask=mask)
    state = made.start(batch=2)
    seen = [state.advance(ids[:, :40], mask[:, :40])]
    at = 40
    for size in [1] * 150 + [90, 3, 1, 8, 1, 1, 1, 5]:  # a step of 90 is more than the cache has room to move
        seen.append(state.advance(ids[:, at : at + size]))
        at += size
    assert at == 300
    found = torch.cat(seen, 1)
    assert torch.allclose(found[mask], whole[mask], **zoo.TOLERANCE)


@torch.no_grad()
def test_memory_is_bounded_in_windowed_layers_alone() -> None:
    made = model("rotary", global_layers=(1,))
    state = made.start(batch=1)
    state.advance(torch.ones(1, 300, dtype=torch.long))
    for _ in range(90):
        state.advance(torch.ones(1, 1, dtype=torch.long))
        windowed, everything = state._cache.own
        assert windowed._keys.shape[2] <= 2 * (WINDOW + SLACK)
        assert everything._keys.shape[2] >= state.length


@torch.no_grad()
def test_what_is_taken_back_never_was() -> None:
    made = model("rotary", global_layers=(1,))
    text = zoo.rows(200)[0][None]
    for use_cache in (True, False):
        straight, back = (made.start(batch=1, use_cache=use_cache) for _ in range(2))
        straight.advance(text[:, :150])
        back.advance(text[:, :149])
        for wrong in (1, 7, SLACK - 1):
            back.advance(torch.full((1, wrong), 5))
            back.rewind(wrong)
        back.advance(text[:, 149:150])
        a, b = (state.advance(text[:, 150:]) for state in (straight, back))
        assert torch.allclose(a, b, **zoo.TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return": 3}, {"temperature": 1.0, "seed": 2}])
@torch.no_grad()
def test_searches_are_the_same_with_the_cache_as_without(options: dict[str, Any]) -> None:
    made = model("rotary", global_layers=(1,))
    ids, mask = zoo.pad(zoo.rows(3, 9), "left")
    config = SearchConfig(max_tokens=50, **options)
    found = [
        search(
            made.start(batch=2, use_cache=use_cache), ids, key_mask=mask, eos_id=2, pad_id=0, config=config
        )
        for use_cache in (True, False)
    ]
    assert [[h.ids for h in row] for row in found[0]] == [[h.ids for h in row] for row in found[1]]


@torch.no_grad()
def test_a_reserved_cache_never_moves() -> None:
    made = zoo.model("decoder/rotary/layernorm/pre", context=CONTEXT)
    state = made.start(batch=1)
    state.reserve(120)
    places = set()
    for _ in range(120):
        state.advance(torch.ones(1, 1, dtype=torch.long))
        places.add(state._cache.own[0]._keys.data_ptr())
    assert len(places) == 1
