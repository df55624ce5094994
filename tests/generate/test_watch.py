"""A watcher sees a search and changes nothing of it; tokens that are known lead it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.generate.fake import Oracle

from regard.errors import ConfigError
from regard.generate.config import Hypothesis
from regard.generate.search import SearchConfig, search
from regard.generate.watch import Watcher, watcher_now, watching

PROMPT = [3, 4]


class Seeing(Watcher):
    """Remember all that is shown."""

    def __init__(self, kept: Sequence[int] = ()) -> None:
        super().__init__(kept)
        self.prompts: list[list[int]] = []
        self.steps: list[tuple[list[int], list[int], torch.Tensor]] = []
        self.found: list[Hypothesis] = []

    def prompted(self, ids: Sequence[int]) -> None:
        self.prompts.append(list(ids))

    def chose(self, tokens: Sequence[int]) -> None:
        self.steps.append((list(tokens), self.state.origin.tolist(), self.state.nats))

    def end(self, found: Sequence[Hypothesis]) -> None:
        super().end(found)
        self.found = list(found)


def run(oracle: Oracle, **settings: Any) -> tuple[list[Hypothesis], list[int]]:
    state = oracle.start(1)
    config = SearchConfig(**{"max_tokens": 9, **settings})
    (found,) = search(state, torch.tensor([PROMPT]), eos_id=2, pad_id=0, config=config, rows=[7])
    return found, state.sizes


CHOICES: list[dict[str, Any]] = [
    {},
    {"temperature": 1.1, "seed": 4, "top_k": 5},
    {"num_beams": 3, "length_penalty": 0.5},
    {"num_beams": 4, "num_return": 2, "early_stopping": "never"},
    {"num_beams": 4, "beam_groups": 2, "diversity_penalty": 1.0},
    {"no_repeat_ngram": 2, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_is_watched_is_the_same_search(choice: dict[str, Any], seed: int) -> None:
    oracle = Oracle(12, seed=seed, eos={2: 1.0})
    alone, _ = run(oracle, **choice)
    seeing = Seeing()
    with watching(seeing):
        found, _ = run(oracle, **choice)
    assert watcher_now() is None
    assert found == alone
    assert seeing.found[: len(found)] == found
    assert len(seeing.found) >= len(found)
    assert seeing.prompts == [PROMPT]
    assert seeing.written == found[0].ids
    # What was shown of each step follows from the model alone.
    rows = [PROMPT]
    for tokens, origin, nats in seeing.steps:
        for row, said in zip(rows, nats, strict=True):
            torch.testing.assert_close(said, oracle.nats(row))
        rows = [[*rows[source], token] for source, token in zip(origin, tokens, strict=True)]


@pytest.mark.parametrize("choice", CHOICES)
def test_known_tokens_lead_a_search_and_count_with_their_own_probability(choice: dict[str, Any]) -> None:
    oracle = Oracle(12, seed=1, eos={2: -2.0})
    kept = [5, 6, 5, 6, 5]  # which no_repeat_ngram alone would forbid
    with watching(Seeing(kept)):
        found, _ = run(oracle, **choice)
    for one in found:
        assert one.ids[:5] == kept
        ending = [2] if one.finished else []
        assert one.score == pytest.approx(oracle.total(PROMPT, [*one.ids, *ending]), abs=1e-4)
    alone, _ = run(oracle, **choice)
    with watching(Seeing(alone[0].ids)):
        again, _ = run(oracle, **choice)
    if choice.get("num_beams", 1) == 1:
        assert again[0].ids == alone[0].ids
        assert again[0].score == pytest.approx(alone[0].score)


def test_a_known_end_ends_the_text_and_nothing_may_follow_it() -> None:
    oracle = Oracle(12)
    with watching(Seeing([5, 2])):
        (found,), _ = run(oracle, min_tokens=6)
    assert (found.ids, found.finished) == ([5], True)
    with watching(Seeing([2, 5])), pytest.raises(ConfigError, match="token 2 ends the text"):
        run(oracle)
