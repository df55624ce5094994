"""Beam search against a plain reading of its rules, the exhaustive optimum and the transformers library."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generate.fake import Oracle

from regard.generate import beam
from regard.generate.search import Hypothesis, SearchConfig, search

EOS, PAD, VOCAB = 1, 0, 6


def run(
    oracle: Oracle, prompts: list[list[int]], *, stop: Any = None, **options: Any
) -> list[list[Hypothesis]]:
    return search(
        oracle.start(len(prompts)),
        torch.tensor(prompts),
        eos_id=EOS,
        pad_id=PAD,
        config=SearchConfig(**options),
        stop=stop,
    )


def plain_beam(
    oracle: Oracle, prompt: list[int], config: SearchConfig
) -> list[tuple[list[int], float, float]]:
    """Read the rules of `beam_search` one after another, over Python lists."""
    beams, running, ended = config.num_beams, [((), 0.0)], []  # type: ignore[var-annotated]
    for length in range(1, config.max_tokens + 1):
        found = []
        for text, total in running:
            for token, nats in enumerate(oracle.nats([*prompt, *text]).tolist()):
                if token != EOS or length > config.min_tokens:
                    found.append(((*text, token), total + nats))
        found = sorted(found, key=lambda one: -one[1])[: 2 * beams]
        for text, total in found[:beams]:
            if text[-1] == EOS or length == config.max_tokens:
                ended.append((text, total, total / length**config.length_penalty))
        ended = sorted(ended, key=lambda one: -one[2])[:beams]
        running = [one for one in found if one[0][-1] != EOS][:beams]
        if not running:
            break
        if len(ended) == beams:
            reach = (
                config.max_tokens
                if config.early_stopping == "never" and config.length_penalty > 0
                else length
            )
            if config.early_stopping is True or running[0][1] / reach**config.length_penalty <= ended[-1][2]:
                break
    return [([token for token in text if token != EOS], total, normal) for text, total, normal in ended][
        : config.num_return
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 9),
    st.sampled_from([-1.0, 0.0, 0.6, 1.0, 2.5]),
    st.integers(1, 8),
    st.integers(0, 3),
    st.sampled_from([True, False, "never"]),
    st.sampled_from([-2.0, 0.0, 2.0]),
)
def test_the_rules_read_plainly(
    seed: int, beams: int, penalty: float, most: int, least: int, early: Any, eos: float
) -> None:
    oracle = Oracle(VOCAB, seed=seed, eos={EOS: eos})
    config = SearchConfig(
        max_tokens=most,
        min_tokens=min(least, most),
        num_beams=beams,
        num_return=beams,
        length_penalty=penalty,
        early_stopping=early,
    )
    prompts = [[2], [3], [5]]
    rows = search(oracle.start(3), torch.tensor(prompts), eos_id=EOS, pad_id=PAD, config=config)
    for prompt, ours in zip(prompts, rows, strict=True):
        wanted = plain_beam(oracle, prompt, config)
        assert [one.ids for one in ours] == [text for text, _, _ in wanted]
        assert [one.score for one in ours] == pytest.approx([score for _, score, _ in wanted], rel=1e-5)
        assert [one.normalised for one in ours] == pytest.approx(
            [normal for _, _, normal in wanted], rel=1e-5
        )


@pytest.mark.parametrize("seed", range(8))
def test_one_beam_is_greedy(seed: int) -> None:
    oracle = Oracle(VOCAB, seed=seed, eos={EOS: -1.0})
    config, prompts = SearchConfig(max_tokens=12), torch.tensor([[2], [3], [4]])
    state = oracle.start(3)
    with torch.inference_mode():
        logits = state.advance(prompts)[:, -1]
        one = beam.beam_search(
            state, logits, prompts[:, :0], eos=(EOS,), pad_id=PAD, config=config, rows=[0, 1, 2]
        )
    greedy = search(oracle.start(3), prompts, eos_id=EOS, pad_id=PAD, config=config)
    for ours, theirs in zip(one, greedy, strict=True):
        assert (ours[0].ids, ours[0].finished) == (theirs[0].ids, theirs[0].finished)
        assert ours[0].score == pytest.approx(theirs[0].score)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
def test_a_huge_width_finds_the_exhaustive_optimum(penalty: float) -> None:
    oracle, most = Oracle(4, seed=7), 5
    every = []
    for length in range(1, most + 1):
        for text in itertools.product(range(4), repeat=length):
            if EOS not in text[:-1] and (text[-1] == EOS or length == most):
                every.append((oracle.total([2], text) / length**penalty, text))
    every.sort(reverse=True)
    (found,) = run(oracle, [[2]], max_tokens=most, num_beams=4**most, num_return=20, length_penalty=penalty)
    for one, (wanted, text) in zip(found, every, strict=False):
        assert one.normalised == pytest.approx(wanted, rel=1e-5)
        assert one.ids == [token for token in text if token != EOS]
    (everything,) = run(oracle, [[2]], max_tokens=most, num_beams=4**most, num_return=4**most)
    assert len(everything) == len(every)
    assert math.fsum(math.exp(one.score) for one in everything) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("early", [True, False, "never"])
def test_scores_are_true_and_texts_sorted_and_distinct(early: Any) -> None:
    oracle = Oracle(VOCAB, seed=3)
    for row in run(
        oracle,
        [[2], [3], [4]],
        max_tokens=9,
        num_beams=6,
        num_return=6,
        early_stopping=early,
        length_penalty=0.8,
    ):
        assert len(row) == 6
        assert len({tuple(one.ids) for one in row}) == 6
        assert [one.normalised for one in row] == sorted((one.normalised for one in row), reverse=True)
    for prompt, row in zip(
        [[2], [3]], run(oracle, [[2], [3]], max_tokens=9, num_beams=4, num_return=4), strict=True
    ):
        for one in row:
            whole = [*one.ids, EOS] if one.finished else one.ids
            assert one.score == pytest.approx(oracle.total(prompt, whole), rel=1e-5)
            assert one.normalised == pytest.approx(one.score / len(whole), rel=1e-5)


def test_a_longer_text_wins_under_a_larger_penalty() -> None:
    oracle = Oracle(VOCAB, seed=1, eos={EOS: 0.5})
    options: dict[str, Any] = {"max_tokens": 20, "num_beams": 5, "early_stopping": "never"}
    lengths = [
        sum(len(row[0].ids) for row in run(oracle, [[2], [3], [4], [5]], length_penalty=penalty, **options))
        for penalty in (-1.0, 0.0, 1.0, 3.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_never_stopping_early_is_never_worse() -> None:
    for seed in range(10):
        oracle = Oracle(VOCAB, seed=seed)
        options: dict[str, Any] = {"max_tokens": 10, "num_beams": 3}
        by_kind = {
            early: run(oracle, [[2]], early_stopping=early, **options)[0][0].normalised
            for early in (True, False, "never")
        }
        assert by_kind["never"] >= by_kind[False] - 1e-6
        assert by_kind["never"] >= by_kind[True] - 1e-6


def test_the_score_is_the_models_own_and_the_order_is_that_of_the_penalised_sum() -> None:
    oracle = Oracle(VOCAB, seed=4)
    found = run(oracle, [[2], [3]], max_tokens=7, num_beams=4, num_return=4, repetition_penalty=1.5)
    for prompt, row in zip([[2], [3]], found, strict=True):
        for one in row:
            whole = [*one.ids, EOS] if one.finished else one.ids
            penalised, text = 0.0, list(prompt)
            for token in whole:
                penalised += float(oracle.nats(text)[token]) * (1.5 if token in text else 1.0)
                text.append(token)
            assert one.score == pytest.approx(oracle.total(prompt, whole), rel=1e-5)
            assert one.normalised == pytest.approx(penalised / len(whole), rel=1e-5)


def test_stop_ends_hypotheses() -> None:
    oracle = Oracle(VOCAB, seed=5, eos={EOS: -1e9})
    (row,) = run(oracle, [[2]], max_tokens=12, num_beams=3, num_return=3, stop=lambda row, ids: ids[-1] == 4)
    for one in row:
        assert one.finished == (one.ids[-1] == 4)
        assert 4 not in one.ids[:-1]
    assert any(one.finished for one in row)


def test_the_same_text_with_two_ends_is_given_once() -> None:
    oracle = Oracle(VOCAB, seed=5, eos={EOS: 5.0, 4: 5.0})
    config = SearchConfig(max_tokens=4, num_beams=8, num_return=8)
    (row,) = search(oracle.start(1), torch.tensor([[2]]), eos_id=[EOS, 4], pad_id=PAD, config=config)
    assert len({tuple(one.ids) for one in row}) == len(row)


def test_the_cache_is_moved_only_when_the_order_changes() -> None:
    class Chain(Oracle):
        """Let the first step order the hypotheses, so that they keep their order afterwards."""

        def logits(self, prefix: Any) -> torch.Tensor:
            return torch.tensor([-99.0, -99.0, 3.0, 0.0] if len(prefix) == 1 else [-99.0, -99.0, 9.0, -99.0])

    state = Chain(4).start(1)
    search(state, torch.tensor([[2]]), eos_id=EOS, pad_id=PAD, config=SearchConfig(max_tokens=9, num_beams=2))
    assert state.moves == [[0, 0]]
    assert state.sizes == [1] + [2] * 8


@given(st.integers(1, 3), st.integers(1, 9_000), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_largest_by_blocks_are_the_largest(batch: int, size: int, count: int, seed: int) -> None:
    values = torch.randn(batch, size, generator=torch.Generator().manual_seed(seed))
    count = min(count, size)
    top, places = beam._largest(values, count)
    assert torch.equal(top, values.topk(count).values)
    assert torch.equal(values.gather(1, places), top)
    assert all(len(set(row)) == count for row in places.tolist())


class Theirs:
    """Be a Decoding over a model of the transformers library, computing everything again at each step."""

    def __init__(self, model: Any, batch: int) -> None:
        self.model, self.batch, self.ids = model, batch, torch.zeros(batch, 0, dtype=torch.long)

    def advance(self, ids: torch.Tensor, key_mask: Any = None, *, only_last: bool = False) -> torch.Tensor:
        assert key_mask is None
        self.ids = torch.cat((self.ids, ids), 1)
        return self.model(self.ids).logits[:, -ids.shape[1] :]

    def reorder(self, rows: torch.Tensor) -> None:
        self.ids, self.batch = self.ids[rows], len(rows)


@pytest.fixture(scope="module")
def their_model() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=24,
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        initializer_range=0.6,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=23,
        use_cache=False,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        # Texts should end now and then: every final state leans towards the end token's embedding.
        model.transformer.ln_f.bias.copy_(1.6 * model.transformer.wte.weight[1])
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1},
        {"num_beams": 1, "repetition_penalty": 1.4, "no_repeat_ngram": 2},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 0.0},
        {"num_beams": 5, "length_penalty": 2.0, "early_stopping": False},
        {"num_beams": 5, "length_penalty": -0.5, "early_stopping": False},
        {"num_beams": 3, "early_stopping": "never"},
        {"num_beams": 3, "length_penalty": 0.6, "early_stopping": "never", "min_tokens": 4},
        {"num_beams": 4, "no_repeat_ngram": 2, "repetition_penalty": 1.3, "early_stopping": False},
        {"num_beams": 6, "early_stopping": True, "max_tokens": 3},
    ],
)
def test_token_for_token_as_the_transformers_library(their_model: Any, options: dict[str, Any]) -> None:
    config = SearchConfig(**{"max_tokens": 14, "num_return": options["num_beams"], **options})
    prompts = torch.tensor([[2, 3], [4, 5], [6, 7], [8, 9], [10, 2], [3, 3]])
    names = {
        "max_new_tokens": config.max_tokens,
        "min_new_tokens": config.min_tokens or None,
        "num_beams": config.num_beams,
        "num_return_sequences": config.num_return,
        "repetition_penalty": config.repetition_penalty,
        "no_repeat_ngram_size": config.no_repeat_ngram,
        "do_sample": False,
        "return_dict_in_generate": True,
    }
    if config.num_beams > 1:
        names |= {
            "length_penalty": config.length_penalty,
            "early_stopping": config.early_stopping,
            "output_scores": True,
        }
    with torch.inference_mode():
        theirs = their_model.generate(prompts, attention_mask=torch.ones_like(prompts), **names)
    ours = search(Theirs(their_model, 6), prompts, eos_id=1, pad_id=23, config=config)
    flat = [one for row in ours for one in row]
    finished = 0
    for one, ids in zip(flat, theirs.sequences[:, 2:].tolist(), strict=True):
        whole = [*one.ids, 1] if one.finished else one.ids
        finished += one.finished
        assert ids == whole + [23] * (len(ids) - len(whole))
    assert finished
    if config.num_beams > 1:
        assert [one.normalised for one in flat] == pytest.approx(theirs.sequences_scores.tolist(), rel=1e-4)
