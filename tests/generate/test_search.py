"""Greedy search and sampling, over a model whose every prefix has its own logits."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generate.fake import FakeDecoding, Oracle

from regard.errors import ConfigError, RegardError
from regard.generate.logits import forbid, no_repeat_ngram, repetition_penalty
from regard.generate.search import Hypothesis, SearchConfig, search

EOS, PAD, VOCAB = 1, 0, 7


def run(
    oracle: Oracle, prompts: list[list[int]], *, state: FakeDecoding | None = None, **options: Any
) -> list[list[Hypothesis]]:
    """Search from prompts, padded on the left where they differ in length."""
    others = {
        name: options.pop(name) for name in ("rows", "transforms", "on_token", "stop") if name in options
    }
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return search(
        state or oracle.start(len(prompts)),
        ids,
        key_mask=mask,
        eos_id=options.pop("eos_id", EOS),
        pad_id=PAD,
        config=SearchConfig(**{"max_tokens": 8, **options}),
        **others,
    )


PROMPTS = [[2], [3, 4, 5], [6, 2], [5, 5, 5, 5], [4]]
KINDS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.7, "no_repeat_ngram": 2},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.8, "top_k": 5, "top_p": 0.95, "min_p": 0.01, "seed": 4, "num_return": 3},
    {"num_beams": 3, "num_return": 3},
    {"num_beams": 4, "num_return": 2, "repetition_penalty": 1.3, "early_stopping": "never", "min_tokens": 2},
]


def close(ours: list[Hypothesis], theirs: list[Hypothesis]) -> None:
    assert [(one.ids, one.finished) for one in ours] == [(one.ids, one.finished) for one in theirs]
    assert [one.score for one in ours] == pytest.approx([one.score for one in theirs])
    assert [one.normalised for one in ours] == pytest.approx([one.normalised for one in theirs])


def test_greedy_takes_the_likeliest_token_and_sums_the_models_log_probabilities() -> None:
    oracle = Oracle(VOCAB)
    for prompt, (found,) in zip(PROMPTS, run(oracle, PROMPTS), strict=True):
        prefix, wanted = list(prompt), []
        while len(wanted) < 8 and (not wanted or wanted[-1] != EOS):
            wanted.append(int(oracle.logits(prefix).argmax()))
            prefix.append(wanted[-1])
        assert found.finished == (wanted[-1] == EOS)
        assert found.ids == [token for token in wanted if token != EOS]
        assert found.score == pytest.approx(oracle.total(prompt, wanted))
        assert found.normalised == pytest.approx(found.score / len(wanted))


@pytest.mark.parametrize("options", KINDS)
def test_a_row_of_a_batch_gets_what_it_gets_alone(options: dict[str, Any]) -> None:
    oracle = Oracle(VOCAB, seed=1)
    together = run(oracle, PROMPTS, **options)
    for row, prompt in enumerate(PROMPTS):
        close(together[row], run(oracle, [prompt], rows=[row], **options)[0])
    order = [3, 0, 4]
    for row, found in zip(
        order, run(oracle, [PROMPTS[row] for row in order], rows=order, **options), strict=True
    ):
        close(together[row], found)


@pytest.mark.parametrize("options", KINDS)
def test_a_finished_row_leaves_the_computation(options: dict[str, Any]) -> None:
    oracle = Oracle(VOCAB, seed=2, eos={EOS: 1.0})
    state = oracle.start(len(PROMPTS))
    run(oracle, PROMPTS, state=state, **{**options, "max_tokens": 30, "min_tokens": 2})
    assert state.sizes[0] == len(PROMPTS)
    widest = max(state.sizes)
    assert widest == len(PROMPTS) * options.get("num_beams", options.get("num_return", 1))
    after = state.sizes[state.sizes.index(widest) :]
    assert after == sorted(after, reverse=True)
    assert after[-1] < widest


def test_greedy_moves_rows_only_when_one_finishes() -> None:
    oracle = Oracle(VOCAB, eos={EOS: -1e9})
    state = oracle.start(3)
    run(oracle, PROMPTS[:3], state=state)
    assert state.moves == []
    assert state.sizes == [3] * 8


def test_nothing_is_computed_after_the_last_token() -> None:
    oracle = Oracle(VOCAB)
    state = oracle.start(1)
    assert len(run(oracle, [[2]], state=state, max_tokens=1, eos_id=None)[0][0].ids) == 1
    assert state.sizes == [1]


@pytest.mark.parametrize("options", KINDS)
def test_the_end_is_forbidden_before_min_tokens_and_max_tokens_is_the_limit(options: dict[str, Any]) -> None:
    oracle = Oracle(VOCAB, eos={EOS: 6.0})
    for row in run(oracle, PROMPTS, **{**options, "min_tokens": 3, "max_tokens": 6}):
        for found in row:
            assert 3 <= len(found.ids) <= 6
            assert EOS not in found.ids
            assert found.finished or len(found.ids) == 6
    assert all(
        len(row[0].ids) == 6 for row in run(oracle, PROMPTS, eos_id=None, **{**options, "max_tokens": 6})
    )


def test_several_tokens_may_end_a_text() -> None:
    oracle = Oracle(VOCAB, eos={EOS: 1.0, 4: 1.0})
    for row in run(oracle, PROMPTS, eos_id=[EOS, 4], max_tokens=50):
        assert row[0].finished
        assert not {EOS, 4} & set(row[0].ids)


def test_penalties_see_the_prompt_and_never_the_padding() -> None:
    oracle = Oracle(VOCAB, eos={EOS: -1e9})
    for prompt, (found,) in zip(
        PROMPTS, run(oracle, PROMPTS, repetition_penalty=1.5, no_repeat_ngram=3), strict=True
    ):
        text = list(prompt)
        for token in found.ids:
            ids = torch.tensor([text])
            changed = no_repeat_ngram(3)(repetition_penalty(1.5)(oracle.logits(text)[None], ids), ids)
            assert token == int(changed.argmax())
            text.append(token)
        assert found.score == pytest.approx(oracle.total(prompt, found.ids))


def test_the_callers_transforms_come_first() -> None:
    oracle = Oracle(VOCAB, eos={EOS: -5.0})
    for options in KINDS:
        for row in run(oracle, PROMPTS, transforms=[forbid([2, 3, 4])], **{**options, "no_repeat_ngram": 0}):
            assert all(not {2, 3, 4} & set(found.ids) for found in row)


def test_samples_follow_the_filtered_distribution() -> None:
    oracle = Oracle(VOCAB, scale=1.0)
    draws = run(
        oracle, [[2]], temperature=0.7, top_k=5, top_p=0.9, num_return=4000, seed=0, max_tokens=1, eos_id=None
    )[0]
    counts = Counter(found.ids[0] for found in draws)
    shares = (oracle.logits([2]) / 0.7).softmax(-1).double()
    order = shares.argsort(descending=True)[:5]
    top = shares[order] / shares[order].sum()
    kept = order[: int((top.cumsum(0) < 0.9).sum()) + 1].tolist()
    assert set(counts) == set(kept)
    for token in kept:
        wanted = float(shares[token] / shares[kept].sum())
        assert counts[token] / 4000 == pytest.approx(wanted, abs=5 * math.sqrt(wanted / 4000))
    assert {round(found.score, 4) for found in draws if found.ids == [kept[0]]} == {
        round(oracle.total([2], [kept[0]]), 4)
    }


def test_a_seed_fixes_the_samples_and_rows_and_copies_differ() -> None:
    oracle = Oracle(50, scale=0.1)
    options: dict[str, Any] = {"temperature": 1.0, "eos_id": None, "max_tokens": 100}
    one = run(oracle, [[2], [2]], seed=5, num_return=2, **options)
    assert one == run(oracle, [[2], [2]], seed=5, num_return=2, **options)
    texts = [tuple(found.ids) for row in one for found in row]
    assert len(set(texts)) == 4
    assert one != run(oracle, [[2], [2]], seed=6, num_return=2, **options)
    assert run(oracle, [[2]], **options) != run(oracle, [[2]], **options)
    torch.manual_seed(0)
    first = run(oracle, [[2]], **options)
    torch.manual_seed(0)
    assert first != run(oracle, [[2]], **options)  # the global generator plays no part


def test_a_temperature_near_zero_is_greedy() -> None:
    oracle = Oracle(VOCAB)
    for ours, theirs in zip(
        run(oracle, PROMPTS), run(oracle, PROMPTS, temperature=1e-9, seed=1), strict=True
    ):
        close(ours, theirs)


def test_samples_are_sorted() -> None:
    (row,) = run(Oracle(VOCAB), [[2]], temperature=1.0, num_return=9, seed=0, length_penalty=0.5)
    assert [found.normalised for found in row] == sorted((found.normalised for found in row), reverse=True)
    for found in row:
        assert found.normalised == pytest.approx(found.score / (len(found.ids) + found.finished) ** 0.5)


def test_tokens_are_streamed_as_they_come() -> None:
    oracle, seen = Oracle(VOCAB), [[] for _ in PROMPTS]  # type: ignore[var-annotated]
    found = run(oracle, PROMPTS, on_token=lambda row, token: seen[row].append(token), temperature=1.0, seed=2)
    assert seen == [row[0].ids for row in found]
    for options in ({"num_beams": 2}, {"temperature": 1.0, "num_return": 2}):
        with pytest.raises(ConfigError, match="can't be streamed"):
            run(oracle, PROMPTS, on_token=lambda row, token: None, **options)


def test_stop_ends_one_row_and_keeps_its_last_token() -> None:
    oracle = Oracle(VOCAB, eos={EOS: -1e9})
    free = run(oracle, PROMPTS)
    stopped = run(oracle, PROMPTS, stop=lambda row, ids: row == 1 and len(ids) == 3)
    for row, (before, after) in enumerate(zip(free, stopped, strict=True)):
        assert after[0].ids == before[0].ids[: 3 if row == 1 else None]
        assert after[0].finished == (row == 1)


def test_an_error_of_the_callers_is_passed_on() -> None:
    def leave(row: int, token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Oracle(VOCAB), [[2]], on_token=leave)


@pytest.mark.parametrize("options", [KINDS[0], KINDS[2], KINDS[4], KINDS[5]])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_named(options: dict[str, Any], value: float) -> None:
    oracle = Oracle(VOCAB, eos={EOS: -1e9})
    broken = oracle.logits([3, 4, 5])
    if value == -math.inf:
        broken[:] = value  # one token at -inf is merely impossible; all of them are no distribution
    else:
        broken[5] = value
    with pytest.raises(RegardError, match="logits for row 11 are NaN or infinite at new token 1;"):
        run(oracle, PROMPTS, rows=[10, 11, 12, 13, 14], **options)


@pytest.mark.parametrize("options", KINDS)
def test_an_impossible_token_is_never_chosen(options: dict[str, Any]) -> None:
    oracle = Oracle(VOCAB, eos={4: -math.inf, 5: -math.inf})
    for row in run(oracle, PROMPTS, **options):
        assert all(not {4, 5} & set(found.ids) for found in row)
        assert all(math.isfinite(found.score) for found in row)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 0}, {"num_beams": 2}])
def test_forbidding_every_token_is_an_error(options: dict[str, Any]) -> None:
    oracle = Oracle(3)
    with pytest.raises(
        RegardError, match="every token is forbidden for row 0 at new token 3; loosen no_repeat_ngram"
    ):
        run(oracle, [[2]], no_repeat_ngram=1, transforms=[lambda logits, ids: logits], eos_id=None, **options)


def test_prompts_must_be_padded_on_the_left() -> None:
    oracle = Oracle(VOCAB)
    for mask in ([[True, False]], [[False, False]]):
        with pytest.raises(ConfigError, match="padded on the left"):
            search(
                oracle.start(1),
                torch.tensor([[2, 0]]),
                key_mask=torch.tensor(mask),
                eos_id=1,
                pad_id=0,
                config=SearchConfig(),
            )


@pytest.mark.parametrize(
    ("eos_id", "pad_id", "name"), [(7, 0, "eos_id=7"), (-1, 0, "eos_id=-1"), (1, 99, "pad_id=99")]
)
def test_special_tokens_outside_the_vocabulary_are_refused(eos_id: int, pad_id: int, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is not in the model's vocabulary; give an id from 0 to 6"):
        search(
            Oracle(VOCAB).start(1), torch.tensor([[2]]), eos_id=eos_id, pad_id=pad_id, config=SearchConfig()
        )


def test_an_empty_batch_gives_nothing() -> None:
    oracle = Oracle(VOCAB)
    assert (
        search(
            oracle.start(0), torch.zeros(0, 1, dtype=torch.long), eos_id=1, pad_id=0, config=SearchConfig()
        )
        == []
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_tokens": True}, "max_tokens=True"),
        ({"min_tokens": -1}, "min_tokens=-1"),
        ({"max_tokens": 2, "min_tokens": 3}, "min_tokens=3 exceeds max_tokens=2"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 1.5}, "num_beams=1.5"),
        ({"length_penalty": math.nan}, "length_penalty=nan"),
        ({"length_penalty": 99.0}, "length_penalty=99"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p=1.5"),
        ({"temperature": 1.0, "min_p": -0.1}, "min_p=-0.1"),
        ({"temperature": 1.0, "top_k": -1}, "top_k=-1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"early_stopping": "soon"}, "early_stopping='soon'"),
        ({"early_stopping": 1}, "early_stopping=1"),
        ({"top_k": 5}, "top_k=5 would be ignored at temperature=0"),
        ({"top_p": 0.9, "min_p": 0.1}, "top_p=0.9, min_p=0.1 would be ignored"),
        ({"num_return": 2}, "num_return=2 exceeds num_beams=1"),
        ({"num_beams": 2, "num_return": 3}, "num_return=3 exceeds num_beams=2"),
        ({"num_beams": 2, "temperature": 1.0}, "exclude each other"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SearchConfig(**options)
    assert "\n" not in str(caught.value)


def test_the_configuration_is_read_without_torch(repo: Path) -> None:
    code = "import regard.generate.config, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(repo / "src")})
