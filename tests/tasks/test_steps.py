"""Writing step by step gives what the verbs give, and says of each step what the model itself says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, make_parts, translator, writer
from tests.tasks.talker import talker

from regard.errors import ConfigError, DataError
from regard.nn.attention import record
from regard.tasks.base import Parts
from regard.tasks.chat import chat
from regard.tasks.generate import generate
from regard.tasks.steps import Alive, Event, Prompt, Token, Tree, Written, next_token, write
from regard.tasks.steps_tree import Node
from regard.tasks.summarize import summarize
from regard.tasks.translate import encode_sources, translate

TALK = [{"role": "system", "content": "a dog"}, {"role": "user", "content": "two birds"}]


def told(parts: Parts, verb: str, text: Any, **settings: Any) -> tuple[Written, list[Event]]:
    events: list[Event] = []
    return write(parts, verb, text, tell=events.append, **settings), events


def tokens(events: Sequence[Event]) -> list[Token]:
    return [event for event in events if isinstance(event, Token)]


def shown(events: Sequence[Event], found: Written) -> str:
    return "".join(token.delta for token in tokens(events)) + found.rest


def logprobs(parts: Parts, verb: str, prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
    """Give the model's log-probabilities (T + 1, V) of each token and of the one after them, in one plain pass."""
    module: Any = parts.module
    with torch.no_grad():
        if verb in ("translate", "summarize"):
            start = torch.tensor([[parts.config.start, *ids][: parts.config.context]])
            return module(torch.tensor([prompt]), start)[0].log_softmax(-1)
        whole = [*prompt, *ids][: parts.config.context]
        return module(torch.tensor([whole]))[0, len(prompt) - 1 :].log_softmax(-1)


def check_steps(
    parts: Parts, verb: str, prompt: Sequence[int], events: Sequence[Event], found: Written
) -> None:
    """Compare what was told of each step with a plain pass over the whole text."""
    steps = tokens(events)
    assert [step.id for step in steps if not step.end] == list(found.ids)
    assert [step.end for step in steps] == [False] * len(found.ids) + [True] * found.finished
    own = logprobs(parts, verb, prompt, found.ids)
    for step, nats in zip(steps, own, strict=False):
        assert step.logprob == pytest.approx(float(nats[step.id]), abs=1e-4)
        likeliest = nats.topk(len(step.alternatives))
        assert [one.logprob for one in step.alternatives] == pytest.approx(
            likeliest.values.tolist(), abs=1e-4
        )
        for one in step.alternatives:
            assert one.logprob == pytest.approx(float(nats[one.id]), abs=1e-4)
            assert one.text == parts.tokenizer.tokens([one.id])[0]
    assert shown(events, found).strip() == found.text.strip()


@pytest.mark.parametrize("text", SENTENCES[:5])
def test_a_greedy_translation_is_translates_own(text: str) -> None:
    parts = translator()
    found, events = told(parts, "translate", text)
    (own,) = translate(parts, [text], beams=1)
    assert (found.text, found.score, found.ids) == (own.text, own.score, own.ids)
    assert (found.tokens, found.finished, found.prompt_tokens) == (
        own.tokens,
        own.finished,
        own.source_tokens,
    )
    (source,) = encode_sources(parts, [text])
    check_steps(parts, "translate", source, events, found)
    prompt = events[0]
    assert isinstance(prompt, Prompt)
    assert [text[p.start : p.end] for p in prompt.tokens[:-1]] == [p.text for p in prompt.tokens[:-1]]
    assert prompt.tokens[-1].text == "<eos>"
    assert prompt.tokens[-1].start == prompt.tokens[-1].end


def test_a_summary_is_summarizes_own() -> None:
    parts = make_parts("encoder-decoder", words="bpe")
    found, events = told(parts, "summarize", SENTENCES[1], max_tokens=9)
    (own,) = summarize(parts, [SENTENCES[1]], beams=1, max_tokens=9)
    assert (found.text, found.score, found.tokens, found.finished) == (
        own.text, own.score, own.tokens, own.finished,
    )  # fmt: skip
    check_steps(parts, "summarize", encode_sources(parts, [SENTENCES[1]])[0], events, found)


@pytest.mark.parametrize("words", ["char", "bpe"])
@pytest.mark.parametrize("position", ["rotary", "alibi", "learned"])
@pytest.mark.parametrize(
    "choice",
    [
        {"temperature": 0.0},
        {"temperature": 1.3, "seed": 5},
        {"temperature": 0.9, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 6},
    ],
)
def test_a_continuation_is_generates_own(words: str, position: str, choice: dict[str, Any]) -> None:
    parts = writer(words, position)
    for text in ("a dog", "", "the animal"):
        found, events = told(parts, "generate", text, max_tokens=15, **choice)
        (own,) = generate(parts, [text], max_tokens=15, **choice)
        assert (found.text, found.ids, found.tokens, found.finished, found.prompt_tokens) == (
            own.text, own.ids, own.tokens, own.finished, own.prompt_tokens,
        )  # fmt: skip
        assert found.score == pytest.approx(own.score, abs=1e-4)
        if found.windows == 1:
            prompt = parts.tokenizer.encode(text) or [2]
            check_steps(parts, "generate", prompt, events, found)
        assert shown(events, found) == found.text
        assert found.seed == choice.get("seed")


def test_a_drawn_seed_gives_the_same_text_again() -> None:
    found = write(writer(), "generate", "a dog", max_tokens=9)
    assert found.seed is not None
    assert write(writer(), "generate", "a dog", max_tokens=9, seed=found.seed) == found
    assert generate(writer(), ["a dog"], max_tokens=9, seed=found.seed)[0].text == found.text


def test_a_text_outgrows_its_window_as_in_generate() -> None:
    parts, windows = writer(), []
    for choice in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"beams": 3}):
        found, events = told(parts, "generate", "a dog runs", max_tokens=80, attention=True, **choice)
        own_choice = {"num_beams": 3} if "beams" in choice else choice
        (own,) = generate(parts, ["a dog runs"], max_tokens=80, **own_choice)
        assert (found.text, found.ids, found.windows) == (own.text, own.ids, own.windows)
        assert shown(events, found) == found.text
        windows.append(found.windows)
        for place, step in enumerate(tokens(events)):
            assert step.seen is not None
            assert step.first + step.seen.shape[2] == found.prompt_tokens + place
    assert max(windows) > 1


@pytest.mark.parametrize("choice", [{"temperature": 0.0}, {"temperature": 1.2, "seed": 4}])
def test_a_reply_is_chats_own(choice: dict[str, Any]) -> None:
    parts = talker()
    found, events = told(parts, "chat", TALK, max_tokens=12, **choice)
    own = chat(parts, TALK, max_tokens=12, **choice)
    assert (found.text, found.score, found.tokens, found.finished, found.prompt_tokens) == (
        own.text, own.score, own.tokens, own.finished, own.prompt_tokens,
    )  # fmt: skip
    check_steps(parts, "chat", parts.tokenizer.encode_chat(TALK), events, found)
    long = [*TALK[:1], *TALK[1:] * 9]
    assert (
        write(parts, "chat", long, max_tokens=5, **choice).dropped
        == chat(parts, long, max_tokens=5).dropped
        > 0
    )


CASES: list[tuple[str, Callable[[], Parts], Any, dict[str, Any]]] = [
    ("translate", translator, SENTENCES[1], {}),
    ("summarize", translator, SENTENCES[0], {"max_tokens": 14}),
    ("generate", writer, "a dog", {"temperature": 0.0, "max_tokens": 20}),
    ("generate", writer, "a dog", {"temperature": 1.1, "top_k": 20, "seed": 8, "max_tokens": 60}),
    ("chat", talker, TALK, {"temperature": 0.9, "seed": 2, "max_tokens": 12}),
]


@pytest.mark.parametrize(("verb", "make", "text", "settings"), CASES)
def test_what_was_kept_goes_on_as_if_it_had_never_stopped(
    verb: str, make: Callable[[], Parts], text: Any, settings: dict[str, Any]
) -> None:
    whole, events = told(make(), verb, text, **settings)
    steps = tokens(events)
    for count in {0, 1, len(whole.ids) // 2, len(whole.ids)}:
        found, again = told(make(), verb, text, kept=whole.ids[:count], **settings)
        assert replace(found, score=0.0) == replace(
            whole, score=0.0, candidates=(replace(whole.candidates[0], score=found.score),)
        )
        assert found.score == pytest.approx(whole.score, abs=1e-3)
        assert shown(again, found) == shown(events, whole)
        for one, other in zip(tokens(again), steps, strict=True):
            assert (one.id, one.text, one.delta, one.end) == (other.id, other.text, other.delta, other.end)
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [a.id for a in one.alternatives] == [a.id for a in other.alternatives]
        assert [one.kept for one in tokens(again)] == [k < count for k in range(len(steps))]


@pytest.mark.parametrize(("verb", "make", "text", "settings"), CASES)
def test_a_reader_may_choose_any_token(
    verb: str, make: Callable[[], Parts], text: Any, settings: dict[str, Any]
) -> None:
    parts = make()
    whole, events = told(parts, verb, text, alternatives=9, **settings)
    step = tokens(events)[2]
    ends = {2, *(parts.tokenizer.token_to_id(name) or 2 for name in ("<|im_end|>",))}
    other = next(one for one in reversed(step.alternatives) if one.id != step.id and one.id not in ends)
    found, again = told(parts, verb, text, kept=[*whole.ids[:2], other.id], **settings)
    assert found.ids[:3] == (*whole.ids[:2], other.id)
    assert tokens(again)[2].logprob == pytest.approx(other.logprob, abs=1e-4)
    assert len(found.ids) > 3
    # An end token ends the text.
    ended, last = told(parts, verb, text, kept=[*whole.ids[:2], 2], **settings)
    assert (ended.ids, ended.finished, ended.tokens) == (whole.ids[:2], True, 3)
    assert [(one.id, one.end, one.kept) for one in tokens(last)][2:] == [(2, True, True)]


def test_many_kept_tokens_are_read_in_few_passes() -> None:
    parts = make_parts("decoder", context=256)
    rng = torch.Generator().manual_seed(0)
    kept = torch.randint(5, parts.tokenizer.vocab_size, (150,), generator=rng).tolist()
    passes: list[int] = []
    module: Any = parts.module
    hook = module.stack.register_forward_pre_hook(lambda m, args: passes.append(args[0].shape[1]))
    found, events = told(parts, "generate", "a dog", kept=kept, temperature=0.0, max_tokens=155)
    hook.remove()
    assert found.ids[:150] == tuple(kept)
    assert passes[:4] == [5, 64, 64, 22]
    assert all(size == 1 for size in passes[4:])
    check_steps(parts, "generate", parts.tokenizer.encode("a dog"), events, found)


@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("text", SENTENCES[:3])
def test_a_beam_search_is_translates_own_and_its_tree_holds_its_texts(text: str, beams: int) -> None:
    parts = translator()
    found, events = told(parts, "translate", text, beams=beams, length_penalty=0.7)
    (own,) = translate(parts, [text], beams=beams, length_penalty=0.7, num_return=beams)
    assert (found.text, found.score, found.ids, found.candidates) == (
        own.text,
        own.score,
        own.ids,
        own.candidates,
    )
    assert (found.tokens, found.finished) == (own.tokens, own.finished)
    (source,) = encode_sources(parts, [text])
    check_steps(parts, "translate", source, events, found)
    (tree,) = (event for event in events if isinstance(event, Tree))
    check_tree(parts, "translate", source, tree)
    best = [tree.nodes[k] for k in tree.best]
    assert [node.id for node in best if not node.end] == list(found.ids)
    assert sum(node.logprob for node in best) / len(best) ** 0.7 == pytest.approx(found.score, abs=1e-4)
    endings = [node for node in tree.nodes if node.end]
    assert sorted(node.score / node.step**0.7 for node in endings) == pytest.approx(
        sorted(one.score for one in own.candidates)[-len(endings) :] if own.finished else [], abs=1e-4
    )
    alive = [event for event in events if isinstance(event, Alive)]
    assert [event.step for event in alive] == list(range(1, len(alive) + 1))
    for event in alive:
        assert 1 <= len(event.nodes) <= beams
        assert all(node.step == event.step and not node.end for node in event.nodes)
        scores = [node.score for node in event.nodes]
        assert scores == sorted(scores, reverse=True)


def check_tree(parts: Parts, verb: str, prompt: Sequence[int], tree: Tree) -> None:
    """Compute the log-probability of every node again, from a plain pass over the text that leads to it."""

    def path(node: Node) -> list[int]:
        return [*([] if node.parent < 0 else path(tree.nodes[node.parent])), node.id]

    assert [node.node for node in tree.nodes] == list(range(len(tree.nodes)))
    assert len({tuple(path(node)) for node in tree.nodes}) == len(tree.nodes)
    parents = {node.parent for node in tree.nodes}
    for leaf in (node for node in tree.nodes if node.node not in parents):
        ids = path(leaf)
        own = logprobs(parts, verb, prompt, ids[:-1])
        each = [float(own[k][token]) for k, token in enumerate(ids)]
        at = leaf.node
        for step in range(len(ids), 0, -1):
            node = tree.nodes[at]
            assert node.logprob == pytest.approx(each[step - 1], abs=1e-4)
            assert node.score == pytest.approx(sum(each[:step]), abs=1e-3)
            assert (node.step, node.id, node.text) == (
                step,
                ids[step - 1],
                parts.tokenizer.tokens([node.id])[0],
            )
            at = node.parent
        assert at == -1


def test_beams_of_a_decoder_go_on_from_kept_tokens() -> None:
    parts = writer()
    whole, _ = told(parts, "generate", "a dog", beams=3, max_tokens=10)
    (own,) = generate(parts, ["a dog"], num_beams=3, max_tokens=10)
    assert (whole.text, whole.ids) == (own.text, own.ids)
    for count in (1, 3, len(whole.ids)):
        found, events = told(parts, "generate", "a dog", beams=3, max_tokens=10, kept=whole.ids[:count])
        (tree,) = (event for event in events if isinstance(event, Tree))
        check_tree(parts, "generate", parts.tokenizer.encode("a dog"), tree)
        assert found.ids[:count] == whole.ids[:count]
        # Of the texts that begin so the search can only find as good ones, or better.
        assert found.candidates[0].score >= whole.candidates[0].score - 1e-4
        steps = [event.step for event in events if isinstance(event, Alive)]
        assert steps == list(range(count + 1, count + 1 + len(steps)))
    first = next(
        one.id
        for one in tokens(told(parts, "generate", "a dog", max_tokens=3, temperature=0.0)[1])[0].alternatives[
            1:
        ]
    )
    other, _ = told(parts, "generate", "a dog", beams=3, max_tokens=10, kept=[first])
    assert other.ids[0] == first


@pytest.mark.parametrize("words", ["char", "bpe"])
def test_the_attention_of_a_translations_steps_is_that_of_a_whole_pass(words: str) -> None:
    parts = make_parts("encoder-decoder", words=words, num_decoder_layers=3)
    for settings in ({}, {"beams": 3}, {"kept": [9, 8, 7]}):
        found, events = told(parts, "translate", SENTENCES[0], attention=True, max_tokens=8, **settings)
        (source,) = encode_sources(parts, [SENTENCES[0]])
        module: Any = parts.module
        with torch.no_grad(), record() as recorder:
            module.hidden(torch.tensor([source]), torch.tensor([[parts.config.start, *found.ids]]))
        layers = tuple(name for name in recorder.weights if name.startswith("cross."))
        assert layers == ("cross.0", "cross.1", "cross.2")
        for place, step in enumerate(tokens(events)):
            assert step.seen is not None
            assert step.layers == layers
            own = torch.stack([recorder[name][0, :, place] for name in layers])
            torch.testing.assert_close(step.seen, own, atol=1e-5, rtol=1e-4)
        assert (found.text, found.ids) == (
            write(parts, "translate", SENTENCES[0], max_tokens=8, **settings).text,
            found.ids,
        )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position": "alibi"},
        {"position": "t5"},
        {"window": 5},
        {"window": 5, "position": "alibi"},
        {"num_kv_heads": 1},
    ],
)
def test_the_attention_of_a_continuations_steps_is_that_of_a_whole_pass(changes: dict[str, Any]) -> None:
    parts = make_parts("decoder", **changes)
    for kept in ([], [9, 8, 7, 12, 11, 10, 9, 20]):
        found, events = told(
            parts, "generate", "a dog", attention=True, max_tokens=14, temperature=0.0, kept=kept
        )
        prompt = parts.tokenizer.encode("a dog")
        with torch.no_grad(), record() as recorder:
            parts.module(torch.tensor([[*prompt, *found.ids]]))
        for place, step in enumerate(tokens(events)):
            query = len(prompt) - 1 + place
            assert step.seen is not None
            assert step.first == 0
            own = torch.stack([weights[0][0, :, query] for weights in recorder.weights.values()])
            assert not own[:, :, query + 1 :].any()
            torch.testing.assert_close(step.seen, own[:, :, : query + 1], atol=1e-5, rtol=1e-4)
        assert found.text == generate(parts, ["a dog"], max_tokens=14, temperature=0.0)[0].text or kept


@pytest.mark.parametrize(("verb", "make", "text", "settings"), CASES)
def test_the_next_token_is_what_the_model_says(
    verb: str, make: Callable[[], Parts], text: Any, settings: dict[str, Any]
) -> None:
    parts = make()
    whole, events = told(parts, verb, text, alternatives=7, **settings)
    own = {name: value for name, value in settings.items() if name == "max_tokens"}
    for count in {0, 1, 5, len(whole.ids) - 1}:
        found = next_token(parts, verb, text, kept=whole.ids[:count], **own)
        step = tokens(events)[count]
        assert found.logprobs.shape == (parts.config.vocab_size,)
        assert float(found.logprobs.exp().sum()) == pytest.approx(1.0, abs=1e-4)
        assert [one.id for one in found.top[:7]] == [one.id for one in step.alternatives]
        assert [float(found.logprobs[one.id]) for one in found.top] == [one.logprob for one in found.top]
        assert float(found.logprobs[step.id]) == pytest.approx(step.logprob, abs=1e-4)
        assert len(found.top) == min(50, parts.config.vocab_size)


def test_nothing_follows_an_end() -> None:
    with pytest.raises(ConfigError, match="nothing comes next"):
        next_token(translator(), "translate", "a dog", kept=[9, 2])
    with pytest.raises(ConfigError, match="nothing comes next"):
        next_token(translator(), "translate", "  ")
    with pytest.raises(ConfigError, match="token 2 ends the text"):
        next_token(translator(), "translate", "a dog", kept=[2, 9])


def test_an_empty_source_has_an_empty_translation() -> None:
    for beams in (1, 3):
        found, events = told(translator(), "translate", " ", beams=beams)
        assert (found.text, found.ids, found.finished, found.rest) == ("", (), True, "")
        assert not tokens(events)


@pytest.mark.parametrize(
    ("verb", "settings", "message"),
    [
        ("sing", {}, "'sing' doesn't write; give one of translate"),
        ("translate", {}, "can't translate, which takes an encoder-decoder"),
        ("generate", {"beem": 3}, "no setting 'beem'.*beams"),
        ("generate", {"beams": 0}, "beams=0 is not allowed"),
        ("generate", {"temperature": float("nan")}, "temperature=nan"),
        ("generate", {"temperature": -1.0}, "temperature=-1.0"),
        ("generate", {"max_tokens": 0}, "max_tokens=0"),
        ("generate", {"beams": 2, "temperature": 0.5}, "exclude each other"),
        ("generate", {"temperature": 0.0, "top_k": 3}, "would be ignored at temperature=0"),
        ("generate", {"source_language": "en"}, "source_language='en' has no effect"),
        ("generate", {"kept": [-1]}, "a kept token=-1 is not allowed"),
        ("generate", {"kept": [10**9]}, "a kept token=1000000000 is not allowed"),
        ("generate", {"kept": [2, 5]}, "token 2 ends the text"),
        ("generate", {"kept": [5, 6], "max_tokens": 1}, "2 tokens are kept, and max_tokens=1"),
        ("generate", {"alternatives": -1}, "alternatives=-1"),
    ],
)
def test_bad_settings_are_named(verb: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write(writer(), verb, "a dog", **settings)


def test_a_translation_is_no_sample() -> None:
    with pytest.raises(ConfigError, match=r"temperature=0\.5 has no effect"):
        write(translator(), "translate", "a dog", temperature=0.5)
    neutral = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 4}
    assert write(translator(), "translate", "a dog", **neutral) == write(translator(), "translate", "a dog")
    with pytest.raises(ConfigError, match="70 tokens are kept, and at most"):
        write(translator(), "translate", "a", kept=[5] * 70)
    with pytest.raises(DataError, match="this model reads at most 64"):
        write(translator(), "translate", "a" * 80)
    with pytest.raises(ConfigError, match="chat writes one reply"):
        write(talker(), "chat", TALK, beams=2)


def test_more_attention_than_can_be_told_is_refused() -> None:
    parts = make_parts("decoder", context=300_000)
    with pytest.raises(ConfigError, match="2 layers of 2 heads to 270004 tokens are too many"):
        write(parts, "generate", "a dog", attention=True, max_tokens=270_000)


def test_a_tokens_of_a_larger_table_have_names() -> None:
    parts = make_parts("decoder", extra=9, words="char")
    found = next_token(parts, "generate", "a dog")
    size = parts.tokenizer.vocab_size
    assert len(found.logprobs) == size + 9
    named = {one.id: one.text for one in found.top}
    assert any(token >= size for token in named)
    assert all(text == f"[{token}]" for token, text in named.items() if token >= size)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("verb", ["generate", "translate"])
def test_a_check_that_raises_ends_the_work_before_the_next_pass(verb: str, beams: int) -> None:
    class LeftError(Exception):
        pass

    passes: list[int] = []

    def check() -> None:
        if len(passes) == 4:
            raise LeftError

    module: Any = (writer() if verb == "generate" else translator()).module
    stack = module.stack if verb == "generate" else module.decoder
    hook = stack.register_forward_pre_hook(lambda *given: passes.append(1))
    with pytest.raises(LeftError):
        write(
            writer() if verb == "generate" else translator(),
            verb,
            SENTENCES[2],
            beams=beams,
            check=check,
            max_tokens=30,
        )
    hook.remove()
    assert len(passes) == 4
