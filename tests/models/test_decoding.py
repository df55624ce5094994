"""What a search holds: padding takes no room in the context, and memory is copied only where somebody looks at it."""

from __future__ import annotations

import pytest
import torch
from tests.models.zoo import TOLERANCE, model, pad, rows

from regard.errors import ConfigError

POSITIONS = ["none", "sinusoidal", "learned", "rotary", "alibi", "t5"]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("position", POSITIONS)
def test_padding_takes_no_room_in_the_context(position: str, use_cache: bool) -> None:
    network = model(f"decoder/{position}/layernorm/pre", context=12)
    texts = rows(10, 3)
    ids, mask = pad(texts, "left")
    new = torch.cat(rows(9, seed=5))
    with torch.no_grad():
        state = network.start(batch=2, use_cache=use_cache)
        state.advance(ids, mask)
        state.reorder(torch.tensor([1]))  # the long row leaves; the short one has room for nine more
        found = [state.advance(token.view(1, 1))[0, 0] for token in new]
        whole = network(torch.cat((texts[1], new))[None])[0, 3:]
    torch.testing.assert_close(torch.stack(found), whole, **TOLERANCE)
    assert state.length == 19
    with pytest.raises(ConfigError, match="13 tokens are more than the model's context of 12"):
        state.advance(new[:1, None])


def test_the_longest_row_is_what_counts() -> None:
    network = model("decoder/rotary/layernorm/pre", context=6)
    ids, mask = pad(rows(5, 2), "left")
    state = network.start(batch=2)
    with torch.no_grad():
        state.advance(ids, mask)
        state.advance(ids[:, :1])
        with pytest.raises(ConfigError, match="7 tokens"):
            state.advance(ids[:, :1])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_targets_may_move_to_other_sources_at_any_time(use_cache: bool, padded: bool) -> None:
    network = model("encoder-decoder/sinusoidal/layernorm/pre")
    sources = rows(6, 3, 4) if padded else rows(5, 5, 5)
    ids, mask = pad(sources)
    order = torch.tensor([2, 0, 0])
    start = torch.ones(3, 1, dtype=torch.long)
    tokens = torch.tensor([[4], [5], [6]])
    with torch.no_grad():
        for before in (True, False):  # moved before the first token, and after it
            state = network.start(source=ids, source_mask=mask if padded else None, use_cache=use_cache)
            if before:
                state.reorder(order)
                state.advance(start)
            else:
                state.advance(start)
                state.reorder(order)
            state.reorder(torch.tensor([0, 1, 2]))
            found = state.advance(tokens)[:, -1]
            for row, source in enumerate(order.tolist()):
                target = torch.cat((start[row], tokens[row]))[None]
                alone = network(sources[source][None], target)[0, -1]
                torch.testing.assert_close(found[row], alone, **TOLERANCE)
