"""Constraints and the rarer filters: only what is allowed is written; the filters are the published library's."""

from __future__ import annotations

import pytest
import torch
from tests.generate.fake import Oracle

from regard.errors import ConfigError, RegardError
from regard.generate.config import SearchConfig
from regard.generate.constraints import Trie, constrain
from regard.generate.cutoffs import epsilon_cutoff, eta_cutoff, typical_p
from regard.generate.search import search
from regard.generate.speculate import Lookup

EOS = 2
RUNS = [[3, 4], [3, 4, 5], [6], [7, 3, 3, 8]]


@pytest.mark.parametrize("options", [{}, {"num_beams": 4, "num_return": 4}, {"temperature": 2.0, "seed": 1}])
@pytest.mark.parametrize("seed", range(5))
def test_only_the_given_texts_are_written(seed: int, options: dict[str, int]) -> None:
    oracle = Oracle(10, seed=seed)
    prompts = torch.tensor([[0, 1, 5], [8, 9, 9]])
    mask = torch.tensor([[False, True, True], [True, True, True]])
    config = SearchConfig(max_tokens=9, early_stopping="never", **options)
    limit = constrain(Trie(RUNS, ends=[EOS]), 3)
    found = search(
        oracle.start(2), prompts, key_mask=mask, eos_id=EOS, pad_id=0, config=config, transforms=[limit]
    )
    for row, prompt in zip(found, ([1, 5], [8, 9, 9]), strict=True):
        assert all(h.ids in RUNS and h.finished for h in row)
        if "num_beams" in options:  # as many as there are texts: the best of them by the model's own word
            wanted = sorted(RUNS, key=lambda run: -oracle.total(prompt, [*run, EOS]) / (len(run) + 1))
            assert [h.ids for h in row] == wanted
    if not options:
        lookup = search(
            oracle.start(2), prompts, key_mask=mask, eos_id=EOS, pad_id=0, config=config, transforms=[limit],
            drafter=Lookup(4),
        )  # fmt: skip
        assert [row[0].ids for row in lookup] == [row[0].ids for row in found]


def test_a_function_says_what_may_follow() -> None:
    def odd_then_free(ids: list[int]) -> list[int] | None:
        return [1, 3, 5] if len(ids) < 3 else None

    oracle = Oracle(9, seed=2)
    config = SearchConfig(max_tokens=6)
    found = search(
        oracle.start(1), torch.tensor([[4]]), eos_id=None, pad_id=0, config=config,
        transforms=[constrain(odd_then_free, 1)],
    )[0][0].ids  # fmt: skip
    assert set(found[:3]) <= {1, 3, 5}
    prefix = [4, *found[:3]]
    for token in found[3:]:
        assert token == int(oracle.logits(prefix).argmax())
        prefix.append(token)


def test_what_allows_nothing_or_too_much_is_an_error() -> None:
    state = Oracle(9).start(1)
    first, config = torch.tensor([[4]]), SearchConfig()
    with pytest.raises(RegardError, match="every token is forbidden"):
        search(state, first, eos_id=2, pad_id=0, config=config, transforms=[constrain(lambda ids: [], 1)])
    with pytest.raises(ConfigError, match="allows token 9"):
        search(
            Oracle(9).start(1),
            first,
            eos_id=2,
            pad_id=0,
            config=config,
            transforms=[constrain(lambda i: [9], 1)],
        )
    for runs, ends in (([], [2]), ([[3]], []), ([[3], []], [2])):
        with pytest.raises(ConfigError, match="at least one"):
            Trie(runs, ends=ends)


@pytest.mark.parametrize("strength", [0.003, 0.1, 0.5, 0.95])
def test_filters_are_those_of_the_published_library(strength: float) -> None:
    processes = pytest.importorskip("transformers").generation.logits_process
    none = torch.empty(30, 0, dtype=torch.long)
    scores = (
        torch.randn(30, 50, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 6, 30)[:, None]
    )
    scores[3, 7:20] = float("-inf")
    theirs = {
        typical_p: processes.TypicalLogitsWarper(strength),
        epsilon_cutoff: processes.EpsilonLogitsWarper(strength),
        eta_cutoff: processes.EtaLogitsWarper(strength),
    }
    for ours, warper in theirs.items():
        safe = scores if ours is not eta_cutoff else scores.clamp(min=-1e4)  # its entropy of -inf is NaN
        wanted = warper(none, safe)
        assert torch.equal(ours(strength)(safe, none), wanted)
        assert bool((wanted == float("-inf")).any())
    for ours, off in ((typical_p, 1.0), (epsilon_cutoff, 0.0), (eta_cutoff, 0.0)):
        assert ours(off)(scores, none) is scores
    with pytest.raises(ConfigError, match="typical_p=0"):
        typical_p(0.0)


def test_filters_reach_sampling() -> None:
    oracle = Oracle(50, seed=1, scale=3.0)
    first = torch.tensor([[1]])
    for name, value in (("typical_p", 0.05), ("epsilon_cutoff", 0.9), ("eta_cutoff", 0.9)):
        config = SearchConfig(max_tokens=1, temperature=1.0, seed=0, num_return=40, **{name: value})
        written = {h.ids[0] for h in search(oracle.start(1), first, eos_id=None, pad_id=0, config=config)[0]}
        assert len(written) <= 3
        with pytest.raises(ConfigError, match=f"{name}=.*would be ignored at temperature=0"):
            SearchConfig(**{name: value})
