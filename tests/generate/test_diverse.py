"""Diverse beams and coverage: against searches written out by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from tests.generate.fake import Oracle
from tests.models import zoo

from regard.errors import ConfigError
from regard.generate.config import SearchConfig
from regard.generate.coverage import coverage_penalty
from regard.generate.search import search
from regard.nn.attention import record

EOS = 2


def by_hand(oracle: Oracle, prompt: list[int], config: SearchConfig) -> list[tuple[list[int], float]]:
    """Search with groups, one candidate at a time, with none of the library's code."""
    groups, width = config.beam_groups, config.num_beams // config.beam_groups
    running: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in range(groups)]
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(groups)]
    open_groups = set(range(groups))
    for step in range(config.max_tokens):
        chosen: Counter[int] = Counter()
        for g in range(groups):
            if g not in open_groups:
                continue
            pairs = [
                (total + float(nats) - config.diversity_penalty * chosen[token], [*text, token])
                for total, text in running[g]
                for token, nats in enumerate(oracle.nats([*prompt, *text]))
            ]
            best = sorted(pairs, key=lambda pair: -pair[0])[: 2 * width]
            last = step + 1 == config.max_tokens
            for total, text in best[:width]:
                if text[-1] == EOS or last:
                    ended[g].append(
                        (total / len(text) ** config.length_penalty, [t for t in text if t != EOS])
                    )
            ended[g] = sorted(ended[g], key=lambda pair: -pair[0])[:width]
            running[g] = [pair for pair in best if pair[1][-1] != EOS][:width]
            chosen.update(text[-1] for _, text in running[g])
        open_groups = {
            g for g in open_groups
            if len(ended[g]) < width
            or running[g][0][0] / (step + 1) ** config.length_penalty > ended[g][-1][0]
        }  # fmt: skip
        if not open_groups:
            break
    found: dict[tuple[int, ...], float] = {}
    for score, text in sorted((pair for own in ended for pair in own), key=lambda pair: -pair[0]):
        found.setdefault(tuple(text), score)
    return [(list(text), score) for text, score in found.items()][: config.num_return]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("beams", "groups"), [(4, 2), (6, 3), (3, 3)])
def test_groups_search_as_by_hand(seed: int, beams: int, groups: int) -> None:
    oracle = Oracle(12, seed=seed, eos={EOS: 1.5})
    config = SearchConfig(
        max_tokens=6, num_beams=beams, beam_groups=groups, diversity_penalty=0.7, num_return=beams,
        early_stopping=False,
    )  # fmt: skip
    prompts = [[4, 5], [3, 9], [7, 7]]
    found = search(oracle.start(3), torch.tensor(prompts), eos_id=EOS, pad_id=0, config=config)
    for row, prompt in zip(found, prompts, strict=True):
        wanted = by_hand(oracle, prompt, config)
        assert [h.ids for h in row] == [text for text, _ in wanted]
        assert [h.normalised for h in row] == pytest.approx([score for _, score in wanted], abs=1e-4)
        for h in row:  # what the penalty took is no part of the model's own word
            assert h.score == pytest.approx(oracle.total(prompt, [*h.ids, *[EOS] * h.finished]), abs=1e-4)
        alone = search(oracle.start(1), torch.tensor([prompt]), eos_id=EOS, pad_id=0, config=config)[0]
        assert [h.ids for h in alone] == [h.ids for h in row]


def test_the_caller_stops_rows_not_groups() -> None:
    oracle = Oracle(12, seed=3)
    config = SearchConfig(max_tokens=6, num_beams=4, num_return=4, beam_groups=2, diversity_penalty=0.5)
    asked: set[int] = set()

    def stop(row: int, text: list[int]) -> bool:
        asked.add(row)
        return len(text) == 2 + row

    found = search(
        oracle.start(2), torch.tensor([[4, 5], [3, 9]]), eos_id=None, pad_id=0, config=config, stop=stop
    )
    assert asked == {0, 1}
    assert [{len(h.ids) for h in row} for row in found] == [{2}, {3}]


def test_a_penalty_spreads_the_texts() -> None:
    oracle = Oracle(20, seed=1, scale=1.0)
    shared: list[int] = []
    for settings in ({}, {"beam_groups": 4, "diversity_penalty": 5.0}):
        config = SearchConfig(max_tokens=4, num_beams=4, num_return=4, **settings)  # type: ignore[arg-type]
        rows = search(oracle.start(1), torch.tensor([[1]]), eos_id=None, pad_id=0, config=config)[0]
        shared.append(len({h.ids[0] for h in rows}))
    assert shared[1] == 4 > shared[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 4, "beam_groups": 3}, "does not divide num_beams=4"),
        ({"num_beams": 4, "beam_groups": 2}, "go together"),
        ({"num_beams": 4, "diversity_penalty": 1.0}, "go together"),
        ({"coverage_penalty": 0.2}, "ignored without a beam search"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SearchConfig(**settings)


def test_coverage_is_equation_14() -> None:
    seen = torch.tensor([[0.5, 2.0, 0.25], [1.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = 0.3 * (torch.tensor(0.5).log() + torch.tensor(0.25).log())
    assert coverage_penalty(seen, mask, 0.3).tolist() == pytest.approx([float(expected), 0.0])
    assert float(coverage_penalty(seen, None, 0.3)[1]) < -6


@torch.no_grad()
def translate(sources: list[torch.Tensor], beta: float, **options: Any) -> Any:
    module = zoo.model("encoder-decoder/rotary/layernorm/post", init_std=0.6)
    source, mask = zoo.pad(sources)
    config = SearchConfig(
        max_tokens=7, num_beams=3, num_return=3, early_stopping="never", coverage_penalty=beta, **options
    )
    state = module.start(source=source, source_mask=mask)
    return module, search(
        state, torch.ones(len(sources), 1, dtype=torch.long), eos_id=EOS, pad_id=0, config=config
    )


@torch.no_grad()
def test_coverage_orders_hypotheses_by_what_they_looked_at() -> None:
    sources = zoo.rows(6, 3, 9)
    module, found = translate(sources, 0.4)
    for source, row in zip(sources, found, strict=True):
        assert [h.normalised for h in row] == sorted((h.normalised for h in row), reverse=True)
        for h in row:  # teacher forcing over the whole text gives the same attention, step by step
            length = len(h.ids) + h.finished
            target = torch.tensor([[1, *h.ids][:length]])
            with record() as recorder:
                module(source[None], target)
            weights = [w[0].mean(1) for name, w in recorder.weights.items() if name.startswith("cross.")]
            seen = torch.stack(weights).mean(0).sum(1)
            cp = 0.4 * seen.clamp(max=1.0).log().sum()
            assert h.normalised == pytest.approx(h.score / length + float(cp), abs=1e-4)
        alone = translate([source], 0.4)[1][0]
        assert [h.ids for h in alone] == [h.ids for h in row]
    plain = translate(sources, 0.0)[1]
    assert [[h.ids for h in row] for row in plain] != [[h.ids for h in row] for row in found]


def test_coverage_needs_a_source() -> None:
    module = zoo.model("decoder/rotary/rmsnorm/pre")
    config = SearchConfig(num_beams=2, coverage_penalty=0.2)
    with pytest.raises(ConfigError, match="for an encoder-decoder"):
        search(module.start(batch=1), torch.tensor([[1]]), eos_id=EOS, pad_id=0, config=config)
