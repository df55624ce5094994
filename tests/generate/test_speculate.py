"""Speculation: the tokens of plain search, in fewer steps of the model, with caches that go back right."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tests.generate.fake import Oracle
from tests.models import zoo

from regard.errors import ConfigError
from regard.generate.config import Hypothesis, SearchConfig
from regard.generate.search import search
from regard.generate.speculate import Drafter, Lookup, ModelDraft

CONTEXT = 40


class Counted:
    """Be a state whose steps are counted."""

    def __init__(self, state: Any) -> None:
        self.state, self.steps = state, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.state, name)

    def advance(self, *args: Any, **kwargs: Any) -> Any:
        self.steps += 1
        return self.state.advance(*args, **kwargs)


class Guess:
    """Guess what a table says, or nonsense: the right text, wrong from time to time."""

    def __init__(self, texts: list[list[int]], num_tokens: int, seed: int = 0) -> None:
        self.texts, self.num_tokens, self.draw = texts, num_tokens, random.Random(seed)

    def begin(self, prompts: list[list[int]]) -> None:
        self.here = list(range(len(prompts)))

    def propose(self, texts: list[list[int]], counts: list[int]) -> list[list[int]]:
        found = []
        for place, text, count in zip(self.here, texts, counts, strict=True):
            right = self.texts[place][len(text) : len(text) + max(0, count)]
            found.append(
                [99 if self.draw.random() < 0.1 else (3 if self.draw.random() < 0.2 else t) for t in right]
            )
        return found

    def keep(self, places: list[int]) -> None:
        self.here = [self.here[place] for place in places]


def model(position: str = "rotary", *, seed: int = 0, **changes: Any) -> Any:
    """Make a decoder that repeats itself, as small ones do, with weights far from each other."""
    made = zoo.build(zoo.config(f"decoder/{position}/rmsnorm/pre", context=CONTEXT, **changes)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    return made


def write(
    made: Any,
    prompts: list[torch.Tensor],
    drafter: Drafter | None = None,
    *,
    eos: int | None = 2,
    **options: Any,
) -> tuple[list[Hypothesis], int]:
    """Continue prompts; give the texts and the number of steps."""
    ids, mask = zoo.pad(prompts, "left")
    state = Counted(made.start(batch=len(prompts)))
    config = SearchConfig(**{"max_tokens": 20, **options})
    with torch.no_grad():
        found = search(state, ids, key_mask=mask, eos_id=eos, pad_id=0, config=config, drafter=drafter)
    return [row[0] for row in found], state.steps


def same(found: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert [(h.ids, h.finished) for h in found] == [(h.ids, h.finished) for h in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)


def drafters(made: Any, prompts: list[torch.Tensor], seed: int) -> list[Drafter]:
    other = model(seed=seed + 100)
    right = [[*h.ids, 2] for h in write(made, prompts)[0]]

    def draft(small: Any) -> Drafter:
        return ModelDraft(lambda n: small.start(batch=n), context=CONTEXT, num_tokens=5)

    return [Lookup(6), draft(other), draft(made), Guess(right, 7, seed)]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_texts_are_the_same_in_fewer_steps(seed: int) -> None:
    made = model(seed=seed)
    prompts = zoo.rows(4, 1, 9, 3, seed=seed)
    wanted, plain = write(made, prompts)
    steps = []
    for drafter in drafters(made, prompts, seed):
        found, taken = write(made, prompts, drafter)
        same(found, wanted)
        assert taken <= plain
        steps.append(taken)
    # A draft that is the model itself is always right: five guesses and one token more a step, and the prompt's.
    longest = max(len(h.ids) + h.finished for h in wanted)
    assert steps[2] == 1 + -(-(longest - 1) // 6)
    assert steps[3] < plain


@pytest.mark.parametrize("position", ["learned", "alibi", "t5"])
def test_positions_and_windows_go_back_too(position: str) -> None:
    for window in (None, 4):
        made = model(position, seed=1, window=window)
        prompts = zoo.rows(5, 2, 7)
        wanted = write(made, prompts)[0]
        for drafter in drafters(made, prompts, 1):
            same(write(made, prompts, drafter)[0], wanted)


def test_rows_give_what_each_gives_alone() -> None:
    made = model(seed=4)
    prompts = zoo.rows(6, 2, 8)
    together = write(made, prompts, Lookup(4))[0]
    for prompt, row in zip(prompts, together, strict=True):
        same(write(made, [prompt], Lookup(4))[0], [row])


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.4}, {"no_repeat_ngram": 2}, {"min_tokens": 9}, {"max_tokens": 1}, {"max_tokens": 2},
        {"temperature": 0.9, "top_p": 0.95, "seed": 5}, {"temperature": 1.5, "seed": 6, "repetition_penalty": 1.2},
    ],
)  # fmt: skip
def test_every_setting_gives_the_text_of_plain_search(options: dict[str, Any]) -> None:
    for seed in (0,):
        made = model(seed=seed)
        prompts = zoo.rows(4, 7, seed=seed)
        wanted = write(made, prompts, **options)[0]
        for drafter in drafters(made, prompts, seed):
            same(write(made, prompts, drafter, **options)[0], wanted)


def test_a_text_without_an_end_stops_at_the_context() -> None:
    made = model(seed=2)
    prompts = zoo.rows(10)
    wanted = write(made, prompts, eos=None, max_tokens=CONTEXT - 9)[0]
    assert len(wanted[0].ids) == CONTEXT - 9
    for drafter in drafters(made, prompts, 2):
        same(write(made, prompts, drafter, eos=None, max_tokens=CONTEXT - 9)[0], wanted)
    # A draft with a smaller context guesses as long as it can.
    small = ModelDraft(lambda n: made.start(batch=n), context=16, num_tokens=3)
    found, steps = write(made, prompts, small, eos=None, max_tokens=CONTEXT - 9)
    same(found, wanted)
    assert 10 < steps < CONTEXT - 9


def test_callbacks_hear_the_same() -> None:
    made = model(seed=3)
    ids, _ = zoo.pad(zoo.rows(4, 4))
    heard: list[list[tuple[int, int]]] = []
    for drafter in (None, Lookup(5)):
        said: list[tuple[int, int]] = []
        search(
            made.start(batch=2), ids, eos_id=None, pad_id=0, config=SearchConfig(max_tokens=12), drafter=drafter,
            on_token=lambda row, token, said=said: said.append((row, token)),  # type: ignore[misc]
            stop=lambda row, text: len(text) == 6 + row,
        )  # fmt: skip
        heard.append(sorted(said, key=lambda pair: pair[0]))
    assert heard[0] == heard[1]
    assert len(heard[0]) == 6 + 7


def test_lookup_copies_what_followed_the_longest_run() -> None:
    lookup = Lookup(3)
    lookup.begin([[5, 6, 7, 8, 9, 6, 7], [1, 2, 3], [4, 4]])
    assert lookup.propose([[8], [4], [4]], [3, 3, 3]) == [[9, 6, 7], [], [4]]
    lookup.keep([2])
    assert lookup.propose([[4]], [0]) == [[]]


def test_only_single_texts_are_guessed() -> None:
    state = Oracle(9).start(1)
    for config in (SearchConfig(num_beams=2), SearchConfig(temperature=1.0, num_return=2)):
        with pytest.raises(ConfigError, match="one text a row"):
            search(state, torch.tensor([[1]]), eos_id=2, pad_id=0, config=config, drafter=Lookup())
    with pytest.raises(ConfigError, match="num_tokens=33"):
        Lookup(33)
